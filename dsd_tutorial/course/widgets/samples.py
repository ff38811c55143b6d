"""Variations and edits to be explored: what is drawn from one noise as a number or a word changes.

    drawn = record_variations(model, image, thresholds, strengths)
    drawn = record_edits(model, images, "a blue object", alphas, inverse)
    drawn.still()               # all of them in one figure, without a kernel
    drawn.explore()             # one at a time, with sliders, in a live notebook

All are drawn once, so that a slider answers at once. Words typed into the explorer of edits are
drawn for all alphas, from one noise, and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.course.figures import draw_image, show_rows
from dsd_tutorial.course.widgets.browsing import browse

SIZE = (4.2, 2.3)  # inches, of reference and sample side by side


@dataclass(frozen=True)
class Variations:
    """Variations of one image (3, H, W), all from one noise, by threshold and strength.

    images (thresholds, strengths, 3, H, W).
    """

    reference: Tensor
    thresholds: tuple[float, ...]
    strengths: tuple[float, ...]
    images: Tensor

    def still(self) -> None:
        """Show the variations: a row for each threshold, a column for each strength."""
        rows = {
            f"cut at {cut:.2g}": [self.reference, *images]
            for cut, images in zip(self.thresholds, self.images, strict=True)
        }
        titles = ["reference", *(f"strength {share:g}" for share in self.strengths)]
        alt = f"A reference and its variations, columns: {', '.join(titles)}."
        show_rows(rows, titles=titles, alt=alt)

    def explore(self) -> Any:
        """Return a widget with sliders for threshold and strength; see `browse`."""

        def draw(axes: Any, threshold: float, strength: float) -> str:
            name = f"cut at {threshold:.2g}, strength {strength:g}"
            row, column = self.thresholds.index(threshold), self.strengths.index(strength)
            draw_image(axes[0], self.reference, "reference")
            draw_image(axes[1], self.images[row, column], name)
            return f"The reference image, and its variation {name}."

        return browse(
            draw, columns=2, size=SIZE, start={"strength": self.strengths[-1]},
            threshold=self.thresholds, strength=self.strengths,
        )  # fmt: skip


def record_variations(
    model: Any, image: Tensor, thresholds: Sequence[float],
    strengths: Sequence[float] = (0.25, 0.5, 0.75, 1.0), *, calibration: Any = None,
    copies: int | str | None = None, seed: int = 0, **sampling: Any,
) -> Variations:  # fmt: skip
    """Return the `Variations` of one image (3, H, W); thresholds and strengths as in `variation`.

    `calibration` as `fit_inverse` takes it; other arguments go to `model.sample`.
    """
    from dsd_tutorial.projection import calibrate, fit_inverse
    from dsd_tutorial.variation import image_to_prompt

    known = calibration or calibrate(model, progress=False)
    prompts = []
    for cut in thresholds:
        inverse = fit_inverse(model, threshold=cut, calibration=known, progress=False)
        prompts += [
            image_to_prompt(model, image[None], inverse, copies=copies, strength=share)
            for share in strengths
        ]
    seeds = [seed] * len(prompts)
    images = model.sample(embeddings=torch.cat(prompts), seed=seeds, **sampling).cpu()
    grid = images.unflatten(0, (len(thresholds), len(strengths)))
    return Variations(image.cpu(), tuple(map(float, thresholds)), tuple(strengths), grid)


@dataclass(eq=False)
class Edits:
    """Images (n, 3, H, W), their `text`, and what each becomes at every alpha.

    `draw(rows, text)` gives the edits (alphas, rows, 3, H, W) of some images.
    """

    images: Tensor
    text: str
    alphas: tuple[float, ...]
    draw: Callable[[Sequence[int], str], Tensor] = field(repr=False)
    drawn: dict[tuple[int, str], Tensor] = field(default_factory=dict, repr=False)

    def of(self, image: int, text: str) -> Tensor:
        """Return the edits (alphas, 3, H, W) of an image by its number, drawn but once."""
        if (image, text) not in self.drawn:
            self.drawn[image, text] = self.draw([image], text)[:, 0]
        return self.drawn[image, text]

    def still(self) -> None:
        """Show every image at every alpha: a row for each image, which stands at the left."""
        rows = {
            f"image {i + 1}": [image, *self.of(i, self.text)] for i, image in enumerate(self.images)
        }
        titles = ["reference", *(f"alpha {alpha:g}" for alpha in self.alphas)]
        alt = f"{len(rows)} references edited by {self.text!r}, columns: {', '.join(titles)}."
        show_rows(rows, titles=titles, alt=alt, side=1.3)

    def explore(self) -> Any:
        """Return a widget: a slider of images, a field for words, a slider for alpha; see `browse`.

        New words are drawn when Enter is pressed or the field is left.
        """

        def draw(axes: Any, reference: int, edit: str, alpha: float) -> str:
            name = f"alpha {alpha:g}"
            draw_image(axes[0], self.images[reference], "reference")
            edited = self.of(reference, _some_words(edit))[self.alphas.index(alpha)]
            draw_image(axes[1], edited, name)
            return f"Reference {reference + 1}, and its edit by {edit!r} at {name}."

        numbers = [(f"image {i + 1}", i) for i in range(len(self.images))]
        return browse(
            draw, columns=2, size=SIZE, start={"alpha": self.alphas[len(self.alphas) // 2]},
            reference=numbers, edit=self.text, alpha=self.alphas,
        )  # fmt: skip


def record_edits(
    model: Any, images: Tensor, text: str,
    alphas: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5), inverse: Any = None, *,
    source_prompt: Callable[[Tensor, str], Sequence[str]] | None = None, seed: int = 0, **how: Any,
) -> Edits:  # fmt: skip
    """Return the `Edits` of images (n, 3, H, W) under `text`; `how` goes to `edit_sweep`.

    source_prompt(images, words) returns for each image what is to be replaced, `edit_prompt`'s
    `source_prompt`; None is the paper's sum. Image i starts from noise seed + i, at all alphas and
    for all words. Raises ValueError for words that say nothing.
    """
    from dsd_tutorial.variation import edit_sweep

    def draw(rows: Sequence[int], words: str) -> Tensor:
        chosen = images[list(rows)]
        source = (
            {} if source_prompt is None else {"source_prompt": list(source_prompt(chosen, words))}
        )
        mixture = {**how, **source, "seed": [seed + row for row in rows]}
        return edit_sweep(model, chosen, words, list(alphas), inverse, **mixture).cpu()

    found = Edits(images.cpu(), text, tuple(map(float, alphas)), draw)
    together = draw(range(len(images)), _some_words(text))  # (alphas, n, 3, H, W)
    found.drawn = {(i, text): together[:, i] for i in range(len(images))}
    return found


def _some_words(text: str) -> str:
    if not text.strip():
        raise ValueError("text is empty: say what should change, such as 'a blue object'")
    return text
