"""Measures what half precision changes: `python -m lab measure precision` -> results/precision.csv.

The same items are scored in float32 and in another precision. A row says how often the winner is
the same, how often the whole order is, and what accuracy became of it.
"""

from __future__ import annotations

from copy import copy, deepcopy
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from typer import Option

from dsd_tutorial.attention import choose_layers
from dsd_tutorial.matching import components, paired_difference
from dsd_tutorial.matching.items import correct_of, decisions, item_hits, item_pairs
from dsd_tutorial.shapes import TASKS, make_task
from dsd_tutorial.shapes.tasks import Task
from dsd_tutorial.stable_diffusion.precision import cast_unet, pick_dtype
from lab.measuring.plans import Items, Plan
from lab.measuring.runner import Item, Runner, measures
from lab.measuring.tables import Row

KEYS = ("task", "reads", "dtype")
COLUMNS = (
    *KEYS, "same_winner", "same_order", "accuracy", "accuracy_float32", "change", "low", "high",
    "n", "decisions",
)  # fmt: skip
READS = {"attention_error": (1.0, 1.0), "attention": (1.0, 0.0), "error": (0.0, 1.0)}


class PrecisionPlan(Plan):
    """How many items, at which time steps, in which precision."""

    n_items: Items = 1000  # of 300 the interval of a change is wider than the point that is allowed
    time_steps: tuple[int, ...] = (250, 550, 850)
    dtype: Annotated[str, Option(help="Beside float32.")] = "bfloat16"


@measures("precision", PrecisionPlan, version=3, unit="tasks")
def evaluate_precision(runner: Runner, plan: PrecisionPlan) -> Path:
    """Return the path of precision.csv after measuring what it lacks."""
    half = beside(runner.model, plan.dtype)
    items = [
        Item(
            {"task": task, "reads": "attention_error", "dtype": plan.dtype},
            partial(compared, runner.model, half, task, plan),
        )
        for task in TASKS
    ]
    return runner.write(items, COLUMNS, KEYS)


def beside(model: Any, dtype: str) -> Any:
    """Return the model with a U-Net of its own in another precision; all else is shared."""
    other = copy(model)
    other.dtype = pick_dtype(dtype, model.device)
    other.unet = deepcopy(model.unet)
    cast_unet(other.unet, other.dtype)
    return other


def compared(model: Any, half: Any, task: str, plan: PrecisionPlan) -> list[Row]:
    """Return the rows of one task."""
    items = make_task(task, plan.n_items)
    full, other = (_scores(m, items, plan.time_steps) for m in (model, half))
    rows = []
    for reads in READS:
        (a, _), (b, _) = (
            decisions(s[reads], items.shape, correct_of(items)) for s in (full, other)
        )
        hits, before = item_hits(items, other[reads]), item_hits(items, full[reads])
        change = paired_difference(hits, before)
        rows.append({
            "task": task, "reads": reads, "dtype": plan.dtype,
            "same_winner": float((a.argmax(1) == b.argmax(1)).double().mean()),
            "same_order": float((a.argsort(1) == b.argsort(1)).all(1).double().mean()),
            "accuracy": float(hits.mean()), "accuracy_float32": float(before.mean()),
            "change": change.value, "low": change.low, "high": change.high, "n": len(hits),
            "decisions": len(a),
        })  # fmt: skip
    return rows


def _scores(model: Any, items: Task, steps: tuple[int, ...]) -> dict[str, torch.Tensor]:
    parts = components(
        model, items.images(model.resolution), items.texts, item_pairs(items).flatten(0, 1),
        steps=steps, layers=list(choose_layers(model, "last")), errors=True, progress=False,
    )  # fmt: skip
    return {
        name: parts.score(attention_weight=a, error_weight=e).view(len(items.items), -1)
        for name, (a, e) in READS.items()
    }
