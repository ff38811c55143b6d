"""A figure with a control for each thing it depends on: one function draws every page of it.

def accuracy_of(axis, task, against):
    ...                                      # draw on the axis, return the alt text
page(accuracy_of, task="comvg", against="labels")            # one page, needs no kernel later
browse(accuracy_of, task=["comvg", "vqa"], against=["labels", "seconds"])    # all of them
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any

from dsd_tutorial.course.figures.style import check_alt, styled, to_html

Draw = Callable[..., str]
SIZE = (6.4, 3.4)  # inches
ALL = "\N{NULL}"  # for None among entries, which ipywidgets takes for "nothing chosen"


def page(draw: Draw, *, columns: int = 1, size: tuple[float, float] = SIZE, **chosen: Any) -> None:
    """Show the figure that `draw(axis, **chosen)` makes; what it returns is the alt text."""
    from IPython.display import display

    markup, alt = _drawn(draw, columns, size, chosen)
    display({"text/html": markup, "text/plain": f"[Figure: {alt}]"}, raw=True)


def browse(
    draw: Draw, *, columns: int = 1, size: tuple[float, float] = SIZE,
    start: Mapping[str, Any] | None = None, **choices: Any,
) -> Any:  # fmt: skip
    """Return a widget: a control for each of `choices` in a row, and below it the figure (a VBox).

    An error while drawing is told in the figure's place, once the first one was drawn.

    Args:
        draw: called with one axis (an array of them, for several columns) and the chosen values;
            returns the alt text.
        columns: axes beside one another.
        size: of the figure in inches.
        start: values chosen at first, where they are not the first ones.
        choices: entries, or pairs (label, value), make a slider; a text makes a field to type in; a
            function of the other chosen values returns a slider's entries. There are no menus:
            JupyterLab takes the arrow keys away from them, and not from sliders.

    Raises:
        ValueError: a slider has no entries.
        ModuleNotFoundError: ipywidgets is not installed; the message names the remedy.
    """
    if empty := [name for name, x in choices.items() if not callable(x) and len(x) == 0]:
        raise ValueError(f"no choice for {', '.join(empty)}: give one or more values")
    try:
        import ipywidgets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "sliders need ipywidgets: pip install 'dsd-tutorial[course]'; "
            "page(draw, ...) and `still` show figures without them"
        ) from error
    controls: dict[str, Any] = {}

    def chosen() -> dict[str, Any]:
        values = {name: control.value for name, control in controls.items()}
        return {name: None if value is ALL else value for name, value in values.items()}

    for name, entries in choices.items():
        controls[name] = _control(
            ipywidgets, name, entries(chosen()) if callable(entries) else entries
        )
    for name, value in (start or {}).items():
        controls[name].value = value
    shown = ipywidgets.HTML(_drawn(draw, columns, size, chosen())[0])

    def redraw(change: Mapping[str, Any]) -> None:
        for name, entries in choices.items():
            if callable(entries) and change["owner"] is not controls[name]:
                _offer(controls[name], entries(chosen()))
        if isinstance(change["owner"], ipywidgets.Text):
            shown.value = "<p>drawing …</p>"  # what is typed has to be computed first
        try:
            shown.value = _drawn(draw, columns, size, chosen())[0]
        except Exception as error:  # in a callback an error would be swallowed, or only logged
            shown.value = f"<p>{type(error).__name__}: {html.escape(str(error))}</p>"

    for control in controls.values():
        control.observe(redraw, names="value")
    row = ipywidgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"})
    return ipywidgets.VBox([row, shown])


def _control(ipywidgets: Any, name: str, entries: Any) -> Any:
    said = {
        "description": name.replace("_", " "),
        "style": {"description_width": "initial"},
        # no label meets the next or is cut
        "layout": {"width": "20em", "margin": "2px 2em 2px 2px", "overflow": "visible"},
    }
    if isinstance(entries, str):
        return ipywidgets.Text(value=entries, continuous_update=False, **said)
    return ipywidgets.SelectionSlider(options=_pairs(entries), **said)


def _pairs(entries: Any) -> list[tuple[str, Any]]:
    pairs = [entry if isinstance(entry, tuple) else (_label(entry), entry) for entry in entries]
    return [(label, ALL if value is None else value) for label, value in pairs]


def _label(entry: Any) -> str:
    return f"{entry:.3g}" if isinstance(entry, float) else str(entry)


def _offer(slider: Any, entries: Any) -> None:
    """Change what a slider offers, and keep what is chosen if it is still there."""
    if list(slider.options) != _pairs(entries):
        kept = slider.value
        slider.options = _pairs(entries)
        if kept in [value for _, value in slider.options]:
            slider.value = kept


def _drawn(draw: Draw, columns: int, size: Any, chosen: Mapping[str, Any]) -> tuple[str, str]:
    """Return the figure as HTML, and its alt text. Raises ValueError without alt text."""
    with styled(columns=columns, size=size) as (fig, axes):
        alt = check_alt(draw(axes, **chosen))
        return to_html(fig, alt), alt
