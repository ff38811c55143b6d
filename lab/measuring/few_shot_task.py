"""What few-shot methods need for one task: its items, and the zero-shot readings chosen on them.

Everything is made when it is first needed, and once for all methods.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from dsd_tutorial.attention.readings import OF_MAPS
from dsd_tutorial.attention.token_masks import TOKEN_MASKS
from dsd_tutorial.matching import Components
from dsd_tutorial.matching.baselines.attention_score import (
    ERROR_WEIGHTS,
    AttentionPlusError,
    Choice,
    ZeroShotAttention,
)
from dsd_tutorial.matching.cost import Cost
from dsd_tutorial.matching.items import item_hits, merit
from dsd_tutorial.prompt_learning import ReadingWeights, choose_readings
from dsd_tutorial.prompt_learning.reading_sums import ERROR, STRUCTURE
from dsd_tutorial.shapes.tasks import Task, few_shot, make_task, validation_set
from lab.measuring.pairs import ALL, PairCache, PairData


@dataclass(frozen=True)
class Outcome:
    """What a method reached on a task.

    hits        (items,) 0 or 1 by the measure that counts: "group" for two images and two texts
    validation  (accuracy, margin) on the validation items, by `baselines.merit`
    cost        fitting, choosing and scoring all test items, as the method alone would need them
    chosen      what validation chose, such as "2 direction, 1 apart"
    """

    hits: np.ndarray
    validation: tuple[float, float]
    cost: Cost
    chosen: str = ""


def names_of(error: bool, maps: bool = False) -> tuple[str, ...]:
    """Return the readings of a sum: of logits, of maps, and the error term."""
    return (*STRUCTURE, *(OF_MAPS if maps else ()), *((ERROR,) if error else ()))


FEW = 32  # validation items for who stops early by passes of its own, and to show what luck is


@dataclass
class TaskSetup:
    """One task: `n` test items, the validation items, and labelled items by seed.

    `most` labelled ones are looked at in one piece, so that fewer shots are the first of them.
    `updates` steps on `fit_steps` time steps fit what needs U-Net passes of its own.
    """

    task: str
    pairs: PairCache
    n: int = 300
    most: int = 16
    updates: int = 40
    fit_steps: int = 2
    _few: dict[int, PairData] = field(default_factory=dict)

    @property
    def model(self) -> Any:
        return self.pairs.model

    @cached_property
    def test_items(self) -> Task:
        return make_task(self.task, self.n)

    @cached_property
    def validation_items(self) -> Task:
        return validation_set(self.task)

    @cached_property
    def test(self) -> PairData:
        return self.pairs.get(self.test_items, "test")

    @cached_property
    def validation(self) -> PairData:
        return self.pairs.get(self.validation_items, "validation")

    @cached_property
    def few_validation(self) -> PairData:
        """Return the first `FEW` of the validation items."""
        return self.validation.pick(range(min(FEW, len(self.validation_items.items))))

    def few(self, shots: int, seed: int) -> PairData:
        """Return what the U-Net says about the first `shots` labelled items of `seed`."""
        if seed not in self._few:
            items = few_shot(self.task, max(self.most, shots), seed)
            self._few[seed] = self.pairs.get(items, f"train-{seed}")
        return self._few[seed].pick(range(shots))

    @cached_property
    def halves(self) -> list[TaskSetup]:
        """Return two setups that choose on half of the validation items, and test on the rest.

        What was chosen on items is flattered by them, and the more so the more was chosen from.
        """
        n, found = len(self.validation_items.items), []
        parts = [self.validation.pick(range(start, n, 2)) for start in (0, 1)]
        for chosen_on, tested_on in (parts, parts[::-1]):
            half = replace(self, n=len(tested_on.items.items))
            half.__dict__.update(  # in place of what the cached properties would compute
                validation=chosen_on, validation_items=chosen_on.items,
                test=tested_on, test_items=tested_on.items,
            )  # fmt: skip
            found.append(half)
        return found

    @cached_property
    def options(self) -> tuple[list[Choice], list[Choice]]:
        """Return all zero-shot readings: of attention alone, and with the error term."""
        kinds = ZeroShotAttention, AttentionPlusError
        return tuple(kind(self.pairs.steps).options(self.model) for kind in kinds)

    def best(
        self,
        options: list[Choice],
        known: PairData | None = None,
        parts: Components | None = None,
    ) -> Choice:
        """Return the choice with the most merit on validation items; the first among equals.

        `parts` are what is read of them; None: their `components`.
        """
        known = known or self.validation
        parts = parts or known.components
        return max(options, key=lambda c: merit(c.score(parts), known.items))

    def sum_of(self, error: bool, known: PairData, maps: bool = False) -> ReadingWeights:
        """Return the sum of readings that these validation items choose, the prior taken off."""
        names = names_of(error, maps)
        return choose_readings(
            self.model, known.items, readings=names, steps=self.pairs.inner,
            error_steps=known.steps, parts=known.structure,
        )  # fmt: skip

    @cached_property
    def sums(self) -> tuple[ReadingWeights, ReadingWeights]:
        """Return the sum of readings that is chosen: of attention alone, with the error term."""
        return self.sum_of(False, self.validation), self.sum_of(True, self.validation)

    @cached_property
    def map_sum(self) -> ReadingWeights:
        """Return that of attention alone, with readings of maps to choose from, too."""
        return self.sum_of(False, self.validation, maps=True)

    @cached_property
    def choices(self) -> tuple[Choice, Choice]:
        """Return the zero-shot reading that is chosen: of attention alone, with the error term."""
        return tuple(self.best(options) for options in self.options)

    @cached_property
    def plain_choices(self) -> tuple[Choice, Choice]:
        """Return the same where all layers and steps count alike: token mask, error weight."""
        layers, steps = self.validation.layers, self.validation.steps
        return tuple(
            self.best([Choice(m, layers, steps, w) for m in TOKEN_MASKS for w in weights])
            for weights in ((0.0,), (0.0, *ERROR_WEIGHTS))
        )

    @cached_property
    def short_choice(self) -> Choice:
        """Return the best reading of at most `fit_steps` neighbouring time steps.

        There begins what is fitted by U-Net passes of its own, with or without the error term.
        """
        options = self._short([choice for some in self.options for choice in some])
        return self.best(options, self.few_validation)

    @cached_property
    def short_attention(self) -> Choice:
        """Return the same of attention alone, chosen on all validation items as it is scored.

        Where one image chooses among texts, that is with the prior taken off, which is known of
        all tokens together and at the time steps `PairCache.inner`.
        """
        options, known = self._short(self.options[0]), self.validation
        if known.prior is None:
            return self.best(options)
        options = [
            c for c in options if c.token_mask == ALL and set(c.steps) <= {*known.prior_steps}
        ]
        return self.best(options, parts=known.structure)

    def _short(self, options: list[Choice]) -> list[Choice]:
        """Return these choices with every window of at most `fit_steps` time steps in turn."""
        grid, width = self.pairs.grid, min(self.fit_steps, len(self.pairs.grid))
        windows = [grid[i : i + width] for i in range(len(grid) - width + 1)]
        subsets = dict.fromkeys((c.token_mask, c.layers, c.error_weight) for c in options)
        return [Choice(m, names, w, e) for m, names, e in subsets for w in windows]

    def outcome(
        self,
        scores: Tensor,
        known: Tensor,
        cost: Cost,
        items: Task | None = None,
        chosen: Choice | ReadingWeights | None = None,
    ) -> Outcome:
        """Return the `Outcome` of scores of the test items and of validation items (None: all)."""
        hits = item_hits(self.test_items, scores).astype(int)
        said = "" if chosen is None else describe(chosen)
        return Outcome(hits, merit(known, items or self.validation_items), cost, said)


def describe(chosen: Choice | ReadingWeights) -> str:
    """Return what was chosen, such as "2 direction, 1 apart" or "words up.2.1 416 583"."""
    if isinstance(chosen, ReadingWeights):
        totals: Counter[str] = Counter()
        for (name, _), weight in chosen.table().items():
            totals[name] += weight
        return ", ".join(f"{round(weight)} {name}" for name, weight in totals.items())
    beta = f" error {chosen.error_weight:g}" if chosen.error_weight else ""
    return f"{chosen.token_mask} {' '.join(chosen.layers)} {' '.join(map(str, chosen.steps))}{beta}"
