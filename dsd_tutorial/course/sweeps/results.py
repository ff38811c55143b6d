"""What a sweep found: its table, the effect of each parameter, paired differences, failures.

    found = read_sweep("sweeps/depth")
    found.runs                                   # a DataFrame, one row per run
    show_effect(found, "accuracy", "n_items")    # a figure with intervals over seeds
    found.differences("n_items")                 # paired where runs share seeds

The seed is what repeats a run. A mean is first taken within each seed, over whatever else varies;
intervals are Student's, over seeds. With a single run the interval is its own, if it has one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dsd_tutorial.course.recording import SEPARATOR
from dsd_tutorial.course.sweeps.folder import FIRST, LAST, SweepFolder

SEED = "seed"
PANELS, LINES = 4, 6  # that one figure shows at most


class SweepError(ValueError):
    """There is no such sweep, or nothing in it that could be shown; the message says which."""


class Estimate(NamedTuple):
    """A mean, its 95 % interval (NaN where there is none), the number of values behind it."""

    value: float
    low: float
    high: float
    n: int


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of independent values, with Student's 95 % interval."""
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n)
    from scipy.stats import sem, t

    half = float(t.ppf(0.975, n - 1) * sem(values))
    return Estimate(mean, mean - half, mean + half, n)


@dataclass
class Results:
    """A sweep that was read: where it lies, its plan's text, its runs, names of columns by kind."""

    path: Path
    plan: str
    runs: Any  # a DataFrame
    parameters: list[str]
    figures: list[str]  # names of recorded values that are numbers

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.resolve().name

    @property
    def finished(self) -> Any:
        """The runs that ended well."""
        return self.runs[self.runs.status == "ok"]

    @property
    def varied(self) -> list[str]:
        """The parameters that differ from run to run, without the seed."""
        return [p for p in self.parameters if p != SEED and self.runs[p].nunique(dropna=False) > 1]

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return int(self.runs[SEED].nunique()) if SEED in self.runs else 1

    @property
    def groups(self) -> dict[str, list[str]]:
        """First part of a figure's name -> the figures that begin with it."""
        groups: dict[str, list[str]] = {}
        for name in self.figures:
            groups.setdefault(name.split(SEPARATOR)[0], []).append(name)
        return groups

    def effect(self, figure: str, parameter: str) -> dict[Any, Estimate]:
        """Value of a parameter -> mean of a figure, with its interval over seeds."""
        rows = self.finished.dropna(subset=[figure])
        found = {}
        for value in _in_order(rows[parameter]):
            here = rows[rows[parameter] == value]
            means = here.groupby(SEED)[figure].mean() if SEED in here else here[figure]
            low, high = f"{figure}:low", f"{figure}:high"
            if len(here) == 1 and low in here:
                row = here.iloc[0]
                found[value] = Estimate(float(row[figure]), row[low], row[high], 1)
            else:
                found[value] = estimate([float(x) for x in means])
        return found

    def differences(self, parameter: str, figures: Sequence[str] | None = None) -> Any:
        """Paired differences of each figure between the first value of a parameter and each other.

        Runs are pairs that share everything else, the seed included. With several seeds the
        interval is over seeds, of each seed's mean difference; with one it is over pairs.
        """
        import pandas as pd

        rows, said = self.finished, []
        others = [p for p in (*self.varied, SEED) if p != parameter and p in rows]
        first, *rest = _in_order(rows[parameter]) or [None]
        for figure in figures or self.figures:
            table = rows.pivot_table(index=others or ["notebook"], columns=parameter, values=figure)
            for value in rest:
                if first not in table or value not in table:
                    continue
                gaps = (table[value] - table[first]).dropna()
                if gaps.empty:
                    continue
                many = SEED in others and gaps.index.get_level_values(SEED).nunique() > 1
                units = gaps.groupby(level=SEED).mean() if many else gaps
                found = estimate([float(x) for x in units])
                said.append({
                    "figure": figure, "from": first, "to": value, "difference": found.value,
                    "low": found.low, "high": found.high, "pairs": len(gaps),
                    "interval over": "seeds" if many else "pairs",
                })  # fmt: skip
        return pd.DataFrame(said)

    def failures(self) -> list[dict[str, Any]]:
        """Failed runs by class of error, notebook and cell: how many, what was said, which runs."""
        failed = self.runs[~self.runs.status.isin(["ok", "to do"])]
        keys = ["error_class", "notebook", "error_cell"]
        return [
            {"error": kind, "notebook": notebook, "cell": cell, "said": str(rows.error.iloc[0]),
             "runs": rows[["run", "output"]].to_dict("records")}
            for (kind, notebook, cell), rows in failed.groupby(keys, dropna=False)
        ]  # fmt: skip

    def provenances(self) -> Any:
        """Every provenance that runs have, and how many runs have it."""
        columns = [c for c in self.finished if c.startswith("provenance.")]
        if not columns:  # nothing has ended yet
            return self.finished
        return self.finished.groupby(columns, dropna=False).size().rename("runs").reset_index()


