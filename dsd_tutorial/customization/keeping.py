"""What is not to be forgotten: the old world, as the model itself draws it *(ours)*.

Before fitting the model draws pictures of captions of the old world, as in DreamBooth's prior
preservation (Ruiz et al., arXiv 2208.12242). During fitting its answers to them, under the caption
and under the image prompt, are held to what the frozen model answers to the same noise: a
difference that is zero at the start, so that nothing is paid before something is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.customization.denoising import Denoising
from dsd_tutorial.customization.sequences import image_frame
from dsd_tutorial.projection import Inverse

PICTURES = 48  # of the old world, where nothing else is said
STEPS = 10  # denoising steps that draw them


class OldWorld:
    """Pictures of the old world with their captions; `loss` says how far the answers have moved."""

    def __init__(
        self,
        images: Tensor,
        captions: Tensor,
        inverse: Inverse,
        weight: float,
        denoising: Denoising,
    ):
        model = denoising.model
        self.images, self.captions, self.weight = images, captions, weight
        self.denoising, self.inverse = denoising, inverse
        self.frame = image_frame(model, inverse.copies)
        with torch.no_grad():
            self.prompts = self.frame(inverse(model.encode_clip_image(images)))  # as they were

    def loss(self, step: int, domain: Any) -> Tensor:
        """Return weight * mean squared change of the answers to one batch, a scalar.

        Half of the batch is asked under its caption, half under its image prompt.
        """
        draw = self.denoising.draw(step)
        half, noisy = len(draw.t) // 2, self.denoising.noisy(draw)
        captions, rows = self.captions[draw.index[:half]], draw.index[half:]
        with torch.no_grad(), domain.keys.resting():
            before = torch.cat([captions, self.prompts[rows]])
            right = self.denoising.answer(noisy, draw.t, before)
        now = self.frame(domain.inverse(domain.deep.encode(self.images[rows])))
        answer = self.denoising.answer(noisy, draw.t, torch.cat([captions, now]))
        return self.weight * (answer - right).square().mean()


def old_world(
    model: Any,
    inverse: Inverse,
    texts: Sequence[str],
    weight: float,
    shared: dict[str, Any],
    progress: bool = True,
) -> OldWorld:
    """Return the `OldWorld` of captions, drawn by the model."""
    with torch.no_grad():
        images = model.sample(list(texts), steps=STEPS, seed=shared["seed"], progress=progress)
        captions, latents = model.encode_text(list(texts)), model.encode_image(images)
    return OldWorld(images, captions, inverse, weight, Denoising(model, latents, **shared))
