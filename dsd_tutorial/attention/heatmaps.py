"""Heat maps of given images, and the pointing game against the true mask of the object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from dsd_tutorial.attention.heat import Size
from dsd_tutorial.attention.observing import observe
from dsd_tutorial.attention.token_masks import Word, word_positions
from dsd_tutorial.stable_diffusion.noising import shared_noise, time_grid

Heat = dict[Word, Tensor]


@torch.no_grad()
def heat_maps(
    model: Any,
    image: Float[Tensor, "3 height width"] | Float[Tensor, "images 3 height width"],
    text: str | Sequence[str],
    words: Sequence[Word] | Sequence[Sequence[Word]] | None = None,
    *,
    steps: int | Sequence[int] = 8,
    layers: str | Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 16,
    size: Size = None,
    progress: bool = True,
) -> Heat | list[Heat]:
    """Return {word: (h, w)} for one image and text, or a list of those for several.

    The image is noised at some time steps; for an image while it is made see `observe(heat=True)`.

    Args:
        model: A `StableDiffusion`.
        image: One image with a text, or n images with n texts and n lists of words.
        text: The caption, or one for each image.
        words: None means every word; a phrase of several words in a row works, every occurrence
            counts, (word, k) means the k-th alone.
        steps: As in `time_grid`.
        layers: As in `choose_layers`.
        seed: Of the noises.
        batch_size: Images per U-Net pass.
        size: Of the maps, in pixels; None is that of the latents.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: With the list of words, for a word that is not in its text.
    """
    single = isinstance(text, str)
    images = image[None] if image.ndim == 3 else image
    texts = [text] if isinstance(text, str) else list(text)
    lists: list[Any] = [words] if single else list(words or [None] * len(texts))
    if not len(images) == len(texts) == len(lists):
        raise ValueError(
            f"{len(images)} images, {len(texts)} texts, {len(lists)} lists of words: give one each"
        )
    places = [_places(model, t, w) for t, w in zip(texts, lists, strict=True)]
    grid = time_grid(steps, model.scheduler.config.num_train_timesteps)
    passes = len(grid) * -(-len(texts) // batch_size)
    found: list[Heat] = []
    with tqdm(total=passes, desc="U-Net passes", disable=not progress, leave=False) as bar:
        for i in range(0, len(texts), batch_size):
            part = slice(i, i + batch_size)
            latents, context = model.encode_image(images[part]), model.encode_text(texts[part])
            with observe(model, layers, heat=True) as seen:
                for s, t in enumerate(grid):
                    e = shared_noise(latents.shape[1:], seed, s).to(latents)
                    noisy = model.add_noise(latents, e.expand_as(latents), t)
                    model.predict_noise(noisy, t, context)
                    bar.update()
            (heat,) = seen.heat.batches
            for row, own in enumerate(places[part]):
                found.append({word: heat.at(row, at, size) for word, at in own.items()})
    return found[0] if single else found


def _places(model: Any, text: str, words: Sequence[Word] | None) -> dict[Word, list[int]]:
    if isinstance(words, str):
        raise ValueError(f"words must be a list: write [{words!r}]")
    words = [word for word, _ in model.token_words(text)] if words is None else words
    return {word: word_positions(model, text, word) for word in words}


def pointing_game(heat: Float[Tensor, "h w"], mask: Bool[Tensor, "height width"]) -> bool:
    """Return whether the hottest pixel lies on the object.

    The heat is enlarged to the mask. A tie counts only if every hottest pixel is on the object, so
    that a flat map never hits. Blind pointing hits with `mask.float().mean()`.

    Raises:
        ValueError: For an empty mask or a heat that is not finite.
    """
    heat = _as_large(heat, mask)
    return bool(mask.to(heat.device)[heat == heat.max()].all())


def area_iou(heat: Float[Tensor, "h w"], mask: Bool[Tensor, "height width"]) -> float:
    """Return how well the hottest pixels, as many as the object has, cover it: IoU in [0, 1].

    The area is the mask's, so that no threshold favours one kind of map. The heat is enlarged to
    the mask; of equally hot pixels none is taken unless all are. Blind choice of a share s of the
    pixels gives s / (2 - s).

    Raises:
        ValueError: For an empty mask or a heat that is not finite.
    """
    heat = _as_large(heat, mask)
    least = heat.flatten().topk(int(mask.sum())).values[-1]
    chosen = heat >= least
    if int(chosen.sum()) > int(mask.sum()):
        chosen = heat > least
    mask = mask.to(heat.device)
    return float((chosen & mask).sum() / (chosen | mask).sum())


def _as_large(heat: Tensor, mask: Tensor) -> Tensor:
    """Return the heat enlarged to the mask, after checking both."""
    if mask.ndim != 2 or heat.ndim != 2 or mask.dtype != torch.bool:
        raise ValueError(
            f"heat must be (h, w) and mask (H, W) bool, not {tuple(heat.shape)}, "
            f"{tuple(mask.shape)} {mask.dtype}"
        )
    if not bool(mask.any()) or not bool(torch.isfinite(heat).all()):
        raise ValueError("the mask is empty or the heat not finite: nothing can be pointed at")
    if heat.shape == mask.shape:
        return heat
    return F.interpolate(heat[None, None].float(), tuple(mask.shape), mode="bilinear")[0, 0]
