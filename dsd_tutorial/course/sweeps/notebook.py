"""The report as a notebook beside the runs, to be changed: it reads the sweep and draws."""

from __future__ import annotations

from pathlib import Path

from dsd_tutorial.course.execution import run_notebook
from dsd_tutorial.course.notebooks import hasten_nbformat
from dsd_tutorial.course.sweeps.report import COSTS
from dsd_tutorial.course.sweeps.results import Results, SweepError, read_sweep
from dsd_tutorial.saving import Written, write_text


def write_notebook(folder: str | Path) -> Path:
    """The executed notebook `report.ipynb`; one that somebody has changed is moved aside first.

    Raises:
        SweepError: there is no sweep, or its figures cannot be drawn.
    """
    hasten_nbformat()
    import nbformat

    found = read_sweep(folder)
    target, written = found.path / "report.ipynb", Written(found.path)
    written.make_way(target)
    cells = [
        nbformat.v4.new_markdown_cell(text) if kind == "text" else nbformat.v4.new_code_cell(text)
        for kind, text in _cells(found)
    ]
    fresh = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {
        "name": "python3", "display_name": "Python 3", "language": "python"}})  # fmt: skip
    write_text(target, nbformat.writes(fresh) + "\n")
    outcome = run_notebook(target.resolve(), target.resolve(), progress=False)
    written.add(target)
    if outcome.status != "ok":
        raise SweepError(f"{target}: {outcome.error}")
    return target


def _cells(found: Results) -> list[tuple[str, str]]:
    """(kind, text) of each cell."""
    cells = [
        ("text", f"# Sweep {found.name}\n\nThis notebook reads `runs.csv` beside it. Change it "
                 "as you like: a new report does not overwrite what you have changed."),
        ("code", "from dsd_tutorial.course.sweeps import read_sweep, show_effect\n\n"
                 "found = read_sweep('.')\nfound.runs.status.value_counts()"),
        ("code", "found.runs[[*found.varied, *found.figures, 'seconds', 'peak_mb']].describe()"),
    ]  # fmt: skip
    for group, names in found.groups.items():
        effects = {p: {x for name in names for x in found.effect(name, p)} for p in found.varied}
        for parameter in [p for p, values in effects.items() if len(values) > 1]:
            cells.append(("text", f"## {group} by {parameter}"))
            cells.append(("code", f"show_effect(found, {group!r}, {parameter!r})"))
            if group not in COSTS:
                cells.append(("code", f"found.differences({parameter!r}, found.groups[{group!r}])"))
    cells += [("text", "## What failed"), ("code", "found.failures()")]
    return cells
