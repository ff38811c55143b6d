"""Measures edits: `python -m lab measure editing` -> results/editing.csv, editing_items.csv.

References of one object, each with four edits (`edit_items`), drawn by every method
(`edit_methods`) and read by the judge: `changed`, `kept`, and `joint` where both hold of the same
picture. What a method is turned by is chosen on the validation split by `joint`, and so is the best
edit, whose setting is then chosen once more on more of them; the reported rows are of the test
split. editing_items.csv holds all that was measured, a row
per setting, so that Ctrl-C loses one at the most; editing.csv is made from it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsd_tutorial.course.records import ResultsError, Table, recorded_alternative, results_folder
from dsd_tutorial.matching.metrics import Interval, accuracy, paired_difference
from dsd_tutorial.projection import calibrate, collect_pairs
from dsd_tutorial.projection.references import References, choose_inverses, reference_sets
from dsd_tutorial.variation.edit_items import KINDS
from lab.measuring.edit_methods import EDITS, GRIDS, METHODS, ONE_SEED, Bench

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "method", "kind", "alpha", "metric", "value", "low", "high", "n", "seconds", "model_sha256",
)  # fmt: skip
ITEMS = ("split", "method", "alpha", "settings", "changed", "kept", "seconds", "model_sha256")
METRICS = ("changed", "kept", "joint")
RIVALS = ("sdedit", "sdedit_caption", "words", "caption", "prompt_to_prompt")
FINE = 40  # validation references on which the best edit's setting is chosen once more
HIT, MISS = "x", "."  # not 1 and 0: a row of digits would be read as one large number
NONE = math.nan  # the setting of a method that has none


@dataclass
class _Run:
    """One evaluation: what is drawn with, and where rows go."""

    benches: dict[str, Bench]  # by split
    items: Table
    table: Table
    methods: Sequence[str]
    seeds: int
    settings: str
    found: dict[tuple[str, str, str], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.items.frame().itertuples():
            if row.settings != self.settings:
                raise ResultsError(
                    f"{self.items.path} holds rows with {row.settings!r}; asked are "
                    f"{self.settings!r}: give another output, or move that file away"
                )
            self._remember(row.split, row.method, row.alpha, row.changed, row.kept, row.seconds)

    def _remember(
        self, split: str, method: str, alpha: float, changed: str, kept: str, seconds: float
    ) -> None:
        self.found[split, method, f"{alpha:.6g}"] = changed, kept, seconds

    def measure(self, split: str, method: str, alpha: float, seeds: int, bar: Any) -> None:
        """Draws and judges one setting, unless it is there, and writes its rows."""
        if not self.items.has(split=split, method=method, alpha=float(alpha)):
            bar.set_postfix_str(f"{method} {'' if math.isnan(alpha) else alpha}, {split}")
            start = time.perf_counter()
            answers = self.benches[split].measure(method, alpha, seeds, bar)
            seconds = (time.perf_counter() - start) / len(answers[0])
            hits = ["".join(HIT if hit else MISS for hit in rows) for rows in answers]
            self.items.add(
                split=split, method=method, alpha=float(alpha), settings=self.settings,
                changed=hits[0], kept=hits[1], seconds=seconds,
            )  # fmt: skip
            self._remember(split, method, alpha, *hits, seconds)
        self._rows(split, method, alpha)

    def hits(self, split: str, method: str, alpha: float) -> dict[str, np.ndarray]:
        """What is changed, kept and both, each (references, kinds, noises) of 0 and 1."""
        rows = self.found[split, method, f"{alpha:.6g}"][:2]
        shape = (-1, len(self.benches[split].references.scenes), len(KINDS))  # noises first
        changed, kept = (
            np.array([letter == HIT for letter in row], float).reshape(shape).transpose(1, 2, 0)
            for row in rows
        )
        return {"changed": changed, "kept": kept, "joint": changed * kept}

    def merit(self, method: str, alpha: float, split: str = "validation") -> tuple[float, float]:
        """The joint score on validation; for equals, changed and kept added up."""
        hits = {name: rows.mean() for name, rows in self.hits(split, method, alpha).items()}
        return float(hits["joint"]), float(hits["changed"] + hits["kept"])

    def chosen(self, method: str) -> float:
        """The setting that did best on validation (`merit`); the first of equals."""
        if method not in GRIDS:
            return NONE
        fine = all(("fine", method, f"{alpha:.6g}") in self.found for alpha in GRIDS[method])
        split = "fine" if fine else "validation"
        return max(GRIDS[method], key=lambda alpha: self.merit(method, alpha, split))

    def best(self) -> str | None:
        """The edit that did best on validation, or None without edits."""
        edits = [m for m in self.methods if m in EDITS]

        def reached(method: str) -> tuple[float, float]:
            return max(self.merit(method, alpha) for alpha in GRIDS[method])

        return max(edits, key=reached, default=None)

    def _rows(self, split: str, method: str, alpha: float) -> None:
        """Rows of one setting: of all kinds and each, mean over a reference's pictures."""
        prefix = {"test": "", "validation": "validation_", "fine": "fine_"}[split]
        seconds = self.found[split, method, f"{alpha:.6g}"][2]
        for metric, hits in self.hits(split, method, alpha).items():
            for kind, part in (("all", hits), *zip(KINDS, hits.transpose(1, 0, 2), strict=True)):
                each = part.reshape(len(part), -1).mean(1)  # (references,)
                self.add(method, kind, alpha, prefix + metric, accuracy(each), seconds)

    def add(
        self, method: str, kind: str, alpha: float, metric: str, found: Interval, seconds: float
    ) -> None:
        key = {"method": method, "kind": kind, "alpha": float(alpha), "metric": metric}
        if not self.table.has(**key):
            self.table.add(**key, **found.as_dict(), seconds=float(seconds))

    def everything(self, progress: bool) -> None:
        """Measures and writes all that lacks: grids on validation, then chosen ones on test.

        The best edit is then drawn at its other settings too, from one noise: its curve.
        """
        from tqdm.auto import tqdm

        noises = {m: 1 if m in ONE_SEED else self.seeds for m in self.methods}
        grids = [("validation", m, a, 1) for m in self.methods for a in GRIDS.get(m, ())]
        edits = {split: len(bench.edits) for split, bench in self.benches.items()}
        total = len(grids) * edits["validation"] + sum(noises.values()) * edits["test"]
        with tqdm(total=total, desc="edits", disable=not progress) as bar:
            for job in grids:
                self._step(bar, *job)
            best = self.best()
            fine = [] if best is None else [("fine", best, a, 1) for a in GRIDS[best]]
            bar.total += len(fine) * edits["fine"]
            for job in fine:
                self._step(bar, *job)
            for method in self.methods:
                alpha = self.chosen(method)
                self._step(bar, "test", method, alpha, noises[method])
                if method in GRIDS:
                    self.say(method, alpha, "chosen")
            if best is not None:
                self.say(best, self.chosen(best), "best")
                curve = [alpha for alpha in GRIDS[best] if alpha != self.chosen(best)]
                bar.total += len(curve) * edits["test"]
                for alpha in curve:
                    self._step(bar, "test", best, alpha, 1)

    def _step(self, bar: Any, split: str, method: str, alpha: float, seeds: int) -> None:
        """Measures one setting and moves the bar to its end, also where nothing was drawn."""
        end = bar.n + seeds * len(self.benches[split].edits)
        self.measure(split, method, alpha, seeds, bar)
        bar.update(end - bar.n)

    def say(self, method: str, alpha: float, what: str) -> None:
        """A row that names a choice made on validation."""
        n = len(self.benches["fine" if what == "best" else "validation"].references.scenes)
        self.add(method, "all", alpha, what, Interval(1.0, 1.0, 1.0, n), 0.0)

    def comparisons(self) -> None:
        """Rows "joint_minus_<rival>" of each edit: paired by reference, over noises both have."""
        for method in (m for m in self.methods if m in EDITS):
            alpha, image = self.chosen(method), f"image_{EDITS[method][0]}"
            ours = self.hits("test", method, alpha)["joint"]
            for rival in (r for r in (*RIVALS, image) if r in self.methods):
                theirs = self.hits("test", rival, self.chosen(rival))["joint"]
                both = min(ours.shape[-1], theirs.shape[-1])
                gap = paired_difference(*(x[..., :both].mean((1, 2)) for x in (ours, theirs)))
                self.add(method, "all", alpha, f"joint_minus_{rival}", gap, 0.0)


