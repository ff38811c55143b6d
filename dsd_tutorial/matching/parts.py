"""The parts of the attention score, pass by pass: before any averaging, for all pairs at once.

What `matching.score` averages, kept apart by token mask, time step, layer and head, so that one
computation answers many questions (which layer, which step) and weights can be fitted to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dsd_tutorial.attention import observe
from dsd_tutorial.attention.layers import choose_layers
from dsd_tutorial.attention.pooling import PIXEL_POOLINGS, pool_pixels
from dsd_tutorial.attention.token_masks import TOKEN_MASKS
from dsd_tutorial.attention.token_masks import token_mask as positions_of
from dsd_tutorial.stable_diffusion.noising import shared_noise, time_grid


@dataclass(frozen=True)
class Components:
    """The parts of the score of each pair, before they are averaged.

    by_mask  {token mask: (pairs, steps, layers, heads)}, float32 on the CPU, mean over the noises;
             where layers differ in their number of heads, NaN fills up
    errors   (pairs, steps): ||e - eps(z_t, empty)|| - ||e - eps(z_t, text)||, or None
    layers, steps, pairs name the axes: layer names, time steps, (pairs, 2) image and text index
    """

    by_mask: dict[str, Tensor]
    errors: Tensor | None
    layers: tuple[str, ...]
    steps: tuple[int, ...]
    pairs: Tensor

    @property
    def scores(self) -> Tensor:
        """Return (pairs, steps, layers, heads) of the first token mask."""
        return next(iter(self.by_mask.values()))

    def score(
        self,
        weights: Tensor | None = None,
        *,
        token_mask: str | None = None,
        attention_weight: float = 1.0,
        error_weight: float = 0.0,
    ) -> Tensor:
        """Return one score per pair, (pairs,).

        `weights`, broadcastable to (steps, layers, heads), multiply the components, which are then
        summed over layers and heads and averaged over steps; None is the mean over heads, then
        layers, then steps. Raises ValueError where the error term was not computed.
        """
        parts = self.scores if token_mask is None else self.by_mask[token_mask]
        if weights is None:
            attention = parts.nanmean(-1).mean((-1, -2))
        else:
            attention = (parts.nan_to_num() * weights).sum((-1, -2)).mean(-1)
        if error_weight == 0:
            return attention_weight * attention
        if self.errors is None:
            raise ValueError("error_weight needs the error term: components(..., errors=True)")
        return attention_weight * attention + error_weight * self.errors.mean(-1)


def pass_components(
    model: Any,
    noisy: Tensor,
    timestep: int | Tensor,
    context: Tensor,
    *,
    layers: Any = None,
    token_masks: Sequence[Tensor | None] = (None,),
    lam: float = 1.0,
    pooling: str = "mean",
    pooling_lam: float = 1.0,
    grad: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return (masks, batch, layers, heads) of one U-Net pass, and its epsilon (batch, 4, h, w).

    noisy (batch, 4, h, w), context (batch, L, d). With `grad` both carry gradients: learn a prompt,
    an attention edit or LoRA on this.
    """
    single = len(token_masks) == 1  # keeps the fused kernel in reach
    masks = token_masks[0] if single else list(token_masks)
    with torch.set_grad_enabled(grad):
        with observe(model, layers, masks, lam, grad=grad) as seen:
            eps = model.predict_noise(noisy, timestep, context)
        pooled = [pool_pixels(x, pooling, pooling_lam) for x in seen.scores.values()]
        most = max(x.shape[-1] for x in pooled)
        fill = [F.pad(x, (0, most - x.shape[-1]), value=float("nan")) for x in pooled]
        stacked = torch.stack(fill, dim=-2)  # (masks?, batch, layers, heads)
    return (stacked[None] if single else stacked), eps


@torch.no_grad()
def components(
    model: Any,
    images: Tensor,
    texts: Sequence[str],
    pairs: Tensor | Sequence[tuple[int, int]] | None = None,
    *,
    steps: int | Sequence[int] = 8,
    noises: int = 1,
    layers: str | Sequence[str] | None = None,
    token_mask: str | Sequence[str] = "all",
    lam: float = 1.0,
    pooling: str = "mean",
    pooling_lam: float = 1.0,
    errors: bool = False,
    seed: int = 0,
    batch_size: int = 32,
    encode: Callable[[list[str]], Tensor] | None = None,
    progress: bool = True,
) -> Components:
    """Return the `Components` of all M x N pairs (image-major), or of `pairs` (image, text).

    steps        n time steps in the middle of n equal cells, or a list of time steps
    noises       noises per time step, averaged
    layers       names as in `observe`, None for all, "last" for the released code's choice
    token_mask   "all", "words", "no_start", "no_padding" or "eos"; several are had in one pass
    lam          lambda of the log-sum-exp over tokens
    pooling      over pixels: "mean", "max", or "lse" with `pooling_lam`
    errors       also the error term (one more pass per image, time step and noise)
    encode       texts -> (batch, L, d), in place of `model.encode_text`

    Each image and each distinct text is encoded once, equal pairs are computed once; the cost is
    pairs x steps x noises U-Net passes. Raises ValueError for settings out of range.
    """
    names = (token_mask,) if isinstance(token_mask, str) else tuple(token_mask)
    grid = time_grid(steps, model.scheduler.config.num_train_timesteps)
    _check(images, texts, names, pooling, noises, batch_size)
    chosen = choose_layers(model, layers)
    asked = _pairs(pairs, len(images), len(texts))
    work = _Work.prepare(model, images, list(texts), asked, names, encode, errors)
    heads = max(attn.heads for attn in chosen.values())
    found = torch.zeros(len(names), len(work.pairs), len(grid), len(chosen), heads)
    gaps = torch.zeros(len(work.pairs), len(grid))
    how = {"layers": list(chosen), "lam": lam, "pooling": pooling, "pooling_lam": pooling_lam}
    with work.bar(len(grid) * noises, batch_size, progress) as bar:
        for i, t in enumerate(grid):
            for j in range(noises):
                e = shared_noise(work.latents.shape[1:], seed, i, j).to(work.latents.device)
                for rows, parts, gap in work.one_noise(t, e, batch_size, how, bar):
                    found[:, rows, i] += parts / noises
                    gaps[rows, i] += gap / noises
    by_mask = {name: found[m][work.inverse] for m, name in enumerate(names)}
    errors_of = gaps[work.inverse] if errors else None
    return Components(by_mask, errors_of, tuple(chosen), grid, asked)


