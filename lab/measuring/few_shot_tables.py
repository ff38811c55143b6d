"""The tables of `python -m lab measure few-shot`: items, summary, choice and bars.

few_shot_items.csv   one row per (task, method, shots, seed): which items were right. All that was
                     measured on test items is here
few_shot.csv         one row per (task, method, shots): accuracy with its interval over seeds, cost
few_shot_choice.csv  one row per (task, method, shots, seed): the adapter's cross-fitted accuracy on
                     the validation items, by which one adapter is chosen for all tasks
few_shot_bars.csv    adapters against their rivals, on the same items
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsd_tutorial.course.few_shot import HIT, MISS, ZERO_SHOT, hits_of, interval_of
from dsd_tutorial.course.records import ResultsError, Table
from lab.measuring.few_shot_bench import Outcome

if TYPE_CHECKING:
    import pandas as pd

COSTS = ("unet_passes", "parameters", "labels", "seconds")
NAMED = ("task", "method", "shots")
SUMMARY = (*NAMED, "seeds", "accuracy", "low", "high", *COSTS)
ITEMS = (*NAMED, "seed", "settings", "hits", "validation", "margin", *COSTS)
BARS = (
    "task", "comparison", "adapter", "chosen", "rival", "value", "low", "high", "n", "seeds",
    "p_value", "passed",
)  # fmt: skip
CHOICE = (*NAMED, "seed", "accuracy", "n")


def beside(summary: Path, name: str) -> Path:
    """Return the path of another table beside the summary, such as ".../few_shot_items.csv"."""
    return summary.with_name(f"{summary.stem}_{name}.csv")


def add_outcome(table: Table, key: dict[str, Any], settings: str, outcome: Outcome) -> None:
    """Add what one method reached with one seed."""
    value, margin = outcome.validation
    table.add(
        **key, settings=settings, hits="".join(HIT if hit else MISS for hit in outcome.hits),
        validation=float(value), margin=float(margin), **outcome.cost.as_dict(),
    )  # fmt: skip


def refuse_mixture(frame: pd.DataFrame, n: int, settings: str, path: Path) -> None:
    """Raise ResultsError where rows were measured on another number of items or other settings."""
    other = frame[(frame["settings"] != settings) | (frame["hits"].str.len() != n)]
    if len(other):
        first = other.iloc[0]
        raise ResultsError(
            f"{path} holds {len(other)} rows of {len(first['hits'])} items with "
            f"{first['settings']}; asked are {n} items with {settings}: give another output, or "
            "move that file away"
        )


def summary_row(
    items: pd.DataFrame, task: str, method: str, shots: int, seeds: Sequence[int]
) -> dict[str, Any] | None:
    """Return a row of few_shot.csv, or None where a seed is not there yet. Costs are means."""
    asked = [0] if method in ZERO_SHOT else list(seeds)
    rows = items[(items.task == task) & (items.method == method) & (items.shots == shots)]
    rows = rows[rows.seed.isin(asked)]
    if len(rows) < len(asked):
        return None
    found = interval_of(hits_of(rows, task, method, shots, asked))
    costs = {name: int(round(rows[name].mean())) for name in COSTS[:-1]}
    return {
        "task": task, "method": method, "shots": shots, "seeds": len(asked),
        "accuracy": found.value, "low": found.low, "high": found.high, **costs,
        "seconds": float(rows["seconds"].mean()),
    }  # fmt: skip
