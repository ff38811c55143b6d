"""Pages: sections of sentences, figures and tables, as one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsd_tutorial.saving import write_text

TEMPLATE = Path(__file__).resolve().parents[2] / "data" / "pages" / "sweep.html.j2"
MOST_ROWS = 2000  # of one table on a page


@dataclass
class Cell:
    """What a cell shows, what it is sorted by, where it leads."""

    shown: str
    sort: Any = None
    link: str | None = None


@dataclass
class Part:
    """A piece of a section: a heading, figures as HTML, a table, links."""

    title: str = ""
    figures: Sequence[str] = ()
    table: Mapping[str, Any] | None = None
    folded: str = ""
    links: Sequence[Mapping[str, Any]] = ()


@dataclass
class Section:
    """A section of a page."""

    title: str
    said: list[str] = field(default_factory=list)
    code: str = ""
    parts: list[Part] = field(default_factory=list)


def table(frame: Any, caption: str, sortable: bool = False, links: str = "") -> dict[str, Any]:
    """A table of a page from a DataFrame; the column `links` leads to the file that it names."""
    if len(frame) > MOST_ROWS:
        caption += f" (the first {MOST_ROWS:,} of {len(frame):,})"
        frame = frame.head(MOST_ROWS)
    from pandas.api.types import is_numeric_dtype

    columns = [{"name": str(c), "text": not is_numeric_dtype(frame[c])} for c in frame]
    rows = []
    for values in frame.itertuples(index=False, name=None):
        cells = [
            _cell(x, links != "" and c["name"] == links)
            for x, c in zip(values, columns, strict=True)
        ]
        rows.append(list(zip(cells, columns, strict=True)))
    return {"caption": caption, "columns": columns, "rows": rows, "sortable": sortable}


def _cell(value: Any, link: bool) -> Cell:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Cell("", "")
    if link:
        return Cell("notebook", None, str(value))
    if isinstance(value, float):
        return Cell(f"{value:.4g}", value)
    return Cell(str(value))


def write_page(
    path: Path, title: str, lead: str, numbers: Mapping[str, Any], sections: Sequence[Section]
) -> Path:
    """The page, written as a whole."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    write_text(
        path, template.render(title=title, lead=lead, numbers=numbers, sections=sections) + "\n"
    )
    return path