@dataclass
class _Work:
    """What stays the same over all passes: latents, token states, masks, the list of pairs."""

    model: Any
    latents: Tensor  # (M, 4, h, w)
    contexts: Tensor  # (distinct texts, L, d)
    masks: list[Tensor | None]  # each (distinct texts, L)
    empty: Tensor | None  # (1, L, d), for the error term
    pairs: Tensor  # (distinct pairs, 2): image, distinct text
    inverse: Tensor  # (pairs,) place of each asked pair among the distinct ones

    @classmethod
    def prepare(cls, model, images, texts, asked, names, encode, errors) -> _Work:
        distinct = list(dict.fromkeys(texts))
        place = torch.tensor([distinct.index(text) for text in texts])
        own = torch.stack([asked[:, 0], place[asked[:, 1]]], dim=1)
        pairs, inverse = own.unique(dim=0, return_inverse=True)
        encode = encode or model.encode_text
        contexts = [encode(distinct[i : i + 64]) for i in range(0, len(distinct), 64)]
        masks = [positions_of(model, distinct, name) for name in names]
        empty = encode([""]) if errors else None
        latents = model.encode_image(images)
        return cls(model, latents, torch.cat(contexts), masks, empty, pairs, inverse)

    def bar(self, noises: int, batch_size: int, progress: bool) -> Any:
        from tqdm.auto import tqdm

        passes = noises * -(-len(self.pairs) // batch_size)
        return tqdm(total=passes, desc="U-Net passes", disable=not progress, leave=False)

    def one_noise(
        self, t: int, e: Tensor, batch_size: int, how: dict[str, Any], bar: Any
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | float]]:
        """Yield (rows, (masks, rows, layers, heads), error term (rows,) or 0) for each batch."""
        noisy = self.model.add_noise(self.latents, e.expand_as(self.latents), t)
        base = self._empty_errors(noisy, t, e, batch_size) if self.empty is not None else None
        for rows in torch.arange(len(self.pairs)).split(batch_size):
            image, text = self.pairs[rows].to(noisy.device).unbind(1)
            here = text.cpu()
            masks = [None if mask is None else mask[here] for mask in self.masks]
            parts, eps = pass_components(
                self.model, noisy[image], t, self.contexts[text], token_masks=masks, **how
            )
            gap = 0.0 if base is None else (base[image] - distance(e, eps)).cpu()
            yield rows, parts.float().cpu(), gap
            bar.update()

    def _empty_errors(self, noisy: Tensor, t: int, e: Tensor, batch_size: int) -> Tensor:
        parts = [
            distance(e, self.model.predict_noise(part, t, self.empty.expand(len(part), -1, -1)))
            for part in noisy.split(batch_size)
        ]
        return torch.cat(parts)


def distance(e: Tensor, eps: Tensor) -> Tensor:
    """Return ||e - eps|| of each item in float32, (batch,)."""
    return (e.float() - eps.float()).flatten(1).norm(dim=1)


def _pairs(pairs: Any, images: int, texts: int) -> Tensor:
    if pairs is None:
        return torch.cartesian_prod(torch.arange(images), torch.arange(texts))
    pairs = torch.as_tensor(pairs).cpu()
    limit = torch.tensor([images, texts])
    if pairs.ndim != 2 or pairs.shape[1] != 2 or bool(((pairs < 0) | (pairs >= limit)).any()):
        raise ValueError(
            f"pairs must be (pairs, 2) with image index < {images} and text index < {texts}, "
            f"not shape {tuple(pairs.shape)} with largest {pairs.max().item() if len(pairs) else 0}"
        )
    return pairs.long()


def _check(images, texts, names, pooling, noises, batch_size) -> None:
    if isinstance(texts, str):
        raise ValueError("texts must be a list of captions, not one string: write [text]")
    if images.ndim != 4 or not len(images) or not len(texts):
        raise ValueError(
            f"images must be (M, 3, height, width) and texts N captions, M and N > 0; got "
            f"{tuple(images.shape)} and {len(texts)}"
        )
    if pooling not in PIXEL_POOLINGS:
        raise ValueError(f"unknown pooling {pooling!r}; choose one of {', '.join(PIXEL_POOLINGS)}")
    for name, value in {"noises": noises, "batch_size": batch_size}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if not names:
        raise ValueError(f"token_mask names no mask; choose from {', '.join(TOKEN_MASKS)}")
