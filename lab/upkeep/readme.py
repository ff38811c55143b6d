"""The README's table of notebooks, from what the last `make run` measured.

`python -m lab.upkeep.readme` reads `build/run.json`, writes `results/notebooks.json` and the block
in README.md between the two marks. No figure in it is typed by hand.
"""

import json
import math
import re
import sys
from pathlib import Path

from dsd_tutorial.course.notebooks import RECORD, all_notebooks
from lab.upkeep import workshop
from lab.upkeep.blocks import ROOT, replace_block

COUNTED = re.compile(r"([\d,]+) U-Net passes, ")
MARKS = ("<!-- notebooks: written by `make readme` -->", "<!-- end of notebooks -->")


def record_from(run: dict) -> dict:
    """The committed record of a run: machine, and per notebook seconds and peak memory in MB.

    Raises `ValueError` when a notebook of the run failed.
    """
    failed = [entry["notebook"] for entry in run["notebooks"] if entry["status"] != "ok"]
    if failed:
        raise ValueError(f"{', '.join(failed)} failed; mend it and run `make run` again")
    measured = {
        entry["notebook"]: {"seconds": entry["seconds"], "peak_mb": entry["peak_mb"]}
        for entry in run["notebooks"]
    }
    for name, entry in measured.items():
        if points := passes_of(name):
            entry["passes"] = points
    return {"machine": run["machine"], "notebooks": measured}


def passes_of(notebook: str, build: Path = ROOT / "build") -> list[list[float]]:
    """[units, U-Net passes] of the last quick run and the last run with the defaults, if there."""
    from dsd_tutorial.course.parameters import defaults
    from dsd_tutorial.course.planning import UNITS

    points = []
    for path in (build / "test" / f"{notebook}.ipynb", build / f"{notebook}.ipynb"):
        said = COUNTED.search(path.read_text(encoding="utf-8")) if path.is_file() else None
        if said and notebook in UNITS:
            given = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("papermill", {})
            values = {**defaults(path), **given.get("parameters", {})}
            points.append([UNITS[notebook](values), int(said[1].replace(",", ""))])
    return points


def table(root: Path = ROOT) -> str:
    """The block of the README, in Markdown, from the record and the notebooks' titles."""
    rows = ["| notebook | minutes | memory |", "| --- | ---: | ---: |"]
    for notebook in all_notebooks(root):
        minutes, memory = "–", "–"
        if notebook.seconds is not None:
            minutes = f"{math.ceil(notebook.seconds / 6) / 10:.1f}"
            memory = f"{math.ceil(notebook.peak_mb / 100) / 10:.1f} GB"
        link = f"[{notebook.title}](notebooks/{notebook.path.name})"
        rows.append(f"| {link} | {minutes} | {memory} |")
    path = root / RECORD
    if path.is_file():
        machine = json.loads(path.read_text(encoding="utf-8"))["machine"]
        rows.append("")
        rows.append(
            f"Measured by `make run` on {machine['cores']} CPU cores, no GPU "
            f"({machine['system']}, Python {machine['python']})."
        )
    return "\n".join(rows)


def main() -> int:
    """The exit status; 1 with a reason where there is no whole run to report."""
    run = ROOT / "build" / "run.json"
    if run.is_file():
        try:
            record = record_from(json.loads(run.read_text(encoding="utf-8")))
        except ValueError as error:
            print(error, file=sys.stderr)
            return 1
        target = ROOT / RECORD
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8", newline="\n")
    else:
        print("No build/run.json: keeping the last record. `make run` measures anew.")
    replace_block(MARKS, table())
    return workshop.main()  # its timetables are made of the same minutes


if __name__ == "__main__":
    sys.exit(main())
