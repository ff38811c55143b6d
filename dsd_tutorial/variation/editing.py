"""Pictures edited with words: the prompts of `edit_prompting`, drawn from new noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.projection import Inverse, fit_inverse
from dsd_tutorial.variation.edit_prompting import Images, Texts, edit_prompt


def edit(
    model: Any,
    images: Images,
    text: Texts,
    inverse: Inverse | None = None,
    *,
    alpha: float = 0.7,
    n: int = 1,
    steps: int = 25,
    guidance: float | None = None,
    seed: int | Sequence[int] = 0,
    batch_size: int | None = None,
    progress: bool = True,
    **mixture: Any,
) -> Tensor:
    """Return `n` edits of each picture, (images x n, 3, height, width), picture by picture.

    The prompts of `edit_prompt`, drawn from new noise with the empty negative prompt: what is kept
    of a picture is what its prompt says, not where its pixels were. `mixture`: copies, fill,
    rescale, neutral, words, source_prompt, as `edit_prompt`, which raises the errors. The rest as
    `model.sample`.
    """
    prompts = edit_prompt(model, images, text, inverse, alpha=alpha, progress=progress, **mixture)
    return model.sample(
        embeddings=prompts, n=n, steps=steps, guidance=guidance, seed=seed, batch_size=batch_size,
        progress=progress,
    )  # fmt: skip


def edit_sweep(
    model: Any,
    images: Images,
    text: Texts,
    alphas: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
    inverse: Inverse | None = None,
    *,
    steps: int = 25,
    guidance: float | None = None,
    seed: int | Sequence[int] = 0,
    batch_size: int | None = None,
    progress: bool = True,
    **mixture: Any,
) -> Tensor:
    """Return the edits at every alpha, (alphas, images, 3, height, width).

    A picture has the same noise at all alphas, so that along the first axis only the mixture
    changes. `seed` is one per picture, or the first of consecutive ones. `mixture` as in `edit`.
    Raises ValueError for no alphas, and as `edit_prompt`.
    """
    if not len(alphas):
        raise ValueError("no alphas: give one or more numbers of 0 or more")
    inverse = inverse or fit_inverse(model, progress=progress)
    prompts = torch.stack(
        [edit_prompt(model, images, text, inverse, alpha=alpha, **mixture) for alpha in alphas]
    )  # (alphas, images, L, d)
    count = prompts.shape[1]
    seeds = range(seed, seed + count) if isinstance(seed, int) else seed
    drawn = model.sample(
        embeddings=prompts.flatten(0, 1), steps=steps, guidance=guidance,
        seed=list(seeds) * len(alphas), batch_size=batch_size, progress=progress,
    )  # fmt: skip
    return drawn.unflatten(0, (len(alphas), count))
