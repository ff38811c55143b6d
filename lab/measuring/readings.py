"""Measures readings of attention: `python -m lab measure readings` -> results/readings*.csv.

readings.csv        where and when a text can be read: accuracy of every reading at every layer and
                    time step on validation items, the text prior taken off
readings_test.csv   on test items: the best log-sum-exp and the sum of readings that validation
                    chose, weights fitted to a few labelled items, and the same with the error term

Choices are made on `validation` items (the column labels counts them). Where one image chooses
among texts, the prior is taken off; among two images it changes nothing, and is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import PositiveInt

from dsd_tutorial.attention import READINGS, cross_attention_layers
from dsd_tutorial.course.few_shot import interval_of
from dsd_tutorial.matching import Components, TextPrior, accuracy
from dsd_tutorial.matching.items import item_hits
from dsd_tutorial.prompt_learning import (
    ReadingWeights,
    choose_readings,
    fit_readings,
    reading_components,
)
from dsd_tutorial.prompt_learning.reading_weights import ERROR, STEPS, STRUCTURE
from dsd_tutorial.shapes import TASKS, few_shot, make_task
from dsd_tutorial.shapes.tasks import VALIDATION_SEED, Task
from lab.measuring.runner import Cache, Item, Options, Plan, Runner
from lab.measuring.tables import Row

KEYS = ("task", "reading", "layer", "step")
TEST_KEYS = ("task", "method", "shots")
METHODS = {  # name -> what it reads
    "log_sum_exp": "attention",
    "structure": "attention",
    "readings": "attention",
    "error": "error",
    "structure_error": "both",
    "readings_error": "both",
}
LEARNING = ("readings", "readings_error")
VERSION = 1  # one more when the tensors of the cache change


class ReadingsPlan(Plan):
    """How many items, and how many of them are labelled."""

    n_items: PositiveInt = 300  # test items of each task
    validation: PositiveInt = 256  # items on which readings are chosen
    shots: tuple[PositiveInt, ...] = (16, 64)
    seeds: PositiveInt = 3  # draws of the labelled items


@dataclass
class Readings:
    """All readings of the pairs of a task's items, kept on disk; one split after the other."""

    task: str
    model: Any
    plan: ReadingsPlan
    cache: Cache
    progress: bool = True
    _known: dict[Any, tuple[Components, Task]] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(cross_attention_layers(self.model))

    def get(self, split: str, seed: int = 0) -> tuple[Components, Task]:
        """Return the components of a split's items, the prior taken off, and the items."""
        if (split, seed) not in self._known:
            items = {
                "test": lambda: make_task(self.task, self.plan.n_items),
                "validation": lambda: make_task(
                    self.task, self.plan.validation, "validation", VALIDATION_SEED
                ),
                "train": lambda: few_shot(self.task, max(self.plan.shots), seed),
            }[split]()
            key = {"task": self.task, "split": split, "seed": seed, "n": len(items.items)}
            found = self.cache.tensors(key, partial(self._compute, items))
            pairs = torch.from_numpy(np.stack(items.pairs(), axis=1))
            by_reading = {name: found[name] for name in READINGS}
            parts = Components(by_reading, found[ERROR], self.layers, STEPS, pairs)
            self._known[split, seed] = parts, items
        return self._known[split, seed]

    def _compute(self, items: Task) -> dict[str, torch.Tensor]:
        prior = TextPrior() if items.shape[0] == 1 else None
        parts = reading_components(
            self.model, items, (*READINGS, ERROR), self.layers, STEPS, prior,
            progress=self.progress,
        )  # fmt: skip
        return {**parts.by_reading, ERROR: parts.errors}


def evaluate_readings(model: Any = "shapes-sd", **values: Any) -> Path:
    """Return the path of readings.csv after measuring what it and the table beside it lack.

    `values` are those of `ReadingsPlan` and `Options`.
    """
    plan, options = Options.split(ReadingsPlan, values)
    runner = Runner("readings", model, plan, options, unit="tasks")
    cache = Cache(options.cache, "readings", weights=runner.model.sha256, version=VERSION)
    tasks = {t: Readings(t, runner.model, plan, cache, options.progress) for t in TASKS}
    where = runner.table((*KEYS, "accuracy", "low", "high", "n"), KEYS)
    first = {"reading": "log_sum_exp", "layer": cross_attention_layers(runner.model)[0]}
    runner.run(
        [
            Item({"task": t, **first, "step": STEPS[0]}, partial(landscape, data))
            for t, data in tasks.items()
        ],
        where,
    )
    columns = ("reads", "chosen", "seeds", "accuracy", "low", "high", "n", "parameters", "labels")
    test = runner.table((*TEST_KEYS, *columns), TEST_KEYS, "test")
    keys = [
        {"task": task, "method": method, "shots": shots}
        for task in TASKS
        for method in METHODS
        for shots in (plan.shots if method in LEARNING else (0,))
    ]
    runner.run([Item(key, partial(on_test, tasks[key["task"]], key)) for key in keys], test)
    return runner.path()


