"""The runner behind every table: items, each measured once, however often a run is killed.

An item that the table holds is done. Of all others the cache is asked first: it knows them by all
that determines their rows (weights, settings, version of the code, the item). Only what it lacks is
computed; it then lies on the disk before the table is written, and both appear whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from dsd_tutorial.course.records import results_folder
from dsd_tutorial.saving import save_tensors, write_json
from lab.measuring.plans import Options, Plan, PlanType
from lab.measuring.tables import Row, Table, publish, require_results_file

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Item:
    """One measurement of a table.

    key      a row that it makes, by the table's key columns: where that row is, the item is done
    measure  returns its rows
    cost     how much there is to do, in the runner's unit
    """

    key: Row
    measure: Callable[[], list[Row]]
    cost: float = 1.0

    def __str__(self) -> str:
        return " ".join(str(value) for value in self.key.values())


class Cache:
    """Rows and tensors on disk, under everything that `determines` them and their own key."""

    def __init__(self, folder: Path | str, name: str, **determines: Any):
        self.folder = Path(folder) / name / _digest(determines)

    def path(self, key: Mapping[str, Any], ending: str) -> Path:
        """Return the file of a key, such as "comvg-clip-0-0-1a2b3c4d.json"."""
        words = "-".join("".join(filter(str.isalnum, str(v)))[:20] for v in key.values())
        return self.folder / f"{words}-{_digest(key)}{ending}"

    def rows(self, key: Mapping[str, Any]) -> list[Row] | None:
        """Return the rows of an item, or None where it was not measured."""
        path = self.path(key, ".json")
        return json.loads(path.read_text())["rows"] if path.exists() else None

    def keep(self, key: Mapping[str, Any], rows: list[Row], cost: float, seconds: float) -> None:
        """Write the rows of an item, and how long they took."""
        content = {"key": key, "rows": rows, "cost": cost, "seconds": seconds}
        write_json(self.path(key, ".json"), content)

    def pace(self) -> float | None:
        """Return the seconds that a unit of cost took so far, or None if nothing was measured."""
        done = [json.loads(path.read_text()) for path in self.folder.glob("*.json")]
        cost = sum(one["cost"] for one in done)
        return sum(one["seconds"] for one in done) / cost if cost else None

    def tensors(
        self, key: Mapping[str, Any], compute: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return named tensors, computed where the cache has none that can be read."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.path(key, ".safetensors")
        try:
            return load_file(path)
        except (FileNotFoundError, SafetensorError):
            found = compute()
            save_tensors(found, path)
            return found


class Runner:
    """Measures the items of one table, and of the tables beside it.

    Args:
        name: Of the table, as in results/<name>.csv.
        model: A loaded model, a name, a hub id or a folder.
        plan: All that determines rows beside weights, code and the item's key.
        options: See `Options`.
        version: Of the code: one more when a change of it changes rows.
        unit: What the costs of items count.
    """

    def __init__(
        self, name: str, model: Any, plan: Plan, options: Options, *, version: int = 1,
        unit: str = "images",
    ):  # fmt: skip
        from dsd_tutorial.stable_diffusion import load_model

        self.name, self.unit, self.options = name, unit, options
        by_name = isinstance(model, str | Path)
        self.model = load_model(model, device=options.device) if by_name else model
        self.settings = plan.settings + (f", version {version}" if version > 1 else "")
        self.cache = self.open_cache(name, version=version, **plan.model_dump())

    def open_cache(self, name: str, **determines: Any) -> Cache:
        """Return a cache beside its own, of what these weights and all that is given determine."""
        return Cache(self.options.cache, name, weights=self.model.sha256, **determines)

    def path(self, beside: str = "") -> Path:
        """Return the csv file, or that of a table beside it."""
        path = Path(self.options.output or results_folder() / f"{self.name}.csv")
        return path.with_name(f"{path.stem}_{beside}.csv") if beside else path

    def table(
        self, columns: Sequence[str], keys: Sequence[str], beside: str = "", stamped: bool = False
    ) -> Table:
        """Return results/<name>.csv, or results/<name>_<beside>.csv; `stamped` with settings.

        Raises OutputError or ResultsError where the table cannot be written there.
        """
        require_results_file(self.path())
        settings = self.settings if stamped else None
        return Table(self.path(beside), columns, keys, self.model.sha256, settings, beside)

    def publish(self, rows: Sequence[Row], beside: str = "") -> None:
        """Write a table that is made from others as a whole."""
        publish(self.path(beside), rows, self.model.sha256)

    def write(
        self, items: Sequence[Item], columns: Sequence[str], keys: Sequence[str], **how: Any
    ) -> Path:
        """Return the csv file after adding what it lacks of the items; `how` as in `table`."""
        self.run(items, self.table(columns, keys, **how))
        return self.path()

    def run(self, items: Sequence[Item], table: Table | None = None) -> list[Row]:
        """Return the rows of all items that `table` lacks, after adding them to it.

        They are measured one after another: an item may read what those before it wrote.
        """
        part = "" if table is None else table.part
        todo = [item for item in items if table is None or not table.has(**item.key)]
        new = [item for item in todo if self.cache.rows({"of": part, **item.key}) is None]
        self._say(len(items), new)
        found, how = [], {"unit": " " + self.unit, "disable": not self.options.progress}
        total = sum(item.cost for item in todo)
        with tqdm(total=total, desc=self.name, **how) as bar, interrupts() as check:
            for item in todo:
                bar.set_postfix_str(str(item))
                found += (rows := self._rows(item, part, check))
                if table is not None:
                    table.add(rows)
                bar.update(item.cost)
        return found

    def _rows(self, item: Item, part: str, check: Callable[[], None]) -> list[Row]:
        key = {"of": part, **item.key}  # two tables of one run may have the same keys
        if (rows := self.cache.rows(key)) is None:
            started = perf_counter()
            rows = item.measure()
            check()  # before anything is written
            self.cache.keep(key, rows, item.cost, perf_counter() - started)
        return rows

    def _say(self, count: int, new: Sequence[Item]) -> None:
        """Print how much is to be measured, and about how long it takes."""
        if not self.options.progress:
            return
        cost, pace = sum(item.cost for item in new), self.cache.pace()
        text = f"{self.name}: {count} measurements, {count - len(new)} are there"
        if new:
            text += f"; to do: {len(new)} ({cost:,.0f} {self.unit})"
            text += "" if pace is None else f", about {max(1, round(cost * pace / 60))} minutes"
        tqdm.write(text)


def measures(
    name: str, plan: type[PlanType], *, version: int = 1, unit: str = "images"
) -> Callable[[Callable[[Runner, PlanType], Measured]], Callable[..., Measured]]:
    """Return a decorator: `measure(runner, plan)` becomes `evaluate(model="shapes-sd", **values)`.

    `values` are those of the plan and of `Options`; ValueError names those that are not allowed.
    Arguments are those of `Runner`. The plan's class is kept as `evaluate.plan`.
    """

    def decorate(measure: Callable[[Runner, PlanType], Measured]) -> Callable[..., Measured]:
        @wraps(measure)
        def evaluate(model: Any = "shapes-sd", **values: Any) -> Measured:
            checked, options = Options.split(plan, values)
            return measure(
                Runner(name, model, checked, options, version=version, unit=unit), checked
            )

        evaluate.plan = plan  # pyright: ignore[reportAttributeAccessIssue]
        return evaluate

    return decorate


def joined(blocks: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of blocks that were computed one after another, name by name."""
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, default=repr).encode()).hexdigest()[:16]


@contextmanager
def interrupts() -> Iterator[Callable[[], None]]:
    """Yield a function that raises KeyboardInterrupt if Ctrl-C was pressed inside the block.

    A training loop obeys Ctrl-C by keeping the best so far. Half a training must not pass for a
    measurement, so the runner asks again.
    """
    pressed: list[int] = []

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    def note(number: int, frame: Any) -> None:
        pressed.append(number)
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
