"""How a figure looks and how it reaches the page: one quiet style, honest colours, alt text.

A figure becomes an `<img alt=...>`, in a live notebook and in exported HTML alike.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from cycler import cycler

CHARACTERS = 12  # of a title or a legend in an inch
# perceptually uniform colour maps: of what lies between two ends, of what lies around zero, of heat
UNIFORM, SIGNED, HEAT = "viridis", "cividis", "magma"
# Okabe and Ito's palette, without its yellow (too pale for lines on white), black last
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
HATCHES = ("", "//", "..", "xx", "\\\\", "--", "oo")
INK = "#333333"
_PAGE: ContextVar[list[str] | None] = ContextVar("page", default=None)
LEAST_ALT = 15  # characters; less cannot say what a figure shows
DPI = 180  # pixels per inch of the file; shown at half of it, crisp on dense screens
STYLE: Any = {
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": "#999999",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=SERIES),
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "image.interpolation": "nearest",
    "image.cmap": "viridis",
    "hatch.linewidth": 0.6,
}


def check_alt(alt: str | None) -> str:
    """Return the alt text on one line. Raises ValueError where it is missing or says nothing."""
    said = " ".join((alt or "").split())
    if len(said) < LEAST_ALT:
        raise ValueError(
            f"alt={alt!r}: say in a sentence what the figure shows, at least {LEAST_ALT} "
            "characters, for those who cannot see it"
        )
    return said


@contextmanager
def styled(
    rows: int = 1, columns: int = 1, size: tuple[float, float] | None = None, **subplots: Any
) -> Iterator[tuple[Any, Any]]:  # fmt: skip
    """Yield (figure, axes) in the course's style, and close the figure at the end of the block."""
    import matplotlib.pyplot as plt

    size = size or (min(3.6 * columns, 9.0), 2.7 * rows)
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", **subplots)
        try:
            yield fig, axes
        finally:
            plt.close(fig)


@contextmanager
def figure(*, alt: str, **how: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (figure, axes) in the course's style; at the end of the block the figure is shown.

    Inside a block of `collected` it is collected instead.

    Axes are one object, or an array as matplotlib gives it. Nothing is shown when the block fails.

    Args:
        alt: What the figure shows, in a sentence.
        how: rows, columns, size (width, height) in inches; the rest goes to `plt.subplots`.

    Raises:
        ValueError: there is no alt text, before anything is drawn.
    """
    from IPython.display import display

    said = check_alt(alt)
    with styled(**how) as (fig, axes):
        yield fig, axes
        shown, page = to_html(fig, said), _PAGE.get()
        if page is not None:
            page.append(shown)
        else:
            display({"text/html": shown, "text/plain": f"[Figure: {said}]"}, raw=True)


@contextmanager
def collected() -> Iterator[list[str]]:
    """Yield a list to which every figure that is drawn in the block adds its HTML, for a page."""
    page: list[str] = []
    token = _PAGE.set(page)
    try:
        yield page
    finally:
        _PAGE.reset(token)


def to_html(fig: Any, alt: str) -> str:
    """Return the figure as HTML: an embedded PNG with alt text."""
    file = io.BytesIO()
    # without the name of the software the same figure is the same file
    fig.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    encoded = base64.b64encode(file.getvalue()).decode()
    width = round(fig.get_figwidth() * DPI / 2)
    return (
        f'<figure style="margin:0.3em 0"><img alt="{html.escape(alt)}" width="{width}" '
        f'style="max-width:100%;height:auto" src="data:image/png;base64,{encoded}"></figure>'
    )