def evaluate_editing(
    model: Any = "shapes-sd",
    n: int = 24,
    *,
    seeds: int = 3,
    steps: int = 20,
    guidance: float | None = None,
    methods: Sequence[str] | None = None,
    copies: int | str | None = None,
    pairs: int = 1500,
    device: str = "auto",
    output: Path | str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Return the table results/editing.csv after measuring what it lacks.

    One row per (method, kind, alpha, metric): value and 95 % interval over references (Wilson; for
    "joint_minus_<rival>" the paired bootstrap), seconds per picture. `kind` is "all" or one of
    `KINDS`. `alpha` is the method's setting, whatever its name (`edit_methods`), NaN where it has
    none. `changed`, `kept` and `joint` are of `n` test references: at the chosen setting, which the
    row `chosen` names, from `seeds` noises (bounds: one); at the other settings of the edit that
    the row `best` names, from one. `validation_changed` and so on are what the choices were made
    on: n // 2 other references, one noise; `fine_` rows of the best edit: up to `FINE` more.

    n, seeds        test references, noises of each
    methods         some of `METHODS` (None: all)
    copies          of `edit_prompt`, for all edits; what differs from the default belongs into a
                    file of its own (`output`)
    pairs           training pairs that the alternative inverses are fitted on

    Raises ValueError for n < 4, seeds < 1 or an unknown method, ResultsError where the file holds
    other settings, PenultimateLayerError for SD 2.x.
    """
    from dsd_tutorial.stable_diffusion import load_model

    chosen_methods = tuple(METHODS if methods is None else methods)
    if unknown := [name for name in chosen_methods if name not in METHODS]:
        raise ValueError(f"unknown methods {unknown}; choose among {', '.join(METHODS)}")
    if n < 4 or seeds < 1:
        raise ValueError(f"n={n}, seeds={seeds}: need n >= 4 and seeds >= 1")
    loaded = load_model(model, device=device) if isinstance(model, str | Path) else model
    known = calibrate(loaded, seed=seed, progress=progress)
    trained = collect_pairs(loaded, n=pairs, seed=seed + 1, progress=progress)
    validation = reference_sets(loaded, n, "validation", seed + 2)["one"]
    inverses = choose_inverses(
        loaded, known, trained, validation, alternative=recorded_alternative(loaded), seed=seed
    )
    test = reference_sets(loaded, n, "test", seed + 12)["one"]
    options = {"copies": copies}
    half = References(validation.scenes[: max(2, n // 2)], loaded)
    more = reference_sets(loaded, min(2 * n, FINE), "validation", seed + 77)["one"]
    splits = ("validation", half, 5_000), ("fine", more, 5_000), ("test", test, 0)
    benches = {
        split: Bench(references, inverses, options, steps, guidance, seed + shift)
        for split, references, shift in splits
    }
    path = Path(output) if output is not None else results_folder() / "editing.csv"
    said = {"n": n, "seeds": seeds, "steps": steps, "guidance": guidance, "pairs": pairs}
    said |= {"copies": copies, "fill": "text", "seed": seed}
    settings = ", ".join(f"{k} {v}" for k, v in said.items())
    items_path = path.with_name(f"{path.stem}_items.csv")
    items = Table(items_path, ITEMS, ("split", "method", "alpha"), loaded.sha256)
    table = Table(path, COLUMNS, ("method", "kind", "alpha", "metric"), loaded.sha256)
    run = _Run(benches, items, table, chosen_methods, seeds, settings)
    best = inverses.name
    run.add("edit_alternative", "all", NONE, f"inverse_{best}", Interval(1.0, 1.0, 1.0, n), 0.0)
    run.everything(progress)
    run.comparisons()
    return table.frame()
