"""Variations of pictures, and paths between two pictures or a picture and a caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.projection import Inverse, fit_inverse
from dsd_tutorial.variation.prompting import Copies, image_to_prompt, slerp


def vary(
    model: Any,
    images: Tensor | Sequence[Any],
    n: int = 4,
    inverse: Inverse | None = None,
    *,
    copies: Copies = None,
    fill: str = "empty",
    strength: float = 1.0,
    steps: int = 25,
    guidance: float | None = None,
    seed: int | Sequence[int] = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> Tensor:
    """Return `n` variations of each picture, (images x n, 3, height, width), picture by picture.

    The pictures become prompts (`image_to_prompt`) and the prompts pictures, from new noise and
    with the empty negative prompt. `inverse` None fits the paper's. The rest as `model.sample`.
    """
    inverse = inverse or fit_inverse(model, progress=progress)
    prompts = image_to_prompt(model, images, inverse, copies=copies, fill=fill, strength=strength)
    return model.sample(
        embeddings=prompts,
        n=n,
        steps=steps,
        guidance=guidance,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
    )


def prompt_path(first: Tensor, second: Tensor, points: int) -> Tensor:
    """Return `points` prompts from `first` to `second`, (points, L, d), both ends included.

    first, second (L, d) or (1, L, d). Each position goes along the sphere (`slerp`). Raises
    ValueError for fewer than two points or prompts of different shapes.
    """
    if points < 2:
        raise ValueError(f"points {points}: a path has two ends, give 2 or more")
    a, b = (x if x.ndim == 3 else x[None] for x in (first, second))
    if a.shape != b.shape or len(a) != 1:
        raise ValueError(
            f"prompts {tuple(first.shape)} and {tuple(second.shape)}: need one each, of the same "
            "length; make them with fill='empty'"
        )
    return torch.cat([slerp(a, b, i / (points - 1)) for i in range(points)])


def interpolate(
    model: Any,
    first: Any,
    second: Any,
    inverse: Inverse | None = None,
    *,
    points: int = 5,
    copies: Copies = None,
    steps: int = 25,
    guidance: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> Tensor:
    """Return pictures along the way from `first` to `second`, (points, 3, height, width).

    Each end is a caption (str) or one picture (tensor, PIL or Path). All points start from the same
    noise, so that only the prompt changes. Raises ValueError for an end of several pictures.
    """
    inverse = inverse or fit_inverse(model, progress=progress)
    ends = [_end(model, what, inverse, copies) for what in (first, second)]
    return model.sample(
        embeddings=prompt_path(*ends, points),
        steps=steps,
        guidance=guidance,
        seed=[seed] * points,
        batch_size=batch_size,
        progress=progress,
    )


@torch.no_grad()
def _end(model: Any, what: Any, inverse: Inverse, copies: Copies) -> Tensor:
    """The prompt (1, L, d) of a caption or a picture."""
    if isinstance(what, str):
        return model.encode_text(what)
    if isinstance(what, Tensor):
        what = what if what.ndim == 4 else what[None]
    elif not isinstance(what, Sequence):
        what = [what]
    if len(what) != 1:
        raise ValueError(f"an end of a path is one caption or one picture, not {len(what)}")
    return image_to_prompt(model, what, inverse, copies=copies)