def _in_order(values: Any) -> list[Any]:
    """The distinct values of a column: numbers by size, others as they come."""
    found = list(dict.fromkeys(values.dropna()))
    return sorted(found) if all(isinstance(x, int | float) for x in found) else found


def read_sweep(path: str | Path) -> Results:
    """The results of a sweep that has ended or is still running.

    Raises:
        SweepError: there is no sweep in this folder.
    """
    import pandas as pd

    folder = SweepFolder(path)
    table, plan = folder.path / "runs.csv", folder.path / "plan.yaml"
    if not table.is_file():
        raise SweepError(f"{path} holds no runs.csv: give the folder of a sweep, sweeps/NAME.")
    runs: Any = pd.read_csv(table, keep_default_na=False, na_values=[""])
    last = list(runs.columns).index(LAST[0])
    named = list(runs.columns)[len(FIRST) : last]
    known = {name for _, row in folder.lines() for name in row["parameters"]}
    parameters = [name for name in named if name in known]
    figures = [c for c in named if c not in parameters and not c.endswith((":low", ":high", ":n"))]
    numeric = pd.api.types.is_numeric_dtype
    numbers = [c for c in figures if numeric(runs[c]) and runs[c].notna().any()]
    text = plan.read_text(encoding="utf-8") if plan.is_file() else ""
    return Results(Path(path), text, runs, parameters, numbers)


# -- figures ---------------------------------------------------------------------------------------


def show_effect(found: Results, group: str, parameter: str, **settings: Any) -> None:
    """Show how the figures of a group change with a parameter, with intervals over seeds.

    A group is the first part of figures' names, such as `accuracy`; the last part names panels and
    what lies between them lines. `settings` are for `axis.set`, such as xscale.
    """
    from dsd_tutorial.course.figures import show_lines

    panels: dict[str, dict[str, Any]] = {}
    for name in found.groups[group]:
        _, *middle = name.split(SEPARATOR)
        title = middle.pop() if len(middle) > 1 else ""
        effect = found.effect(name, parameter)
        series = {_label(value): point for value, point in effect.items()}
        if series:
            panels.setdefault(title, {})[SEPARATOR.join(middle)] = series
    over = f"{found.seeds} seeds" if found.seeds > 1 else "one seed"
    for some in _portions(panels):
        show_lines(some, xlabel=parameter, ylabel=group,
                   alt=f"{group} by {parameter}, {over}", **settings)  # fmt: skip


def _portions(panels: dict[str, dict[str, Any]]) -> list[dict[str, dict[str, Any]]]:
    """Panels in figures of at most PANELS, each panel with at most LINES lines."""
    parts = []
    for title, lines in panels.items():
        names = list(lines)
        for i in range(0, len(names), LINES):
            parts.append((i, title, {name: lines[name] for name in names[i : i + LINES]}))
    parts.sort(key=lambda part: part[0])  # panels with the same lines stand side by side
    figures, block = [], None
    for i, title, lines in parts:
        if block != i or len(figures[-1]) == PANELS:
            figures.append({})
            block = i
        figures[-1][title] = lines
    return figures


def _label(value: Any) -> Any:
    """A value as an axis shows it: numbers as they are, lists without their brackets."""
    if isinstance(value, str) and value.startswith("["):
        return ", ".join(map(str, json.loads(value)))
    return value
