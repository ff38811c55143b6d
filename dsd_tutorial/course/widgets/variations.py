"""An explorer of variations: how do threshold and strength change what is drawn from one noise?

    drawn = record_variations(model, image, thresholds, strengths)
    variation_still(drawn)       # every variation in one picture: nothing needs a kernel
    variation_explorer(drawn)    # one at a time, with sliders, in a live notebook

All are drawn once, so that a slider answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Variations:
    """Variations of one image (3, H, W), all from one noise, by threshold and strength.

    pictures (thresholds, strengths, 3, H, W).
    """

    image: Tensor
    thresholds: tuple[float, ...]
    strengths: tuple[float, ...]
    pictures: Tensor


def record_variations(
    model: Any,
    image: Tensor,
    thresholds: Sequence[float],
    strengths: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    *,
    calibration: Any = None,
    copies: int | str | None = None,
    seed: int = 0,
    **sampling: Any,
) -> Variations:
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
    pictures = model.sample(embeddings=torch.cat(prompts), seed=seeds, **sampling).cpu()
    grid = pictures.unflatten(0, (len(thresholds), len(strengths)))
    return Variations(image.cpu(), tuple(thresholds), tuple(strengths), grid)


def variation_still(seen: Variations) -> None:
    """Show the variations as a picture: a row for each threshold, a column for each strength.

    The reference stands alone at the top left.
    """
    from dsd_tutorial.course.figures import bare, draw_image, figure

    rows, columns = len(seen.thresholds), 1 + len(seen.strengths)
    alt = (
        f"A reference picture, and its variations: thresholds {_numbers(seen.thresholds)} "
        f"downwards, strengths {_numbers(seen.strengths)} to the right."
    )
    size = (min(1.45 * columns, 9.5), 1.4 * rows + 0.3)
    with figure(alt=alt, rows=rows, columns=columns, size=size, squeeze=False) as (_, axes):
        for axis in axes[:, 0]:
            bare(axis)
        draw_image(axes[0, 0], seen.image, "reference")
        for line, cut, pictures in zip(axes[:, 1:], seen.thresholds, seen.pictures, strict=True):
            for axis, picture in zip(line, pictures, strict=True):
                draw_image(axis, picture)
            line[0].set_ylabel(f"cut at {cut:.2g}", fontsize=9)
        for axis, share in zip(axes[0, 1:], seen.strengths, strict=True):
            axis.set_title(f"strength {share:g}", loc="center", fontsize=9)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2g}" for value in values)


def variation_explorer(seen: Variations) -> Any:
    """Return a widget with sliders for threshold and strength (an ipywidgets VBox).

    Its parts, in order: the two sliders in a row, then reference and variation as HTML with alt
    text. Raises ModuleNotFoundError, naming the remedy, where ipywidgets is not installed.
    """
    try:
        import ipywidgets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the explorer needs ipywidgets: pip install 'dsd-tutorial[notebooks]'; "
            "variation_still(seen) shows the same variations without it"
        ) from error
    sliders = [
        ipywidgets.SelectionSlider(
            description=name, options=[(f"{v:.2g}", i) for i, v in enumerate(values)]
        )
        for name, values in (("threshold", seen.thresholds), ("strength", seen.strengths))
    ]
    picture = ipywidgets.HTML()

    def redraw(*_: Any) -> None:
        picture.value = _pair(seen, *(slider.value for slider in sliders))

    sliders[1].value = len(seen.strengths) - 1
    for slider in sliders:
        slider.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([ipywidgets.HBox(sliders), picture])


def _pair(seen: Variations, row: int, column: int) -> str:
    """Reference and one variation, side by side, as HTML."""
    import matplotlib.pyplot as plt

    from dsd_tutorial.course.figures import draw_image
    from dsd_tutorial.course.figures.style import STYLE, to_html

    name = f"cut at {seen.thresholds[row]:.2g}, strength {seen.strengths[column]:g}"
    with plt.rc_context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(4.2, 2.3), layout="constrained")
        draw_image(left, seen.image, "reference")
        draw_image(right, seen.pictures[row, column], name)
        try:
            return to_html(fig, f"The reference picture, and its variation {name}.")
        finally:
            plt.close(fig)
