"""From a sweep to a table in `results/`: every figure of every run, with what was varied.

One row for each figure of a run: its seed, the varied parameters, the parts of its name, its value
with interval and n, and the commit and weights that it came from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from dsd_tutorial.course.records import SHA, results_folder
from dsd_tutorial.course.sweeps import Results, SweepError, read_sweep
from dsd_tutorial.saving import write_text


def table_of(found: Results, group: str) -> pd.DataFrame:
    """Return the rows of the figures that begin with `group`; a figure is named by its last parts.

    Raises:
        SweepError: not every run has ended well, or no figure begins so.
    """
    if (bad := len(found.runs) - len(found.finished)) > 0:
        raise SweepError(f"{bad} runs of {found.path} have not ended well: give the sweep again.")
    if group not in found.groups:
        raise SweepError(f"{found.path} has no {group}, but {', '.join(found.groups)}.")
    rows = []
    for run in found.finished.to_dict("records"):
        varied = {name: _plain(run[name]) for name in found.varied}
        for name in found.groups[group]:
            if run[name] != run[name]:
                continue  # this run has no such figure
            method, *task = name.split("/")[1:]
            rows.append({
                **varied, "seed": run["seed"], "method": method, "task": "/".join(task),
                "value": run[name], "low": run.get(f"{name}:low"), "high": run.get(f"{name}:high"),
                "n": run.get(f"{name}:n"), "commit": run["provenance.commit"],
                SHA: run["provenance.weights"],
            })  # fmt: skip
    return pd.DataFrame(rows)


def _plain(value: Any) -> Any:
    """A list as text without its brackets: `up.2.1`, `400`."""
    if isinstance(value, str) and value.startswith("["):
        return " ".join(map(str, json.loads(value)))
    return value


def write_sweep(folder: Path, group: str = "accuracy", output: Path | None = None) -> Path:
    """Return the csv file `results/sweep_NAME.csv`, written from a sweep."""
    found = read_sweep(folder)
    path = output or results_folder() / f"sweep_{found.name}.csv"
    table = table_of(found, group)
    write_text(path, table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    return path
