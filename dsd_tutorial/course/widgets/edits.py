"""An explorer of edits: pick a picture, type what should change, move alpha.

    drawn = record_edits(model, images, "a blue object", alphas, inverse)
    edit_still(drawn)            # every picture at every alpha: nothing needs a kernel
    edit_explorer(drawn)         # one at a time, for any words, in a live notebook

Words that are typed are drawn once for all alphas, from one noise, so that the slider answers at
once; what has been drawn is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(eq=False)
class Edits:
    """Pictures (n, 3, H, W), their `text`, and what each becomes at every alpha.

    `draw(rows, text)` gives the edits (alphas, rows, 3, H, W) of some pictures. Called with a
    picture's number and words, it returns (alphas, 3, H, W), drawn at the first call only.
    """

    images: Tensor
    text: str
    alphas: tuple[float, ...]
    draw: Callable[[Sequence[int], str], Tensor] = field(repr=False)
    drawn: dict[tuple[int, str], Tensor] = field(default_factory=dict, repr=False)

    def __call__(self, picture: int, text: str) -> Tensor:
        if (picture, text) not in self.drawn:
            self.drawn[picture, text] = self.draw([picture], text)[:, 0]
        return self.drawn[picture, text]


def record_edits(
    model: Any,
    images: Tensor,
    text: str,
    alphas: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5),
    inverse: Any = None,
    *,
    gone: Callable[[Tensor, str], Sequence[str]] | None = None,
    seed: int = 0,
    **how: Any,
) -> Edits:
    """Return the `Edits` of pictures (n, 3, H, W) under `text`; `how` goes to `edit_sweep`.

    gone(pictures, words) says for each picture what is to go, the `source_prompt` of
    `edit_prompt`; None is the paper's sum. Picture i starts from noise seed + i, at all alphas and for all words. Raises
    ValueError for words that say nothing.
    """
    from dsd_tutorial.variation import edit_sweep

    if not text.strip():
        raise ValueError("text is empty: say what should change, such as 'a blue object'")

    def draw(rows: Sequence[int], words: str) -> Tensor:
        seeds = [seed + row for row in rows]
        chosen = images[list(rows)]
        off = {} if gone is None else {"source_prompt": list(gone(chosen, words))}
        mixture = {**how, **off, "seed": seeds}
        return edit_sweep(model, chosen, words, list(alphas), inverse, **mixture).cpu()

    found = Edits(images.cpu(), text, tuple(map(float, alphas)), draw)
    together = draw(range(len(images)), text)  # (alphas, n, 3, H, W)
    found.drawn = {(i, text): together[:, i] for i in range(len(images))}
    return found


def edit_still(seen: Edits) -> None:
    """Show every picture at every alpha: a row for each picture, which stands at the left."""
    from dsd_tutorial.course.figures import draw_image, figure

    alphas = ", ".join(f"{alpha:g}" for alpha in seen.alphas)
    alt = (
        f"{len(seen.images)} reference pictures, one below the other, each edited by "
        f"{seen.text!r} at alpha {alphas}, from one noise."
    )
    rows, columns = len(seen.images), 1 + len(seen.alphas)
    size = (min(1.3 * columns, 9.5), 1.3 * rows + 0.3)
    with figure(alt=alt, rows=rows, columns=columns, size=size, squeeze=False) as (_, axes):
        for i, line in enumerate(axes):
            draw_image(line[0], seen.images[i], "reference" if i == 0 else "")
            for axis, alpha, picture in zip(line[1:], seen.alphas, seen(i, seen.text), strict=True):
                draw_image(axis, picture, f"alpha {alpha:g}" if i == 0 else "")


def edit_explorer(seen: Edits) -> Any:
    """Return a widget: a menu of pictures, a field for words, a slider for alpha (a VBox).

    Its parts, in order: the three in a row, then reference and edit as HTML with alt text. New
    words are drawn when Enter is pressed or the field is left. Raises ModuleNotFoundError, naming
    the remedy, where ipywidgets is not installed.
    """
    try:
        import ipywidgets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the explorer needs ipywidgets: pip install 'dsd-tutorial[notebooks]'; "
            "edit_still(seen) shows the same edits without it"
        ) from error
    pictures = [(f"picture {i + 1}", i) for i in range(len(seen.images))]
    menu = ipywidgets.Dropdown(description="reference", options=pictures)
    words = ipywidgets.Text(description="edit", value=seen.text, continuous_update=False)
    slider = ipywidgets.SelectionSlider(
        description="alpha", options=[(f"{a:g}", i) for i, a in enumerate(seen.alphas)]
    )
    slider.value = len(seen.alphas) // 2
    picture = ipywidgets.HTML()

    def redraw(*_: Any) -> None:
        if not words.value.strip():
            picture.value = "<p>Type what should change, such as <em>a blue object</em>.</p>"
            return
        if (menu.value, words.value) not in seen.drawn:
            picture.value = "<p>drawing …</p>"
        try:
            picture.value = _pair(seen, menu.value, words.value, slider.value)
        except Exception as error:  # in a callback an error would be swallowed, or only logged
            picture.value = f"<p>{type(error).__name__}: {_escaped(error)}</p>"

    for control in (menu, words, slider):
        control.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([ipywidgets.HBox([menu, words, slider]), picture])


def _escaped(said: Any) -> str:
    import html

    return html.escape(str(said))


def _pair(seen: Edits, number: int, words: str, place: int) -> str:
    """Reference and edit, side by side, as HTML."""
    import matplotlib.pyplot as plt

    from dsd_tutorial.course.figures import draw_image
    from dsd_tutorial.course.figures.style import STYLE, to_html

    name = f"alpha {seen.alphas[place]:g}"
    with plt.rc_context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(4.2, 2.3), layout="constrained")
        try:
            draw_image(left, seen.images[number], "reference")
            draw_image(right, seen(number, words)[place], name)
            return to_html(fig, f"Reference {number + 1}, and its edit by {words!r} at {name}.")
        finally:
            plt.close(fig)