def landscape(data: Readings) -> list[Row]:
    """Return the accuracy of each reading at each layer and time step on validation items."""
    parts, items = data.get("validation")
    rows = []
    for name, layer, step in _cells(READINGS, data.layers):
        scores = parts.select(name, [layer], [step]).score()
        reached = accuracy(item_hits(items, scores)).as_dict()
        reached["accuracy"] = reached.pop("value")
        rows.append({"task": data.task, "reading": name, "layer": layer, "step": step} | reached)
    return rows


def _cells(names: Sequence[str], layers: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    for name in names:
        for layer in layers:
            yield from ((name, layer, step) for step in STEPS)


def on_test(data: Readings, key: Row) -> list[Row]:
    """Return the row of readings_test.csv for a method."""
    method, shots = key["method"], key["shots"]
    seeds = range(data.plan.seeds) if method in LEARNING else (0,)
    found = [_METHODS[method](data, shots, seed) for seed in seeds]
    reached = interval_of(np.stack([hits for hits, *_ in found]))
    _, chosen, parameters, labels = found[0]
    row = {"reads": METHODS[method], "chosen": chosen, "seeds": len(seeds)}
    row |= {"accuracy": reached.value, "low": reached.low, "high": reached.high, "n": reached.n}
    return [key | row | {"parameters": parameters, "labels": labels}]


Result = tuple[np.ndarray, str, int, int]  # hits, what was chosen, parameters, labels


def _plain(data: Readings, shots: int, seed: int) -> Result:
    """The log-sum-exp at the layer and time step that validation likes best."""
    known, items = data.get("validation")
    cells = {
        (layer, step): item_hits(items, known.select("log_sum_exp", [layer], [step]).score()).mean()
        for _, layer, step in _cells(["log_sum_exp"], data.layers)
    }
    layer, step = max(cells, key=cells.get)
    parts, test = data.get("test")
    hits = item_hits(test, parts.select("log_sum_exp", [layer], [step]).score())
    return hits, f"log_sum_exp {layer} {step}", 0, len(items.items)


def _chosen(data: Readings, more: tuple[str, ...]) -> ReadingWeights:
    known, items = data.get("validation")
    return choose_readings(data.model, items, readings=(*STRUCTURE, *more), parts=known)


def _said(chosen: ReadingWeights) -> str:
    """What a sum is made of, such as "3 error, 1 direction"."""
    totals: Counter[str] = Counter()
    for (name, _), weight in chosen.table().items():
        totals[name] += weight
    return ", ".join(f"{round(weight)} {name}" for name, weight in totals.items())


def _structure(data: Readings, shots: int, seed: int, *, more: tuple[str, ...] = ()) -> Result:
    """The sum of readings that validation chose."""
    chosen = _chosen(data, more)
    parts, test = data.get("test")
    return item_hits(test, chosen.score(parts)), _said(chosen), 0, data.plan.validation


def _fitted(data: Readings, shots: int, seed: int, *, more: tuple[str, ...] = ()) -> Result:
    """Weights of all readings, from the labelled items; they start from that sum."""
    parts, items = data.get("train", seed)
    rows = shots * items.shape[0] * items.shape[1]
    parts = replace(
        parts, by_reading={name: x[:rows] for name, x in parts.by_reading.items()},
        errors=parts.errors[:rows], pairs=parts.pairs[:rows],
    )  # fmt: skip
    items = replace(items, items=items.items[:shots])
    start = _chosen(data, more)
    fitted = fit_readings(data.model, items, readings=(*STRUCTURE, *more), start=start, parts=parts)
    tested, test = data.get("test")
    hits = item_hits(test, fitted.score(tested))
    return hits, _said(start), len(fitted.weights), shots + data.plan.validation


def _error(data: Readings, shots: int, seed: int) -> Result:
    parts, test = data.get("test")
    return item_hits(test, parts.errors.mean(-1)), "", 0, 0


_METHODS: dict[str, Callable[[Readings, int, int], Result]] = {
    "log_sum_exp": _plain,
    "structure": _structure,
    "readings": _fitted,
    "error": _error,
    "structure_error": partial(_structure, more=(ERROR,)),
    "readings_error": partial(_fitted, more=(ERROR,)),
}
