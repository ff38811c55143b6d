"""What a notebook hands on to whoever ran it: figures with their intervals, tables, where it ran.

    record("accuracy", {"CLIP": {"comvg": interval}})   # accuracy/CLIP/comvg, with low, high and n
    record_table("choices", frame)
    figures, tables, place = recorded(executed)         # from an executed notebook, as JSON

It travels as outputs of cells with a type of our own, which no page shows. Outside a notebook
nothing happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MIME = "application/vnd.dsd-tutorial.record+json"
SEPARATOR = "/"  # between the parts of a figure's name


def record(name: str, value: Any) -> None:
    """Record a figure: a number, text, an interval, or names that map to such figures.

    Raises:
        ValueError: it is none of these; the message names it.
    """
    _display({"figures": figures_of(name, value)})


def record_table(name: str, frame: Any) -> None:
    """Record a table, given as a DataFrame; its index becomes columns where it has a name."""
    named = [level for level in frame.index.names if level is not None]
    rows = frame.reset_index() if named else frame
    rows = [{str(k): _plain(v) for k, v in row.items()} for row in rows.to_dict("records")]
    _display({"tables": {name: rows}})


def record_place(**facts: Any) -> None:
    """Record where and with what the figures came about: device, weights, threads."""
    _display({"place": {name: _plain(fact) for name, fact in facts.items()}})


def figures_of(name: str, value: Any) -> dict[str, dict[str, Any]]:
    """Return {full name: {"value", and "low", "high", "n" where they are known}}."""
    if hasattr(value, "low"):
        parts = {part: getattr(value, part, None) for part in ("value", "low", "high", "n")}
        return {name: {part: _plain(x) for part, x in parts.items() if x is not None}}
    if isinstance(value, Mapping):
        found = [figures_of(f"{name}{SEPARATOR}{key}", each) for key, each in value.items()]
        return {key: figure for figures in found for key, figure in figures.items()}
    try:
        return {name: {"value": _plain(value)}}
    except TypeError:
        raise ValueError(
            f"{name} is a {type(value).__name__}: record a number, text, an interval or a mapping "
            "of names to these; tables go to record_table"
        ) from None


def _plain(value: Any) -> Any:
    """A number, text, truth value or None as JSON has it; NaN becomes None."""
    if getattr(value, "size", 1) == 1 or getattr(value, "ndim", None) == 0:
        value = getattr(value, "item", lambda: value)()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    raise TypeError(type(value).__name__)


def _display(content: dict[str, Any]) -> None:
    from IPython.core.getipython import get_ipython

    if get_ipython() is not None:
        from IPython.display import display

        # the empty page is for programs that would miss something they can show
        display({MIME: content, "text/html": ""}, raw=True)


def recorded(
    notebook: Mapping[str, Any],
) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Return (figures, tables, place) of an executed notebook, given as JSON.

    What is recorded twice under one name counts as it was recorded last.
    """
    figures, tables, place = {}, {}, {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            content = output.get("data", {}).get(MIME, {})
            figures |= content.get("figures", {})
            tables |= content.get("tables", {})
            place |= content.get("place", {})
    return figures, tables, place
