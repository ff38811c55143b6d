"""Where measurements of customisation go: one file of items, one of means with intervals.

customization_items.csv holds what each reference got, a row per measurement, so that a run that was
interrupted can go on and still compare pair by pair; customization.csv holds the reported rows.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.course.records import ResultsError, Table
from dsd_tutorial.matching.metrics import Interval, accuracy, paired_difference
from dsd_tutorial.shapes.judge import judge
from dsd_tutorial.variation.fidelity import kept

COLUMNS = (
    "method", "metric", "steps", "value", "low", "high", "n", "seconds", "parameters",
    "model_sha256",
)  # fmt: skip
ITEMS = ("method", "metric", "steps", "settings", "values", "seconds", "parameters", "model_sha256")
KEYS = ("method", "metric", "steps")
ATTRIBUTES = ("shape", "color", "texture", "background")


class Book:
    """Both tables of one evaluation. Raises ResultsError where the items have other settings."""

    def __init__(self, path: Path, sha256: str, settings: str):
        self.settings = settings
        self.items = Table(path.with_name(f"{path.stem}_items.csv"), ITEMS, KEYS, sha256)
        self.table = Table(path, COLUMNS, KEYS, sha256)
        self._values: dict[tuple[str, str, int], Tensor] = {}
        for row in self.items.frame().itertuples():
            if row.settings != settings:
                raise ResultsError(
                    f"{self.items.path} holds rows with {row.settings!r}; asked are {settings!r}: "
                    "give another output, or move that file away"
                )
            self._values[row.method, row.metric, row.steps] = _numbers(row.values)
            self._report(row.method, row.metric, row.steps, row.seconds, row.parameters)

    def values(self, method: str, metric: str, steps: int) -> Tensor | None:
        """Return what each item got, (items,), or None where it was not measured."""
        return self._values.get((method, metric, steps))

    def note(
        self,
        method: str,
        metric: str,
        steps: int,
        values: Tensor,
        seconds: float = 0.0,
        parameters: int = 0,
    ) -> None:
        """Write what each item got, (items,), and its mean with interval; once."""
        if (method, metric, steps) in self._values:
            return
        cost = {"seconds": float(seconds), "parameters": int(parameters)}
        written = " ".join(f"{v:.6g}" for v in values.tolist())
        self.items.add(
            method=method, metric=metric, steps=steps, settings=self.settings,
            values=f"[{written}]", **cost,
        )  # fmt: skip
        self._values[method, metric, steps] = _numbers(f"[{written}]")
        self._report(method, metric, steps, **cost)

    def _report(
        self, method: str, metric: str, steps: int, seconds: float, parameters: int
    ) -> None:
        how = "bootstrap" if metric == "error" else "wilson"  # errors are no shares
        found = accuracy(self._values[method, metric, steps], how)
        self.add(method, metric, steps, found, seconds, parameters)

    def add(
        self,
        method: str,
        metric: str,
        steps: int,
        found: Interval | float,
        seconds: float = 0.0,
        parameters: int = 0,
    ) -> None:
        """Write a row of the reported table, unless it is there; a number is its own interval."""
        if self.table.has(method=method, metric=metric, steps=steps):
            return
        if not isinstance(found, Interval):
            found = Interval(float(found), float(found), float(found), 1)
        self.table.add(
            method=method, metric=metric, steps=steps, **found.as_dict(),
            seconds=float(seconds), parameters=int(parameters),
        )  # fmt: skip

    def number(self, method: str, metric: str, steps: int) -> float | None:
        """Return the value of a reported row, such as a chosen learning rate, or None."""
        frame = self.table.frame()
        rows = frame[(frame.method == method) & (frame.metric == metric) & (frame.steps == steps)]
        return None if rows.empty else float(rows.value.iloc[0])

    def compare(
        self,
        metric: str,
        a: tuple[str, str, int],
        b: tuple[str, str, int],
        method: str | None = None,
        steps: int | None = None,
    ) -> None:
        """Write the paired difference a - b of two measurements on the same items, if both exist.

        The row carries `method` and `steps`, by default those of `a`.
        """
        first, second = self.values(*a), self.values(*b)
        if first is not None and second is not None and len(first) == len(second):
            found = paired_difference(first, second)
            self.add(method or a[0], metric, a[2] if steps is None else steps, found)


def shares(images: Tensor, scenes: list[Any]) -> dict[str, Tensor]:
    """Return metric -> (references,): the share of a reference's pictures that keep it.

    images (references, seeds, 3, height, width). "fidelity": number of objects, shape, colour,
    texture and background, all in one picture; then each of these attributes alone.
    """
    verdicts = iter(judge(images.flatten(0, 1)))
    found: dict[str, list[list[float]]] = {"fidelity": [], **{name: [] for name in ATTRIBUTES}}
    for scene in scenes:
        rows = [kept(next(verdicts), scene) for _ in range(images.shape[1])]
        found["fidelity"].append([r["objects"] * r["texture"] * r["background"] for r in rows])
        for name in ATTRIBUTES:
            found[name].append([r[name] for r in rows])
    return {name: torch.tensor(rows).mean(1) for name, rows in found.items()}


def merit(found: dict[str, Tensor]) -> float:
    """Return the mean of the single attributes: what choices are made by, finer than fidelity."""
    return math.fsum(float(found[name].mean()) for name in ATTRIBUTES) / len(ATTRIBUTES)


def _numbers(written: str) -> Tensor:
    return torch.tensor([float(v) for v in written.strip("[]").split()], dtype=torch.float64)
