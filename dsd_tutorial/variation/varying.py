"""Variations and edits of images: their prompts, drawn from new noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.projection import Inverse, fit_inverse
from dsd_tutorial.stable_diffusion import StableDiffusion
from dsd_tutorial.stable_diffusion.sampling import seed_list
from dsd_tutorial.variation.edit_prompting import Images, Texts, edit_prompt
from dsd_tutorial.variation.prompting import Copies, image_to_prompt

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


def vary(
    model: StableDiffusion,
    images: Tensor | Sequence[Any],
    n: int = 4,
    inverse: Inverse | None = None,
    *,
    copies: Copies = None,
    strength: float = 1.0,
    progress: bool = True,
    **sampling: Any,
) -> Float[Tensor, "variations 3 height width"]:
    """Return `n` variations of each image, in [0, 1], image by image.

    The images become prompts (`image_to_prompt`) and the prompts images, from new noise and with
    the empty negative prompt. `inverse` None fits the paper's. `sampling` as `model.sample` takes
    it: steps, guidance, seed, batch_size.
    """
    inverse = inverse or fit_inverse(model, progress=progress)
    prompts = image_to_prompt(model, images, inverse, copies=copies, strength=strength)
    return model.sample(embeddings=prompts, n=n, progress=progress, **sampling)


def edit(
    model: StableDiffusion,
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
) -> Float[Tensor, "edits 3 height width"]:
    """Return `n` edits of each image, in [0, 1], image by image.

    The prompts of `edit_prompt`, drawn from new noise with the empty negative prompt: what is kept
    of an image is what its prompt says, not where its pixels were. `mixture`: copies, rescale,
    neutral, words, source_prompt, as `edit_prompt`, which raises the errors. The rest as
    `model.sample`.
    """
    prompts = edit_prompt(model, images, text, inverse, alpha=alpha, progress=progress, **mixture)
    return model.sample(
        embeddings=prompts, n=n, steps=steps, guidance=guidance, seed=seed, batch_size=batch_size,
        progress=progress,
    )  # fmt: skip


def edit_sweep(
    model: StableDiffusion,
    images: Images,
    text: Texts,
    alphas: Sequence[float] = ALPHAS,
    inverse: Inverse | None = None,
    *,
    steps: int = 25,
    guidance: float | None = None,
    seed: int | Sequence[int] = 0,
    batch_size: int | None = None,
    progress: bool = True,
    **mixture: Any,
) -> Float[Tensor, "alphas edits 3 height width"]:
    """Return the edits at every alpha.

    An image has the same noise at all alphas, so that along the first axis only the mixture
    changes. `seed` is one per image, or the first of consecutive ones. `mixture` as in `edit`.
    Raises ValueError for no alphas, and as `edit_prompt`.
    """
    if not len(alphas):
        raise ValueError("no alphas: give one or more numbers of 0 or more")
    inverse = inverse or fit_inverse(model, progress=progress)
    prompts = torch.stack(
        [edit_prompt(model, images, text, inverse, alpha=alpha, **mixture) for alpha in alphas]
    )  # (alphas, edits, tokens, states)
    drawn = model.sample(
        embeddings=prompts.flatten(0, 1), steps=steps, guidance=guidance,
        seed=seed_list(seed, prompts.shape[1]) * len(alphas), batch_size=batch_size,
        progress=progress,
    )  # fmt: skip
    return drawn.unflatten(0, prompts.shape[:2])
