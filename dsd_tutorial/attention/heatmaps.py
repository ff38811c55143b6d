"""Where a word looks: heat maps from cross-attention, and the pointing game against a mask.

As in DAAM (Tang et al., arXiv 2210.04885): the attention probabilities of a word's tokens, averaged
over heads, layers (brought to one grid) and time steps; either for a given picture, noised at some
time steps, or traced while a picture is made. An attention map alone proves little: draw the same
map for shuffled words, another picture and an untrained network beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dsd_tutorial.attention.observing import observe
from dsd_tutorial.attention.token_masks import word_positions
from dsd_tutorial.stable_diffusion.noising import shared_noise, time_grid

Word = str | tuple[str, int]
Heat = dict[Word, Tensor]


@torch.no_grad()
def heat_maps(
    model: Any,
    image: Tensor,
    text: str | Sequence[str],
    words: Sequence[Word] | Sequence[Sequence[Word]] | None = None,
    *,
    steps: int | Sequence[int] = 8,
    noises: int = 1,
    layers: str | Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 16,
    size: int | tuple[int, int] | None = None,
    progress: bool = True,
) -> Heat | list[Heat]:
    """Return {word: (h, w)} for one image and text, or a list of those for several.

    image (3, height, width) or (1, 3, ...) with a text; or (n, 3, ...) with n texts and n lists of
    words. None means every word of the text; a phrase of several words in a row works, every
    occurrence counts, (word, k) means the k-th alone. h, w are the latent's, or `size`.
    Raises ValueError, with the list of words, for a word that is not in its text.
    """
    single = isinstance(text, str)
    images = image[None] if image.ndim == 3 else image
    texts, lists = ([text], [words]) if single else (list(text), list(words or [None] * len(text)))
    if not len(images) == len(texts) == len(lists):
        raise ValueError(
            f"{len(images)} images, {len(texts)} texts, {len(lists)} lists of words: give one each"
        )
    places = [_places(model, t, w) for t, w in zip(texts, lists, strict=True)]
    found: list[Heat] = []
    grid = time_grid(steps, model.scheduler.config.num_train_timesteps)
    with _bar(len(grid) * noises * -(-len(texts) // batch_size), progress) as bar:
        for i in range(0, len(texts), batch_size):
            part = slice(i, i + batch_size)
            latents = model.encode_image(images[part])
            context = model.encode_text(texts[part])
            with observe(model, layers, maps=True, keep="mean", reduce_maps=_over_heads) as seen:
                for s, t in enumerate(grid):
                    for n in range(noises):
                        e = shared_noise(latents.shape[1:], seed, s, n).to(latents)
                        noisy = model.add_noise(latents, e.expand_as(latents), t)
                        model.predict_noise(noisy, t, context)
                        bar.update()
            tokens = token_heat(seen.maps, latents.shape[-2:], size)
            found += [_pick(heat, place) for heat, place in zip(tokens, places[part], strict=True)]
    return found[0] if single else found


@contextmanager
def trace(
    model: Any,
    text: str,
    words: Sequence[Word] | None = None,
    *,
    layers: str | Sequence[str] | None = None,
    size: int | tuple[int, int] | None = None,
    states: Tensor | None = None,
) -> Iterator[Heat]:
    """Yield a dictionary that is filled at the end of the block: {word: (images, h, w)}.

        with trace(model, text, ["circle"]) as heat:
            images = model.sample([text])
        heat["circle"]

    Of each batch the rows that carry this text's token states are followed, or `states` (1, L, d)
    where the pictures are made from embeddings; the unconditional half of guidance is not.
    Raises ValueError for an unknown word, before anything is sampled, or where the text was never
    sampled.
    """
    places = _places(model, text, words)
    states = model.encode_text([text]).detach() if states is None else states
    heat: Heat = {}
    with ExitStack() as stack:
        follow = _Follow(states)
        seen = stack.enter_context(
            observe(model, layers, maps=True, keep="mean", reduce_maps=follow.rows_of)
        )
        follow.seen = seen
        handle = model.unet.register_forward_pre_hook(follow, with_kwargs=True)
        stack.callback(handle.remove)
        yield heat
        runs = [*follow.finished, (dict(seen.maps), follow.grid)]
        if not seen.maps:
            raise ValueError(f"{text!r} was not among the sampled prompts: give both the same text")
    tokens = torch.cat([token_heat(maps, grid, size) for maps, grid in runs])
    heat.update({word: tokens[:, at].mean(1) for word, at in places.items()})  # (images, h, w)


class _Follow:
    """Knows, from what the U-Net is given, which rows of a batch are conditioned on one text.

    A time step above the last one means that another batch of pictures has begun.
    """

    def __init__(self, states: Tensor):
        self.states, self.seen, self.rows = states, None, None
        self.grid, self.last, self.finished = (0, 0), float("inf"), []

    def __call__(self, unet: Any, args: tuple, kwargs: dict) -> None:
        sample, step, context = (
            args[i] if len(args) > i else kwargs[key]
            for i, key in enumerate(("sample", "timestep", "encoder_hidden_states"))
        )
        now = float(torch.as_tensor(step).float().max())
        if now > self.last and self.seen.maps:
            self.finished.append((self.seen.restart(), self.grid))
        self.last, self.grid = now, tuple(sample.shape[-2:])
        self.rows = None
        if context.shape[1:] == self.states.shape[1:]:
            states = self.states.to(context.device)
            same = (context.float() - states).abs().amax((1, 2)) <= 1e-2 * states.abs().max()
            self.rows = same if bool(same.any()) else None

    def rows_of(self, maps: Tensor) -> Tensor | None:
        return None if self.rows is None else _over_heads(maps[self.rows])


def token_heat(
    layer_maps: dict[str, Tensor], grid: Sequence[int], size: int | tuple[int, int] | None = None
) -> Tensor:
    """Return (batch, tokens, h, w): the mean over the layers' maps (batch, pixels, tokens).

    `grid` is the latent's (height, width); every layer is enlarged to it (bicubic, cut at zero),
    and the result to `size` where given.
    """
    height, width = grid
    total = torch.zeros(())
    for maps in layer_maps.values():
        batch, pixels, tokens = maps.shape
        rows, columns = _layer_grid(pixels, height, width)
        maps = maps.float().transpose(1, 2).reshape(batch, tokens, rows, columns)
        total = total.to(maps.device) + _resize(maps, (height, width))
    mean = total / len(layer_maps)
    return mean if size is None else _resize(mean, (size, size) if isinstance(size, int) else size)


def _layer_grid(pixels: int, height: int, width: int) -> tuple[int, int]:
    rows, columns = height, width
    while rows * columns > pixels:
        rows, columns = -(-rows // 2), -(-columns // 2)  # a stride of two rounds up
    if rows * columns != pixels:
        raise ValueError(f"a layer of {pixels} pixels does not halve from {height} x {width}")
    return rows, columns


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size, mode="bicubic", align_corners=False).clamp(min=0)


def _over_heads(maps: Tensor) -> Tensor:
    return maps.mean(1)  # (batch, heads, pixels, tokens) -> (batch, pixels, tokens)


def _places(model: Any, text: str, words: Sequence[Word] | None) -> dict[Word, list[int]]:
    if isinstance(words, str):
        raise ValueError(f"words must be a list: write [{words!r}]")
    words = [word for word, _ in model.token_words(text)] if words is None else words
    return {word: word_positions(model, text, word) for word in words}


def _pick(tokens: Tensor, places: dict[Word, list[int]]) -> Heat:
    return {word: tokens[at].mean(0) for word, at in places.items()}


def _bar(total: int, progress: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, desc="U-Net passes", disable=not progress, leave=False)


def pointing_game(heat: Tensor, mask: Tensor) -> bool:
    """Return whether the hottest pixel lies on the object: heat (h, w), mask (H, W) bool.

    The heat is enlarged to the mask. A tie counts only if every hottest pixel is on the object, so
    that a flat map never hits. Blind pointing hits with `mask.float().mean()`.
    Raises ValueError for an empty mask or a heat that is not finite.
    """
    heat = _on_mask(heat, mask)
    return bool(mask[heat == heat.max()].all())


def mass_ratio(heat: Tensor, mask: Tensor) -> float:
    """Return the share of heat on the object over the object's share of the picture (1 = blind).

    Raises ValueError as `pointing_game` does, and for a heat that is zero everywhere.
    """
    heat = _on_mask(heat, mask).clamp(min=0).double()
    if heat.sum() == 0:
        raise ValueError("the heat is zero everywhere: it has no share to measure")
    share = heat[mask].sum() / heat.sum()
    return float(share / mask.double().mean())


def _on_mask(heat: Tensor, mask: Tensor) -> Tensor:
    if mask.ndim != 2 or heat.ndim != 2 or mask.dtype != torch.bool:
        raise ValueError(
            f"heat must be (h, w) and mask (H, W) bool, not {tuple(heat.shape)}, "
            f"{tuple(mask.shape)} {mask.dtype}"
        )
    if not bool(mask.any()) or not bool(torch.isfinite(heat).all()):
        raise ValueError("the mask is empty or the heat not finite: nothing can be pointed at")
    if heat.shape == mask.shape:
        return heat.to(mask.device)
    size = tuple(mask.shape)
    return F.interpolate(heat[None, None].float(), size, mode="bilinear")[0, 0].to(mask.device)
