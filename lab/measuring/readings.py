"""Where and when a text can be read: `python -m lab measure readings` -> results/readings.csv.

The accuracy of every reading at every layer, time step and head on validation items, the text prior
taken off where one image chooses among texts, at the time steps where it is known; among two images
it changes nothing, and is left out.
Only the paper's log-sum-exp is read by head: the structured readings read the mean of the heads.
What comes of a choice among these is measured on test items: see `few_shot`.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

from pydantic import PositiveInt
from typer import Option

from dsd_tutorial.attention import READINGS, cross_attention_layers
from dsd_tutorial.matching import accuracy
from dsd_tutorial.matching.items import item_hits
from dsd_tutorial.shapes import TASKS
from dsd_tutorial.shapes.tasks import validation_set
from lab.measuring.pairs import PairCache
from lab.measuring.plans import Plan
from lab.measuring.runner import Item, Runner, measures
from lab.measuring.tables import Row

KEYS = ("task", "reading", "layer", "step", "head")
ALL = "all"  # heads: their mean


class ReadingsPlan(Plan):
    """How many items and time steps."""

    validation: Annotated[PositiveInt, Option(min=2, help="Validation items of each task.")] = (
        256  # the first ones of the set
    )
    steps: PositiveInt = 6  # time steps, the middles of as many equal cells


@measures("readings", ReadingsPlan, version=3, unit="tasks")
def evaluate_readings(runner: Runner, plan: ReadingsPlan) -> Path:
    """Return the path of readings.csv after measuring what it lacks."""
    pairs = PairCache.of(runner, steps=plan.steps)
    layer = next(iter(cross_attention_layers(runner.model)))
    first = {"reading": "log_sum_exp", "layer": layer, "step": pairs.grid[0], "head": ALL}
    items = [
        Item({"task": t, **first}, partial(landscape, pairs, t, plan.validation)) for t in TASKS
    ]
    return runner.write(items, (*KEYS, "accuracy", "low", "high", "n"), KEYS)


def landscape(pairs: PairCache, task: str, n: int) -> list[Row]:
    """Return the accuracy of each reading at each layer and time step, and of each head."""
    items = validation_set(task, n)
    data = pairs.get(items, "validation")
    steps = data.steps if data.prior is None else data.prior_steps
    heads = data.components.select(ALL)  # the token mask of all tokens
    rows = []
    for name, layer, step in product(READINGS, data.layers, steps):
        cell = {"task": task, "reading": name, "layer": layer, "step": step}
        read = {ALL: data.structure.select(name, [layer], [step]).score()}
        if name == "log_sum_exp" and data.prior is None:
            one = heads.select(None, [layer], [step]).scores[:, 0, 0]  # (pairs, heads)
            read |= {str(i): head for i, head in enumerate(one.T) if not head.isnan().any()}
        for head, scores in read.items():
            reached = accuracy(item_hits(items, scores)).as_dict()
            reached["accuracy"] = reached.pop("value")
            rows.append(cell | {"head": head} | reached)
    return rows
