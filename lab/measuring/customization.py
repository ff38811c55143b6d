"""Measures customisation: `python -m lab measure customization` -> results/customization*.csv.

"ct": one reference, tuned for up to a hundred steps from every start (`custom_references`).
"ft": a domain of a hundred images, before and after (`custom_domains`).

customization_items.csv holds what each reference got, a row per measurement, so that states can be
compared pair by pair; customization.csv holds their means with intervals, these comparisons, and
what was chosen or counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from typer import Option

from dsd_tutorial.matching.metrics import Interval, accuracy, paired_difference
from dsd_tutorial.projection.references import reference_sets
from lab.measuring.custom_domains import DOMAINS, USUAL, DomainTuning
from lab.measuring.custom_references import WAYS, ReferenceTuning
from lab.measuring.plans import Plan, ReferenceCount, Seed, Seeds
from lab.measuring.projection import fit_inverses
from lab.measuring.runner import Runner, measures
from lab.measuring.tables import Row

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("method", "metric", "steps")
COLUMNS = (*KEYS, "value", "low", "high", "n", "seconds", "parameters")
ITEMS = (*KEYS, "settings", "values", "seconds", "parameters")
PARTS = ("ct", "ft")
TRIED_ON = 4  # validation references on which learning rates and alphas are chosen


class CustomizationPlan(Plan):
    """How many references and variations; images, steps and batches of what is tuned."""

    n: ReferenceCount = 20
    seeds: Seeds = 3
    parts: Annotated[tuple[Literal[PARTS], ...], Option(help="ct: a reference; ft: a domain.")] = (
        Field(PARTS, exclude=True)
    )
    ways: tuple[Literal[tuple(WAYS)], ...] = Field(tuple(WAYS), exclude=True)
    domains: Annotated[
        tuple[Literal[tuple(DOMAINS)], ...], Option("--domain", help="Of ft; repeat for several.")
    ] = Field(USUAL, exclude=True)
    images: PositiveInt = 100  # that a domain is learned from
    ft: Annotated[
        PositiveInt, Option("--ft-steps", min=1, help="Steps that a domain is learned for.")
    ] = 300
    batch: PositiveInt = 4  # of ct
    sampling: Annotated[
        PositiveInt, Option("--steps", min=1, help="Denoising steps of every image.")
    ] = 10
    guidance: float | None = None
    seed: Seed = 0


@measures("customization", CustomizationPlan, unit="tunings")
def evaluate_customization(runner: Runner, plan: CustomizationPlan) -> pd.DataFrame:
    """Return the table results/customization.csv after measuring what it lacks.

    One row per (method, metric, steps): value with its 95 % interval over references, seconds (of
    tuning until that step, of fitting), learned numbers. `n` references x `seeds` variations.

    ct   methods `ways` (None: all of `WAYS`). "fidelity" is the share of variations with number of
         objects, shape, colour, texture and background right; "edit_joint" of edits that change the
         colour as requested and keep the rest; "difference_to_..." are paired (`comparisons`)
    ft   methods before_<domain>, ft_<domain>: "fidelity" on held-out images of the domain, and
         the paired "gain"; before, ft_<domain>: "old_by_image" and "old_by_caption" on 2 n scenes
         of the old world, and the paired "change_of_..."; ceiling_<domain>: the images themselves

    Raises ValueError for unknown words or too few, ResultsError for a file with other settings.
    """
    n, seed = plan.n, plan.seed
    table = Tables(runner)
    pairs = 1500 if n >= 10 else 100
    _, inverses, validation = fit_inverses(runner, n, pairs, seed)
    if "ct" in plan.parts:
        test = reference_sets(runner.model, n, "test", seed + 12)["one"].scenes
        tried = validation.scenes[:TRIED_ON]
        tuning = ReferenceTuning(runner.model, plan, table, inverses, test, tried)
        runner.run([item for name in plan.ways for item in tuning.items(name)], table)
        table.compare(row for name in plan.ways for row in tuning.comparisons(name))
    if "ft" in plan.parts:
        fitting = DomainTuning(runner.model, plan, table, inverses.truncated)
        runner.run([item for name in plan.domains for item in fitting.items(name)], table)
        table.compare(row for name in plan.domains for row in fitting.comparisons(name))
    return table.frame()


class Tables:
    """Both tables as one: rows with `values` are kept reference by reference, and reported."""

    part = "both"

    def __init__(self, runner: Runner):
        """Open both; what the items hold and the other lacks is reported again."""
        self.items = runner.table(ITEMS, KEYS, "items", stamped=True)
        self.reported = runner.table(COLUMNS, KEYS)
        self.has, self.frame = self.reported.has, self.reported.frame
        self.reported.add(_reported(row) for row in self.items.frame().to_dict("records"))

    def add(self, rows: Iterable[Row]) -> None:
        """Write rows of measurements, which have `values` or a single `value`."""
        rows = [{"seconds": 0.0, "parameters": 0, **row} for row in rows]
        self.items.add(row | {"values": _text(row["values"])} for row in rows if "values" in row)
        self.reported.add(_reported(row) for row in rows)

    def number(self, method: str, metric: str, steps: int) -> float:
        """Return the value of a reported row, such as a chosen learning rate."""
        frame = self.frame().set_index(list(KEYS))
        return float(frame.value[method, metric, steps])

    def compare(self, wanted: Iterable[tuple[Row, tuple, tuple]]) -> None:
        """Write paired differences a - b of measurements on the same references.

        `wanted` are (key of the row, key of a, key of b); those that were not measured are left
        out.
        """
        frame = self.items.frame()
        values = {
            (row.method, row.metric, row.steps): _numbers(row.values)
            for row in frame.itertuples(index=False)
        }
        for key, a, b in wanted:
            if a in values and b in values and len(values[a]) == len(values[b]):
                gap = paired_difference(values[a], values[b])
                self.reported.add([{"seconds": 0.0, "parameters": 0, **key, **gap.as_dict()}])


def _reported(row: Row) -> Row:
    """Return a row of customization.csv; a single value is its own interval."""
    if "values" in row:
        text = row["values"] if isinstance(row["values"], str) else _text(row["values"])
        how = "bootstrap" if row["metric"] == "error" else "wilson"  # errors are no shares
        found = accuracy(_numbers(text), how)
    else:
        found = Interval(row["value"], row["value"], row["value"], 1)
    return {name: row[name] for name in (*KEYS, "seconds", "parameters")} | found.as_dict()


def _text(values: Sequence[float]) -> str:
    return f"[{' '.join(f'{value:.6g}' for value in values)}]"


def _numbers(text: str) -> Tensor:
    return torch.tensor([float(v) for v in text.strip("[]").split()], dtype=torch.float64)
