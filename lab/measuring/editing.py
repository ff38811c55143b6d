"""Measures edits: `python -m lab measure editing` -> results/editing.csv, editing_items.csv.

References of one object, each with four edits (`edit_items`), drawn by every method
(`edit_methods`) and read by the judge: `changed`, `kept`, and `joint` where both hold of the same
image. The setting of a method is chosen on the validation split by `joint`, and so is the best
edit, whose setting is then chosen once more on more of them; the reported rows are of the test
split. editing_items.csv holds what was measured, a row per setting; editing.csv is made from it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, PositiveInt
from typer import Option

from dsd_tutorial.matching.metrics import Interval, accuracy, paired_difference
from dsd_tutorial.projection.references import References, reference_sets
from dsd_tutorial.variation.edit_items import KINDS
from lab.measuring.edit_methods import EDITS, GRIDS, METHODS, ONE_SEED, EditSet
from lab.measuring.plans import SEVERAL, Plan, ReferenceCount, Seed, Seeds
from lab.measuring.projection import fit_inverses
from lab.measuring.runner import Item, Runner, measures
from lab.measuring.tables import HIT, Row, Table, letters_of

KEYS = ("split", "method", "alpha")
ITEMS = (*KEYS, "settings", "changed", "kept", "seconds")
PREFIXES = {"test": "", "validation": "validation_", "fine": "fine_"}
RIVALS = ("sdedit", "sdedit_caption", "words", "caption", "prompt_to_prompt")
FINE = 40  # validation references on which the best edit's setting is chosen once more
NONE = math.nan  # the setting of a method that has none


class EditingPlan(Plan):
    """How many references and noises, and what all edits share."""

    n: ReferenceCount = 24
    seeds: Seeds = 3
    steps: Annotated[PositiveInt, Option(min=2, help="Denoising steps of every image.")] = 20
    guidance: float | None = None
    pairs: PositiveInt = 1500  # that the alternative inverses are fitted on
    copies: int | str | None = None  # of `edit_prompt`, for all edits
    fill: Literal["text"] = "text"  # stored rows name it; there is no other
    seed: Seed = 0
    methods: Annotated[tuple[Literal[METHODS], ...], Option("--method", help=SEVERAL)] = Field(
        METHODS, exclude=True
    )


@measures("editing", EditingPlan)
def evaluate_editing(runner: Runner, plan: EditingPlan) -> pd.DataFrame:
    """Return the table results/editing.csv after measuring what it lacks.

    One row per (method, kind, alpha, metric): value and 95 % interval over references (Wilson; for
    "joint_minus_<rival>" the paired bootstrap), seconds per image. `kind` is "all" or one of
    `KINDS`. `alpha` is the method's setting, whatever its name (`edit_methods`), NaN where it has
    none. `changed`, `kept` and `joint` are of `n` test references: at the chosen setting, which the
    row `chosen` names, from `seeds` noises (bounds: one); at the other settings of the edit that
    the row `best` names, from one. `validation_changed` and so on are what the choices were made
    on: n // 2 other references, one noise; `fine_` rows of the best edit: up to `FINE` more.

    Raises ValueError for n < 4, seeds < 1 or an unknown method, ResultsError where the file holds
    other settings, PenultimateLayerError for SD 2.x.
    """
    n, seed = plan.n, plan.seed
    table = runner.table(ITEMS, KEYS, "items", stamped=True)
    _, inverses, validation = fit_inverses(runner, n, plan.pairs, seed)
    half = References(validation.scenes[: max(2, n // 2)], runner.model)
    more = reference_sets(runner.model, min(2 * n, FINE), "validation", seed + 77)["one"]
    test = reference_sets(runner.model, n, "test", seed + 12)["one"]
    sets = {
        split: EditSet(references, inverses, plan, seed + shift)
        for split, references, shift in (
            ("validation", half, 5_000), ("fine", more, 5_000), ("test", test, 0),
        )
    }  # fmt: skip
    editing = Editing(sets, table, plan)
    runner.run([x for m in plan.methods for x in editing.grid("validation", m)], table)
    if best := editing.best(plan.methods):
        runner.run(editing.grid("fine", best), table)
    runner.run([editing.reported(m) for m in plan.methods], table)
    if best:  # its curve
        runner.run(editing.grid("test", best), table)
    runner.publish(editing.rows(inverses.name))
    return pd.read_csv(runner.path())


class Editing:
    """What was measured so far, and what follows from it."""

    def __init__(self, sets: dict[str, EditSet], table: Table, plan: EditingPlan):
        self.sets, self.table, self.plan = sets, table, plan

    def item(self, split: str, method: str, alpha: float, seeds: int) -> Item:
        """Return the measurement of one setting."""
        key = {"split": split, "method": method, "alpha": float(alpha)}
        cost = seeds * len(self.sets[split].edits)
        return Item(key, partial(self._measure, key, seeds), cost)

    def _measure(self, key: Row, seeds: int) -> list[Row]:
        start = time.perf_counter()
        answers = self.sets[key["split"]].measure(key["method"], key["alpha"], seeds)
        changed, kept = map(letters_of, answers)
        seconds = (time.perf_counter() - start) / len(changed)
        return [key | {"changed": changed, "kept": kept, "seconds": seconds}]

    def grid(self, split: str, method: str) -> list[Item]:
        """Return the measurements of all settings of a method, from one noise."""
        return [self.item(split, method, alpha, 1) for alpha in GRIDS.get(method, ())]

    def reported(self, method: str) -> Item:
        """Return the measurement of the chosen setting; bounds are drawn from one noise."""
        seeds = 1 if method in ONE_SEED else self.plan.seeds
        return self.item("test", method, self.chosen(method), seeds)

    def measured(self) -> dict[tuple[str, str, str], Any]:
        """Return the rows of the table by split, method and setting."""
        return {(r.split, r.method, f"{r.alpha:.6g}"): r for r in self.table.frame().itertuples()}

    def hits(self, split: str, method: str, alpha: float) -> dict[str, np.ndarray]:
        """Return what is changed, kept and both, each (references, kinds, noises) of 0 and 1."""
        row = self.measured()[split, method, f"{alpha:.6g}"]
        shape = (-1, len(self.sets[split].references.scenes), len(KINDS))  # noises first
        changed, kept = (
            np.array([letter == HIT for letter in text], float).reshape(shape).transpose(1, 2, 0)
            for text in (row.changed, row.kept)
        )
        return {"changed": changed, "kept": kept, "joint": changed * kept}

    def merit(self, method: str, alpha: float, split: str = "validation") -> tuple[float, float]:
        """Return the joint score; for equals, changed and kept added up."""
        hits = {name: rows.mean() for name, rows in self.hits(split, method, alpha).items()}
        return float(hits["joint"]), float(hits["changed"] + hits["kept"])

    def chosen(self, method: str) -> float:
        """Return the setting that did best on validation (`merit`); the first of equals."""
        if method not in GRIDS:
            return NONE
        there = self.measured()
        fine = all(("fine", method, f"{alpha:.6g}") in there for alpha in GRIDS[method])
        split = "fine" if fine else "validation"
        return max(GRIDS[method], key=lambda alpha: self.merit(method, alpha, split))

    def best(self, methods: Sequence[str]) -> str | None:
        """Return the edit that did best on validation, or None without edits."""

        def reached(method: str) -> tuple[float, float]:
            return max(self.merit(method, alpha) for alpha in GRIDS[method])

        return max((m for m in methods if m in EDITS), key=reached, default=None)

    def rows(self, inverse: str) -> list[Row]:
        """Return the rows of editing.csv; `inverse` is the name of the alternative one."""
        same = Interval(1.0, 1.0, 1.0, self.plan.n)
        found = [_row("edit_alternative", NONE, f"inverse_{inverse}", same)]
        for row in self.measured().values():
            for metric, hits in self.hits(row.split, row.method, row.alpha).items():
                kinds = {"all": hits, **dict(zip(KINDS, hits.transpose(1, 0, 2), strict=True))}
                found += [
                    _row(row.method, row.alpha, PREFIXES[row.split] + metric,
                         accuracy(part.reshape(len(part), -1).mean(1)), kind, row.seconds)
                    for kind, part in kinds.items()
                ]  # fmt: skip
        drawn = {row.method for row in self.measured().values() if row.split == "test"}
        methods = [method for method in METHODS if method in drawn]
        choices = [(m, "chosen", "validation") for m in methods if m in GRIDS]
        if best := self.best(methods):
            choices.append((best, "best", "fine"))
        for method, what, split in choices:
            n = len(self.sets[split].references.scenes)
            found.append(_row(method, self.chosen(method), what, Interval(1.0, 1.0, 1.0, n)))
        return found + self._comparisons(methods)

    def _comparisons(self, methods: Sequence[str]) -> list[Row]:
        """Return rows "joint_minus_<rival>": paired by reference, over noises both have."""
        joint = {m: self.hits("test", m, self.chosen(m))["joint"] for m in methods}
        found = []
        for method in (m for m in methods if m in EDITS):
            for rival in (*RIVALS, f"image_{EDITS[method][0]}"):
                if rival in joint:
                    both = min(joint[method].shape[-1], joint[rival].shape[-1])
                    ours, theirs = (joint[m][..., :both].mean((1, 2)) for m in (method, rival))
                    gap = paired_difference(ours, theirs)
                    found.append(_row(method, self.chosen(method), f"joint_minus_{rival}", gap))
        return found


def _row(
    method: str, alpha: float, metric: str, found: Interval, kind: str = "all", seconds: float = 0.0
) -> Row:
    row = {"method": method, "kind": kind, "alpha": float(alpha), "metric": metric}
    return row | found.as_dict() | {"seconds": float(seconds)}
