"""The report of a sweep: what was asked, what ran, what came of it, at what cost.

As one page, and as a notebook beside the runs, to be changed: it reads the sweep and draws.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dsd_tutorial.course.execution import run_notebook
from dsd_tutorial.course.figures import collected
from dsd_tutorial.course.notebooks import hasten_nbformat
from dsd_tutorial.course.sweeps.pages import Part, Section, table, write_page
from dsd_tutorial.course.sweeps.results import (
    SEED,
    Results,
    SweepError,
    read_sweep,
    show_effect,
)
from dsd_tutorial.saving import Written, write_text

COSTS = ("unet_passes",)  # figures that say what a run cost rather than what it found


def write_report(folder: str | Path) -> Path:
    """The page `report.html` in the folder of a sweep.

    Raises:
        SweepError: there is no sweep.
    """
    found = read_sweep(folder)
    runs = found.runs
    counts = runs.status.value_counts()
    numbers = {
        "runs": len(runs),
        **{status: int(n) for status, n in counts.items()},
        "seeds": found.seeds,
        "hours of kernels": f"{runs.seconds.sum() / 3600:.2f}",
        "largest memory": f"{runs.peak_mb.fillna(0).max() / 1000:.1f} GB",
    }
    varied = ", ".join(found.varied) or "nothing but the seed"
    lead = f"{len(runs)} runs of {', '.join(sorted(set(runs.notebook)))}; what varies: {varied}."
    asked = Section("What was asked", code=found.plan)
    sections = [asked, *_effects(found), _differences(found), _failures(found),
                _cost(found), _provenance(found), _all_runs(found)]  # fmt: skip
    title, page = f"Sweep {found.name}", found.path / "report.html"
    return write_page(page, title, lead, numbers, [s for s in sections if s])


def charts(found: Results, group: str, parameter: str) -> list[str]:
    """The figures, as HTML, of a group by a parameter; none where it does not vary there."""
    values = {x for name in found.groups[group] for x in found.effect(name, parameter)}
    if len(values) < 2:
        return []
    with collected() as page:
        show_effect(found, group, parameter)
    return page


def _effects(found: Results) -> list[Section]:
    """A section for each recorded value's group, with a figure for each swept parameter."""
    sections = []
    for group in found.groups:
        if group in COSTS:
            continue
        drawn = [(p, charts(found, group, p)) for p in found.varied]
        parts = [Part(f"{group} by {p}", figures=page) for p, page in drawn if page]
        means = found.finished[found.groups[group]].agg(["mean", "std", "min", "max", "count"]).T
        summary = means.rename_axis("figure").reset_index()
        parts.append(Part(table=table(summary, f"{group}: means over all runs"), folded="Means"))
        over = "Intervals are 95 %, over seeds." if found.seeds > 1 else (
            "With one seed, an interval is that of the run itself, over its items.")  # fmt: skip
        sections.append(Section(group, [over], parts=parts))
    return sections


def _differences(found: Results) -> Section | None:
    parts = []
    wanted = [name for name in found.figures if name.split("/")[0] not in COSTS]
    for parameter in found.varied:
        rows = found.differences(parameter, wanted)
        if len(rows):
            clear = rows[(rows.low > 0) | (rows.high < 0)]
            said = f"{parameter}: {len(rows)} differences, {len(clear)} with an interval without 0"
            parts.append(Part(table=table(rows, said, sortable=True), folded=said))
    if not parts:
        return None
    return Section(
        "Paired differences",
        ["Runs that share everything but one parameter, the seed included, are pairs. Many "
         "intervals are shown at once: of twenty that mean nothing, one leaves out zero."],
        parts=parts,
    )  # fmt: skip


def _failures(found: Results) -> Section | None:
    kinds = found.failures()
    if not kinds:
        return None
    links = [
        {"said": f"{kind['error']} in {kind['notebook']}"
         + (f", cell {int(kind['cell'])}" if kind["cell"] == kind["cell"] else "")
         + f", {len(kind['runs'])} runs: {kind['said'][:300]}", "runs": kind["runs"]}
        for kind in kinds
    ]  # fmt: skip
    return Section("What failed", parts=[Part(links=links)])


def _cost(found: Results) -> Section:
    ended = found.runs[found.runs.seconds.notna()]
    rows = ended.groupby("notebook").agg(
        runs=("run", "count"), seconds_mean=("seconds", "mean"), seconds_most=("seconds", "max"),
        megabytes_most=("peak_mb", "max"), hours=("seconds", lambda x: x.sum() / 3600),
    ).reset_index()  # fmt: skip
    rows.columns = [str(name).replace("_", ", ") for name in rows.columns]
    parts = [Part(table=table(rows, "Cost by notebook"))]
    parts += [Part(f"U-Net passes by {p}", figures=charts(found, "unet_passes", p))
              for p in found.varied if "unet_passes" in found.groups]  # fmt: skip
    return Section("Cost", parts=[part for part in parts if part.table or part.figures])


def _provenance(found: Results) -> Section | None:
    kinds = found.provenances()
    if kinds.empty:
        return None
    shown = kinds.rename(columns=lambda name: str(name).removeprefix("provenance."))
    several = [c for c in shown if c != "runs" and shown[c].nunique(dropna=False) > 1]
    said = ["All runs have the same provenance."]
    if several:
        said = [f"Runs differ in {', '.join(several)}: compare them with care."]
    said += repeats_told(found.path)
    frame = shown.T.reset_index().astype(str)
    frame.columns = ["what", *(f"provenance {i + 1}" for i in range(len(shown)))]
    return Section("Provenance", said, parts=[Part(table=table(frame, "What all runs came from"))])


def repeats_told(path: Path) -> list[str]:
    """What `dsd-tutorial repeat` has found in this sweep, in sentences."""
    file = path / "repeats.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    said = [json.loads(line) for line in lines]
    differing = [x for x in said if x["differing"]]
    told = [f"Repeated runs: {len(said)}, equal in every recorded value: "
            f"{len(said) - len(differing)}."] if said else []  # fmt: skip
    for repeat in differing:
        names = ", ".join(list(repeat["differing"])[:5])
        same = "equal" if not repeat["provenance"] else f"other {', '.join(repeat['provenance'])}"
        told.append(f"Run {repeat['run']} was not repeated in {names} ({same} provenance).")
    return told


def _all_runs(found: Results) -> Section:
    runs = found.runs
    columns = ["run", "notebook", "status", *found.varied]
    columns += [SEED] if SEED in runs and SEED not in columns else []
    columns += [*found.figures, "seconds", "peak_mb", "tries", "output"]
    frame: Any = runs[columns].rename(columns={"output": "executed"})
    return Section(
        "All runs",
        ["A click on a column's name sorts by it. All columns are in runs.csv."],
        parts=[Part(table=table(frame, "All runs", sortable=True, links="executed"))],
    )


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
