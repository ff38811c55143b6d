"""The text prior: what a caption scores on images that it has nothing to do with.

Ours, not of the papers.

A caption has a high or a low score whatever the image. Its mean over a few unlabelled reference
images says how much, and is taken off:

    s(image, text) - mean over references of s(reference, text)

in the spirit of pointwise mutual information, log p(text | image) - log p(text). It matters where
one image chooses among texts; where one text chooses among images it is the same number for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.shapes import random_scenes, render

if TYPE_CHECKING:
    from dsd_tutorial.matching.parts import Components

REFERENCES = 3  # more help little
REFERENCE_SEED = 33_000


def reference_images(model: Any, n: int = REFERENCES) -> Float[Tensor, "references 3 side side"]:
    """Return n rendered scenes of the validation split, unlabelled, the same at every call."""
    scenes = random_scenes(n, REFERENCE_SEED, split="validation", one_object_share=0.0)
    return render(scenes, model.resolution, model.device)[0]


class TextPrior:
    """The mean components of each text over reference images, computed once per text.

    One `TextPrior` may be given to many calls of `score` and `components`, with any settings. It
    holds for the weights as they were: take a new one after fitting what changes the pass.

    Args:
        images: The references, in [0, 1]; None draws `reference_images`.

    Raises:
        ValueError: no reference, or something that is no batch of images.
    """

    def __init__(self, images: Tensor | None = None):
        if images is not None and (images.ndim != 4 or images.shape[1] != 3 or not len(images)):
            raise ValueError(
                f"prior must hold one reference image at least, (references, 3, height, width), "
                f"not shape {tuple(images.shape)}; or give 'validation', or None for no prior"
            )
        self.images = images
        self._known: dict[Any, dict[str, Tensor]] = {}  # settings -> text -> (readings, steps, ...)

    @classmethod
    def given(cls, prior: TextPrior | Tensor | str | None) -> TextPrior | None:
        """Return a prior from any form in which `score` takes it.

        Raises:
            ValueError: a word other than "validation".
        """
        if prior is None or isinstance(prior, TextPrior):
            return prior
        if isinstance(prior, str) and prior != "validation":
            raise ValueError(
                f"unknown prior {prior!r}: give 'validation', reference images "
                "(references, 3, height, width), or None"
            )
        return cls(None if isinstance(prior, str) else prior)

    def of(
        self,
        model: Any,
        texts: Sequence[str],
        compute: Callable[[Tensor, list[str]], Components],
        settings: Any,
    ) -> Float[Tensor, "texts readings steps layers heads"]:
        """Return the prior of each text; `compute` is called for those that are new."""
        known = self._known.setdefault(settings, {})
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            if self.images is None:
                self.images = reference_images(model)
            parts = compute(self.images, new)
            table = torch.stack(list(parts.by_reading.values()))  # (readings, pairs, ...)
            table = table.unflatten(1, (len(self.images), len(new))).mean(1)
            known.update(zip(new, table.transpose(0, 1), strict=True))
        return torch.stack([known[text] for text in texts])
