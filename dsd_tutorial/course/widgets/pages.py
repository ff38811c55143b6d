"""A picture with a menu for each thing it depends on: one function draws every page of it.

def accuracy_of(axis, task, against):
    ...                                      # draw on the axis, return the alt text
page(accuracy_of, task="comvg", against="labels")            # one page, needs no kernel later
browse(accuracy_of, task=["comvg", "vqa"], against=["labels", "seconds"])    # all of them
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Draw = Callable[..., str]
SIZE = (6.4, 3.4)  # inches


def page(draw: Draw, *, size: tuple[float, float] = SIZE, **chosen: Any) -> None:
    """Show the picture that `draw(axis, **chosen)` makes; what it returns is the alt text."""
    from IPython.display import display

    markup, alt = _drawn(draw, size, chosen)
    display({"text/html": markup, "text/plain": f"[Figure: {alt}]"}, raw=True)


def browse(draw: Draw, *, size: tuple[float, float] = SIZE, **choices: Sequence[Any]) -> Any:
    """Return a widget with one menu for each of `choices` and the picture they ask for (a VBox).

    Its parts, in order: the menus in a row, then the picture as HTML with alt text. Raises
    ValueError for a menu without entries, ModuleNotFoundError, naming the remedy, where
    ipywidgets is not installed.
    """
    if bare := [name for name, values in choices.items() if not len(values)]:
        raise ValueError(f"no choice for {', '.join(bare)}: give a list of one or more values")
    try:
        import ipywidgets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "menus need ipywidgets: pip install 'dsd-tutorial[notebooks]'; "
            "page(draw, ...) shows one picture without them"
        ) from error
    menus = {
        name: ipywidgets.Dropdown(
            description=name.replace("_", " "), options=[(str(v), v) for v in values],
            style={"description_width": "initial"},
        )
        for name, values in choices.items()
    }  # fmt: skip
    picture = ipywidgets.HTML()

    def redraw(*_: Any) -> None:
        chosen = {name: menu.value for name, menu in menus.items()}
        picture.value = _drawn(draw, size, chosen)[0]

    for menu in menus.values():
        menu.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([ipywidgets.HBox(list(menus.values())), picture])


def _drawn(draw: Draw, size: tuple[float, float], chosen: dict[str, Any]) -> tuple[str, str]:
    """Return the picture as HTML, and its alt text. Raises ValueError without alt text."""
    import matplotlib.pyplot as plt

    from dsd_tutorial.course.figures.style import SERIES, STYLE, check_alt, to_html

    with plt.rc_context(STYLE | {"axes.prop_cycle": plt.cycler(color=SERIES)}):
        fig, axis = plt.subplots(figsize=size, layout="constrained")
        try:
            alt = check_alt(draw(axis, **chosen))
            return to_html(fig, alt), alt
        finally:
            plt.close(fig)
