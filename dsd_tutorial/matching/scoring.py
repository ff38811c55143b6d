"""Does this caption fit this image? The attention score, for every pair, under shared noise.

For each time step t_i and noise e_i, shared by all candidates: z_t from the image's latent
(encoded once), one U-Net pass with the text as condition, log-sum-exp of the raw cross-attention
logits over the tokens, mean over pixels, heads, layers and (t_i, e_i), never over the batch (He et
al., arXiv 2305.10722, as in the released code, whose empty-prompt half is left out here). The error
term ||e - eps(z_t, empty)|| - ||e - eps(z_t, text)|| is a diffusion classifier's; it is off by
default, so that the two can be told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dsd_tutorial.attention import Roles, choose_layers, observe, readings_of, roles_of
from dsd_tutorial.attention import token_mask as positions_of
from dsd_tutorial.attention.pooling import PIXEL_POOLINGS, pool_pixels
from dsd_tutorial.attention.readings import check_readings
from dsd_tutorial.attention.token_masks import TOKEN_MASKS
from dsd_tutorial.matching.parts import Components
from dsd_tutorial.matching.prior import TextPrior
from dsd_tutorial.stable_diffusion.noising import shared_noise, time_grid


def score(
    model: Any,
    images: Float[Tensor, "images 3 height width"],
    texts: Sequence[str],
    *,
    error_weight: float = 0.0,
    attention_weight: float = 1.0,
    weights: Float[Tensor, "*axes"] | None = None,
    reading: str | None = None,
    **settings: Any,
) -> Float[Tensor, "images texts"]:
    """Return how well each text fits each image, higher is better.

    Args:
        model: A `StableDiffusion`.
        images: In [0, 1].
        texts: Captions.
        error_weight: Beta of the error term.
        attention_weight: Of the attention score.
        weights: As in `Components.score`.
        reading: What is read of the logits in place of their log-sum-exp, one of
            `attention.READINGS`, such as "direction".
        **settings: As in `components`, with its defaults: prior, steps, noises, layers, token_mask,
            lam, pooling, pooling_lam, seed, batch_size, progress.
    """
    if reading is not None:
        settings |= {"token_mask": (), "readings": (reading,)}
    parts = components(model, images, texts, errors=error_weight != 0, **settings)
    scores = parts.score(weights, attention_weight=attention_weight, error_weight=error_weight)
    return scores.view(len(images), len(texts))


@torch.no_grad()
def components(
    model: Any,
    images: Float[Tensor, "images 3 height width"],
    texts: Sequence[str],
    pairs: Int[Tensor, "pairs 2"] | Sequence[tuple[int, int]] | None = None,
    *,
    steps: int | Sequence[int] = 8,
    noises: int = 1,
    layers: str | Sequence[str] | None = None,
    token_mask: str | Sequence[str] = "all",
    readings: Sequence[str] = (),
    prior: TextPrior | Tensor | str | None = None,
    lam: float = 1.0,
    pooling: str = "mean",
    pooling_lam: float = 1.0,
    errors: bool = False,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> Components:
    """Return the `Components` of all images x texts pairs, image by image, or of some.

    Each image and each distinct text is encoded once, equal pairs are computed once; the cost is
    pairs x steps x noises U-Net passes.

    Args:
        model: A `StableDiffusion`.
        images: In [0, 1].
        texts: Captions.
        pairs: Image and text index of the pairs that are scored; None for all.
        steps: n time steps in the middle of n equal cells, or a list of time steps.
        noises: Noises per time step, averaged.
        layers: Names as in `observe`, None for all, "last" for the released code's choice.
        token_mask: "all", "words", "no_start", "no_padding" or "eos"; several cost no more passes.
        readings: Of `attention.READINGS`, computed in the same passes.
        prior: Reference images, "validation" for some of the shapes world, or a `TextPrior`, which
            keeps what it computed: each text's mean over the references is taken off all but the
            error term (one pass more per reference, distinct text, time step and noise).
        lam: Lambda of the log-sum-exp over tokens.
        pooling: Over pixels: "mean", "max", or "lse".
        pooling_lam: Lambda of the log-sum-exp over pixels.
        errors: Whether the error term is computed: one more pass per image, time step and noise.
        seed: Draws the noises.
        batch_size: Pairs per U-Net pass.
        progress: Whether a progress bar is shown.

    Raises:
        ValueError: settings out of range.
    """
    from tqdm.auto import tqdm

    masks = (token_mask,) if isinstance(token_mask, str) else tuple(token_mask)
    names = (*masks, *readings)
    _check(images, texts, masks, readings, pooling, noises, batch_size)
    prior = TextPrior.given(prior)
    grid = time_grid(steps, model.scheduler.config.num_train_timesteps)
    chosen: dict[str, Any] = choose_layers(model, layers)
    index = _pairs(pairs, len(images), len(texts))
    once = Encoded(model, images, texts, index, masks, errors=errors, structure=bool(readings))
    heads = max(attn.heads for attn in chosen.values())
    found = torch.zeros(len(names), len(once.pairs), len(grid), len(chosen), heads)
    gaps = torch.zeros(len(once.pairs), len(grid))
    passes = len(grid) * noises * -(-len(once.pairs) // batch_size)
    with tqdm(total=passes, desc="U-Net passes", disable=not progress, leave=False) as bar:
        for (i, t), j in product(enumerate(grid), range(noises)):
            e = shared_noise(once.latents.shape[1:], seed, i, j).to(once.latents.device)
            noisy = model.add_noise(once.latents, e.expand_as(once.latents), t)
            base = once.empty_distances(noisy, t, e, batch_size)
            for rows in torch.arange(len(once.pairs)).split(batch_size):
                image, prompts, kept, roles = once.batch(rows)
                parts, eps = pass_components(
                    model, noisy[image], t, prompts, layers=list(chosen), token_masks=kept,
                    readings=readings, roles=roles, lam=lam, pooling=pooling,
                    pooling_lam=pooling_lam,
                )  # fmt: skip
                found[:, rows, i] += parts.float().cpu() / noises
                if base is not None:
                    gaps[rows, i] += (base[image] - distance(e, eps)).cpu() / noises
                bar.update()
    if prior is not None:
        same = {
            "steps": grid, "noises": noises, "layers": tuple(chosen), "token_mask": masks,
            "readings": tuple(readings), "lam": lam, "pooling": pooling,
            "pooling_lam": pooling_lam, "seed": seed,
        }  # fmt: skip
        off = prior.of(
            model, once.texts,
            lambda images, texts: components(
                model, images, texts, batch_size=batch_size, progress=progress, **same
            ),
            tuple(same.values()),
        )  # fmt: skip
        found -= off[once.pairs[:, 1]].transpose(0, 1)
    by_reading = {name: found[m][once.place] for m, name in enumerate(names)}
    return Components(by_reading, gaps[once.place] if errors else None, tuple(chosen), grid, index)


def pass_components(
    model: Any,
    noisy: Float[Tensor, "batch channels height width"],
    timestep: int,
    prompts: Float[Tensor, "batch tokens states"],
    *,
    layers: str | Sequence[str] | None = None,
    token_masks: Sequence[Tensor | None] = (None,),
    readings: Sequence[str] = (),
    roles: Roles | None = None,
    lam: float = 1.0,
    pooling: str = "mean",
    pooling_lam: float = 1.0,
    grad: bool = False,
) -> tuple[
    Float[Tensor, "readings batch layers heads"], Float[Tensor, "batch channels height width"]
]:
    """Return the components of one U-Net pass, token masks first, and its epsilon.

    With `grad` both carry gradients: learn a prompt, an attention edit or LoRA on this. The other
    arguments are those of `components`, the token masks as tensors; `roles` of the batch's texts
    where there are readings.
    """
    single = len(token_masks) <= 1  # keeps the fused kernel in reach
    masks = list(token_masks) if not single else token_masks[0] if token_masks else None

    def read(logits: Tensor, roles: Any = roles) -> Tensor:
        read = readings_of(logits.float(), roles.to(logits.device), readings)[..., None]
        return F.pad(read, (0, logits.shape[1] - 1), value=float("nan"))  # one for all heads

    with torch.set_grad_enabled(grad):
        with observe(
            model, layers, masks, lam, grad=grad, reduce_logits=read if readings else None
        ) as seen:
            eps = model.predict_noise(noisy, timestep, prompts)
        found = []
        for name, scores in seen.scores.items():
            pooled = pool_pixels(scores, pooling, pooling_lam)  # (masks?, batch, heads)
            rows = [pooled[None] if single else pooled] if token_masks else []
            found.append(torch.cat([*rows, seen.logits[name]] if readings else rows))
        most = max(x.shape[-1] for x in found)
        fill = [F.pad(x, (0, most - x.shape[-1]), value=float("nan")) for x in found]
    return torch.stack(fill, dim=-2), eps


class Encoded:
    """What stays the same over all passes, each image and each distinct text encoded once.

    Attributes:
        latents: (images, channels, height, width).
        texts: The distinct texts.
        prompts: Of the distinct texts, (texts, tokens, states).
        masks: Of each token mask (texts, tokens), or None.
        roles: Which tokens of the distinct texts play which part, where structure is read.
        empty: The prompt embeddings of the empty prompt where the error term is wanted, or None.
        pairs: (distinct pairs, 2), image and distinct text.
        place: (pairs,), the place of each pair among the distinct ones.
    """

    def __init__(
        self,
        model: Any,
        images: Tensor,
        texts: Sequence[str],
        pairs: Int[Tensor, "pairs 2"],
        token_masks: Sequence[str] = (),
        errors: bool = False,
        structure: bool = False,
    ):
        distinct = list(dict.fromkeys(texts))
        number = torch.tensor([distinct.index(text) for text in texts])
        own = torch.stack([pairs[:, 0], number[pairs[:, 1]]], dim=1)
        self.pairs, self.place = own.unique(dim=0, return_inverse=True)
        prompts = [model.encode_text(distinct[i : i + 64]) for i in range(0, len(distinct), 64)]
        self.model, self.texts, self.prompts = model, distinct, torch.cat(prompts)
        self.masks = [positions_of(model, distinct, name) for name in token_masks]
        self.roles = roles_of(model, distinct) if structure else None
        self.empty = model.encode_text([""]) if errors else None
        self.latents = model.encode_image(images)

    def batch(
        self, rows: Int[Tensor, " batch"]
    ) -> tuple[Tensor, Tensor, list[Tensor | None], Roles | None]:
        """Return image index, prompt embeddings, token masks and roles of these distinct pairs."""
        image, text = self.pairs[rows].unbind(1)
        masks = [None if mask is None else mask[text] for mask in self.masks]
        device = self.latents.device
        roles = None if self.roles is None else self.roles[text]
        return image.to(device), self.prompts[text.to(device)], masks, roles

    def empty_distances(
        self, noisy: Tensor, t: int, e: Tensor, batch_size: int
    ) -> Float[Tensor, " images"] | None:
        """Return ||e - eps(z_t, empty)|| of each image, or None without the error term."""
        if self.empty is None:
            return None
        parts = [
            distance(e, self.model.predict_noise(part, t, self.empty.expand(len(part), -1, -1)))
            for part in noisy.split(batch_size)
        ]
        return torch.cat(parts)


def distance(
    e: Float[Tensor, "#batch channels height width"],
    eps: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, " batch"]:
    """Return ||e - eps|| of each item, in float32."""
    return (e.float() - eps.float()).flatten(1).norm(dim=1)


def _pairs(pairs: Any, images: int, texts: int) -> Int[Tensor, "pairs 2"]:
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


def _check(
    images: Tensor,
    texts: Sequence[str],
    masks: tuple[str, ...],
    readings: Sequence[str],
    pooling: str,
    noises: int,
    batch_size: int,
) -> None:
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
    if readings:
        check_readings(readings)
    elif not masks:
        raise ValueError(f"token_mask names no mask; choose from {', '.join(TOKEN_MASKS)}")
