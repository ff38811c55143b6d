"""Measures settings of LoRA: `python -m lab measure lora-settings` -> results/lora_settings.csv.

LoRA on attention alone, fitted to sixteen labelled items as in the few-shot table, with one thing
changed at a time: the loss, the rank, which projections of which layers, the learning rate. Early
stopping looks at the first validation items; what a setting reached is counted on others of them,
so that the choice touches no test item.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt
from typer import Option

from dsd_tutorial.matching.items import item_hits
from dsd_tutorial.prompt_learning import LoRA, Scoring, fit
from dsd_tutorial.prompt_learning.scoring import evaluate_items
from dsd_tutorial.shapes.tasks import TASKS, Task, few_shot
from lab.measuring.few_shot_methods import ATTENTION_UPDATES, scoring_of
from lab.measuring.few_shot_task import FEW, TaskSetup
from lab.measuring.pairs import PairCache
from lab.measuring.plans import SEVERAL, Plan, SeedNumbers
from lab.measuring.runner import Item, Runner, measures
from lab.measuring.tables import Row, letters_of

QK = ("to_q", "to_k")
# what differs from the adapter's own settings, of the adapter and of its fitting
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "own": ({}, {}),
    "infonce": ({}, {"loss": "infonce"}),
    "rank 2": ({"rank": 2}, {}),
    "rank 8": ({"rank": 8}, {}),
    "q and k": ({"targets": QK}, {}),
    "one layer": ({"layers": "read"}, {}),
    "q and k of one layer": ({"targets": QK, "layers": "read"}, {}),
    "twice the rate": ({}, {"lr": 2 * LoRA.lr}),
    "half the rate": ({}, {"lr": LoRA.lr / 2}),
}
KEYS = ("task", "setting", "seed")
COLUMNS = (*KEYS, "hits", "start", "accuracy", "n", "kept", "parameters", "seconds")


class LoRASettingsPlan(Plan):
    """Which settings, on which tasks, by how many items."""

    shots: PositiveInt = 16
    updates: PositiveInt = ATTENTION_UPDATES  # early stopping keeps as many of them as are good
    looks: PositiveInt = 10  # how often early stopping looks
    held: PositiveInt = 96  # validation items that nothing else looks at
    tasks: Annotated[tuple[Literal[TASKS], ...], Option("--task", help=SEVERAL)] = Field(
        ("winoground", "refcoco"), exclude=True
    )
    of: Annotated[tuple[Literal[tuple(SETTINGS)], ...], Option("--setting", help=SEVERAL)] = Field(
        tuple(SETTINGS), exclude=True
    )
    seeds: SeedNumbers = Field((0,), exclude=True)


@measures("lora_settings", LoRASettingsPlan, unit="fits")
def evaluate_lora_settings(runner: Runner, plan: LoRASettingsPlan) -> Path:
    """Return the path of lora_settings.csv after measuring what it lacks."""
    pairs = PairCache.of(runner)
    tries = {task: _Tries(TaskSetup(task, pairs), plan) for task in plan.tasks}
    items = [
        Item(
            {"task": task, "setting": name, "seed": seed}, partial(tries[task].reached, name, seed)
        )
        for task, seed, name in product(plan.tasks, plan.seeds, plan.of)
    ]
    return runner.write(items, COLUMNS, KEYS)


@dataclass
class _Tries:
    """What all settings of a task share: where they begin, and the items that count."""

    setup: TaskSetup
    plan: LoRASettingsPlan

    @cached_property
    def held(self) -> Task:
        known, most = self.setup.validation_items, self.plan.held
        if FEW + most > len(known.items):
            raise ValueError(
                f"held={most}: of {len(known.items)} validation items the first {FEW} stop a fit, "
                f"so at most {len(known.items) - FEW} are left to count on"
            )
        return replace(known, items=known.items[-most:])

    @cached_property
    def scoring(self) -> Scoring:
        return scoring_of(self.setup.short_attention)

    @cached_property
    def start(self) -> float:
        """Return the accuracy with nothing learned."""
        scores = evaluate_items(self.setup.model, self.held, None, self.scoring, **self.how)
        return float(item_hits(self.held, scores).mean())

    @property
    def how(self) -> dict[str, Any]:
        """Return how `few_shot_methods` scores what passes of its own were fitted for."""
        prior = "validation" if self.held.shape[0] == 1 else None
        return {"prior": prior, "progress": self.setup.pairs.progress}

    def reached(self, name: str, seed: int) -> list[Row]:
        """Return the row of one setting with the labelled items of one seed."""
        setup, plan, (of_adapter, of_fit) = self.setup, self.plan, SETTINGS[name]
        if of_adapter.get("layers") == "read":
            of_adapter = of_adapter | {"layers": self.scoring.layers}
        adapter, started = LoRA(setup.model, seed=seed, **of_adapter), perf_counter()
        fitted = fit(
            setup.model, adapter, few_shot(setup.task, plan.shots, seed), scoring=self.scoring,
            validation=replace(self.held, items=setup.validation_items.items[:FEW]),
            steps=plan.updates, check_every=max(1, plan.updates // plan.looks), seed=seed,
            progress=False, **of_fit,
        )  # fmt: skip
        seconds = perf_counter() - started
        hits = item_hits(self.held, fitted.scores(setup.model, self.held, **self.how))
        return [{
            "task": setup.task, "setting": name, "seed": seed,
            "hits": letters_of(hits), "start": self.start,
            "accuracy": float(hits.mean()), "n": len(hits), "kept": fitted.best_step,
            "parameters": adapter.size, "seconds": seconds,
        }]  # fmt: skip
