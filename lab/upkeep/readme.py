"""The README's table of notebooks, from what the last `make run` measured.

`python -m lab.upkeep.readme` reads `build/run.json`, writes `results/notebooks.json` and the block
in README.md between the two marks. No figure in it is typed by hand. The U-Net passes that a plan
extrapolates are read from what `make run` and `make test` executed; a count that is not there to
read stays as it was, since passes are those of any machine.
"""

import json
import math
import re
import sys
from pathlib import Path

from dsd_tutorial.course.notebooks import RECORD, all_notebooks
from dsd_tutorial.saving import write_json
from lab.upkeep import workshop
from lab.upkeep.blocks import ROOT, write_blocks

COUNTED = re.compile(r"([\d,]+) U-Net passes, [\d,]+ s, ")  # the last line of a notebook


def record_from(run: dict) -> dict:
    """The record of a run: machine, and per notebook seconds and peak memory in MB.

    Raises `ValueError` when a notebook of the run failed.
    """
    failed = [entry["notebook"] for entry in run["notebooks"] if entry["status"] != "ok"]
    if failed:
        raise ValueError(f"{', '.join(failed)} failed; mend it and run `make run` again")
    measured = {
        entry["notebook"]: {"seconds": entry["seconds"], "peak_mb": entry["peak_mb"]}
        for entry in run["notebooks"]
    }
    return {"machine": run["machine"], "notebooks": measured}


def passes_of(notebook: str, build: Path = ROOT / "build") -> dict[str, list[float]]:
    """[units, U-Net passes] of the last "quick" run and of the last with "defaults", if there."""
    from dsd_tutorial.course.parameters import defaults
    from dsd_tutorial.course.planning import UNITS

    points = {}
    for kind, folder in (("quick", build / "test"), ("defaults", build)):
        path = folder / f"{notebook}.ipynb"
        said = COUNTED.search(path.read_text(encoding="utf-8")) if path.is_file() else None
        if said and notebook in UNITS:
            given = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("papermill", {})
            values = {**defaults(path), **given.get("parameters", {})}
            points[kind] = [UNITS[notebook](values), int(said[1].replace(",", ""))]
    return points


def with_passes(record: dict, before: dict, build: Path = ROOT / "build") -> dict:
    """The record with the passes that executed notebooks name; others as `before` has them."""
    old = before.get("notebooks", {})
    notebooks = {
        name: entry | {"passes": {**old.get(name, {}).get("passes", {}), **passes_of(name, build)}}
        for name, entry in record["notebooks"].items()
    }
    return record | {"notebooks": notebooks}


def table() -> str:
    """The block of the README, in Markdown, from the record and the notebooks' titles."""
    rows = ["| notebook | minutes | memory |", "| --- | ---: | ---: |"]
    for notebook in all_notebooks(ROOT):
        minutes, memory = "–", "–"
        if notebook.seconds is not None:
            minutes = f"{math.ceil(notebook.seconds / 6) / 10:.1f}"
            memory = f"{math.ceil(notebook.peak_mb / 100) / 10:.1f} GB"
        link = f"[{notebook.title}](notebooks/{notebook.path.name})"
        rows.append(f"| {link} | {minutes} | {memory} |")
    path = ROOT / RECORD
    if path.is_file():
        machine = json.loads(path.read_text(encoding="utf-8"))["machine"]
        rows += [
            "",
            f"Measured by `make run` on {machine['cores']} CPU cores, no GPU "
            f"({machine['system']}, Python {machine['python']}).",
        ]
    return "\n".join(rows)


def main() -> int:
    """The exit status; 1 with a reason where there is no whole run to report."""
    run, target = ROOT / "build" / "run.json", ROOT / RECORD
    before = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    last = json.loads(run.read_text(encoding="utf-8")) if run.is_file() else {"notebooks": []}
    missing = {one.name for one in all_notebooks()} - {one["notebook"] for one in last["notebooks"]}
    if missing:
        absent = ", ".join(sorted(missing))
        print(f"The last run lacks {absent}: keeping the minutes. `make run` measures all anew.")
    try:
        record = before if missing else record_from(last)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if record:
        write_json(target, with_passes(record, before))
    write_blocks("README.md", "make readme", {"notebooks": table()})
    workshop.main()  # its timetables are made of the same minutes
    return 0


if __name__ == "__main__":
    sys.exit(main())
