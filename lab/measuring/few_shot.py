"""Measures few-shot methods: `python -m lab measure few-shot` -> results/few_shot*.csv.

All methods on the same test items, from the same labelled ones: at one number of shots on every
task, and at several (the shots curve) on one; weights over readings at several on every task.
Choices are made on the validation items.

few_shot_items.csv   measured: one row per (task, method, shots, seed), which items were right
few_shot_choice.csv  measured: the same keys, the adapter's cross-fitted accuracy on the validation
                     items, by which one adapter is chosen for all tasks
few_shot.csv         made from the items: what a method reads, its accuracy with an interval over
                     seeds, mean costs
few_shot_bars.csv    made from both: adapters against their rivals, on the same items
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import AfterValidator, Field, PositiveInt
from typer import Option

from dsd_tutorial.course.records import ResultsError
from dsd_tutorial.shapes.tasks import TASKS
from lab.measuring.few_shot_methods import (
    BY_PASSES,
    CACHED,
    METHODS,
    ON_CLIP,
    ON_READINGS,
    ZERO_SHOT,
)
from lab.measuring.few_shot_task import Outcome, TaskSetup
from lab.measuring.few_shot_verdicts import READS, hits_of, interval_of, verdicts
from lab.measuring.pairs import PairCache
from lab.measuring.plans import SEVERAL, Items, Plan, SeedNumbers
from lab.measuring.runner import Item, Runner, measures
from lab.measuring.tables import Row, letters_of

CURVE_METHODS = (*ON_CLIP, *CACHED)  # what learns within seconds
COSTS = ("unet_passes", "parameters", "labels", "seconds")
GROUP = ("task", "method", "shots")
KEYS = (*GROUP, "seed")
ITEMS = (*KEYS, "settings", "hits", "validation", "margin", "chosen", *COSTS)
CHOICE = (*KEYS, "accuracy", "n")


def _different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("the same seed twice is no second sample")
    return seeds


class FewShotPlan(Plan):
    """Which rows there are, and in which order they are measured."""

    tasks: Annotated[tuple[Literal[TASKS], ...], Option("--task", help=SEVERAL)] = Field(
        TASKS, exclude=True
    )
    methods: Annotated[tuple[Literal[tuple(METHODS)], ...], Option("--method", help=SEVERAL)] = (
        Field(tuple(METHODS), exclude=True)
    )
    shots: Annotated[PositiveInt, Option(min=1, help="Labelled items.")] = Field(16, exclude=True)
    seeds: Annotated[SeedNumbers, AfterValidator(_different)] = Field(
        (0, 1, 2), exclude=True, min_length=1
    )
    n_items: Items = 300
    steps: PositiveInt = 6  # time steps of what is computed once and read by most methods
    updates: PositiveInt = 40  # optimiser steps of what needs passes of its own (`BY_PASSES`)
    fit_steps: PositiveInt = 2  # and its time steps
    curve: Annotated[bool, Option(help="Also other numbers of shots.")] = Field(True, exclude=True)
    curve_task: Literal[TASKS] = Field("comvg", exclude=True)
    curve_shots: tuple[PositiveInt, ...] = Field((1, 2, 4, 8, 16, 32, 64), exclude=True)

    @property
    def settings(self) -> str:
        """Return what the table says; the number of items is that of the hits."""
        return f"{self.steps} time steps, {self.updates} updates on {self.fit_steps}"

    def groups(self) -> Iterator[tuple[str, str, int]]:
        """Yield (task, method, shots): what is slow comes last, over all tasks."""
        for slow, task, method in product((False, True), self.tasks, self.methods):
            if (method in BY_PASSES) == slow:
                yield from ((task, method, shots) for shots in self._shots(task, method))

    def _shots(self, task: str, method: str) -> list[int]:
        if method in ZERO_SHOT:
            return [0]
        drawn = method in CURVE_METHODS if task == self.curve_task else method in ON_READINGS
        curve = self.curve_shots if self.curve and drawn else ()
        return list(dict.fromkeys([self.shots, *curve]))

    def seeds_of(self, method: str) -> tuple[int, ...]:
        """Return the seeds; what learns nothing is measured once."""
        return (0,) if method in ZERO_SHOT else self.seeds

    def keys(self) -> Iterator[Row]:
        """Yield the key of every row of few_shot_items.csv."""
        for task, method, shots in self.groups():
            for seed in self.seeds_of(method):
                yield {"task": task, "method": method, "shots": shots, "seed": seed}

    @property
    def most(self) -> int:
        """Return the largest number of labelled items that any method looks at."""
        return max((self.shots, *(self.curve_shots if self.curve else ())))


@measures("few_shot", FewShotPlan, unit="rows")
def evaluate_few_shot(runner: Runner, plan: FewShotPlan) -> Path:
    """Return the path of few_shot.csv after measuring what it and the tables beside it lack.

    unet_passes, labels and seconds are what the method *alone* would need: fitting it, choosing on
    the validation items and scoring the test items, although most of it was computed once for all.
    Raises ValueError for unknown names, ResultsError where the tables hold rows of other settings.
    """
    items = runner.table(ITEMS, KEYS, "items", stamped=True)
    if other := set(items.frame()["hits"].str.len()) - {plan.n_items}:
        raise ResultsError(
            f"{items.path} holds rows of {other.pop()} test items; requested are {plan.n_items}: "
            "give another output, or move that file away"
        )
    choice = runner.table(CHOICE, KEYS, "choice")
    pairs = PairCache.of(runner, steps=plan.steps)
    more = plan.updates, plan.fit_steps
    setups = {t: TaskSetup(t, pairs, plan.n_items, plan.most, *more) for t in plan.tasks}
    keys = list(plan.keys())
    candidates = [k for k in keys if k["method"] in CACHED and k["shots"] == plan.shots]
    try:
        runner.run([Item(key, partial(_test, setups, key)) for key in keys], items)
        runner.run([Item(key, partial(_cross_fit, setups, key)) for key in candidates], choice)
    finally:
        runner.publish(summary(items.frame(), plan.seeds))
        found = verdicts(items.frame(), choice.frame(), plan.shots, plan.seeds)
        runner.publish(list(found), "bars")
    return runner.path()


def measure_one(setup: TaskSetup, method: str, shots: int = 16, seed: int = 0) -> Outcome:
    """Return the `Outcome` of one method, as the table has it: for who wants to recompute a row.

    setup = TaskSetup("comvg", PairCache(model))
    measure_one(setup, "head_weights").hits.mean()

    A method of `ZERO_SHOT` takes no shots, whatever is given.
    """
    return METHODS[method](setup, 0 if method in ZERO_SHOT else shots, seed)


def _test(setups: dict[str, TaskSetup], key: Row) -> list[Row]:
    """Return a row of few_shot_items.csv."""
    outcome = measure_one(setups[key["task"]], key["method"], key["shots"], key["seed"])
    accuracy, margin = map(float, outcome.validation)
    reached = {"hits": letters_of(outcome.hits), "validation": accuracy, "margin": margin}
    return [key | reached | {"chosen": outcome.chosen} | outcome.cost.as_dict()]


def _cross_fit(setups: dict[str, TaskSetup], key: Row) -> list[Row]:
    """Return a row of few_shot_choice.csv: see `TaskSetup.halves`.

    Candidates are the adapters that read what was computed once: to fit the others twice more would
    take an hour. Their gains stand in few_shot_bars.csv beside that of the chosen one.
    """
    halves = setups[key["task"]].halves
    found = [measure_one(half, key["method"], key["shots"], key["seed"]).hits for half in halves]
    hits = [float(hit) for half in found for hit in half]
    return [key | {"accuracy": sum(hits) / len(hits), "n": len(hits)}]


def summary(items: pd.DataFrame, seeds: Sequence[int]) -> list[Row]:
    """Return the rows of few_shot.csv: of all groups that have all `seeds`. Costs are means."""
    found = []
    for (task, method, shots), rows in items.groupby(list(GROUP), sort=False):
        own = (0,) if method in ZERO_SHOT else tuple(seeds)
        rows = rows[rows.seed.isin(own)]
        if len(rows) < len(own):
            continue
        reached = interval_of(hits_of(rows, task, method, shots, own))
        row = {"task": task, "method": method, "shots": shots, "reads": READS[method]}
        row |= {"seeds": len(own)}
        row |= {"accuracy": reached.value, "low": reached.low, "high": reached.high}
        row |= {name: int(round(rows[name].mean())) for name in COSTS[:-1]}
        found.append(row | {"seconds": float(rows["seconds"].mean())})
    return found
