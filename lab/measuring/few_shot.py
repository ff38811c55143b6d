"""Measures few-shot methods: `python -m lab measure few-shot` -> results/few_shot.csv.

All methods on the same test items, from the same labelled ones: at one number of shots on every
task, and at several (the shots curve) on one. Choices are made on the validation items. What was
measured is on disk at once, so that Ctrl-C loses one method at the most and the next run goes on.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsd_tutorial.course.few_shot import verdicts
from dsd_tutorial.course.records import Table, results_folder
from dsd_tutorial.shapes.tasks import TASKS
from lab.measuring import few_shot_tables as tables
from lab.measuring.few_shot_bench import Bench, Outcome
from lab.measuring.few_shot_cache import Store
from lab.measuring.few_shot_methods import BY_PASSES, CACHED, ON_CLIP, RUNNERS, ZERO_SHOT

CURVE_METHODS = (*ON_CLIP, *CACHED)  # what learns within seconds
# A first look in minutes, to be written elsewhere than to results/: pass an `output`.
QUICK: dict[str, Any] = {"n_items": 100, "seeds": (0,), "methods": (*ZERO_SHOT, *CURVE_METHODS)}


@dataclass(frozen=True)
class Plan:
    """What is to be measured, and in which order."""

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    shots: int
    seeds: tuple[int, ...]
    curve_task: str | None
    curve_shots: tuple[int, ...]

    def groups(self) -> Iterator[tuple[str, str, int]]:
        """Yield (task, method, shots): what is slow comes last, over all tasks."""
        for slow in (False, True):
            for task in self.tasks:
                for method in self.methods:
                    if (method in BY_PASSES) == slow:
                        yield from ((task, method, shots) for shots in self._shots(task, method))

    def _shots(self, task: str, method: str) -> list[int]:
        if method in ZERO_SHOT:
            return [0]
        curve = task == self.curve_task and method in CURVE_METHODS
        return list(dict.fromkeys([self.shots, *(self.curve_shots if curve else ())]))

    def jobs(self) -> Iterator[dict[str, Any]]:
        """Yield the key of every row of few_shot_items.csv."""
        for task, method, shots in self.groups():
            for seed in (0,) if method in ZERO_SHOT else self.seeds:
                yield {"task": task, "method": method, "shots": shots, "seed": seed}

    def most(self, task: str) -> int:
        """Return the largest number of labelled items that any method looks at."""
        return max(self.shots, *(self.curve_shots if task == self.curve_task else (0,)))

    def check(self, n_items: int) -> None:
        """Raise ValueError for what is not known or too small."""
        for what, values, known in (
            ("tasks", self.tasks, TASKS), ("methods", self.methods, tuple(RUNNERS)),
            ("curve_task", (self.curve_task,), (*TASKS, None)),
        ):  # fmt: skip
            if strange := [value for value in values if value not in known]:
                allowed = ", ".join(str(name) for name in known)
                raise ValueError(f"unknown {what} {', '.join(strange)}; choose from {allowed}")
        if n_items < 1 or min(self.shots, *self.curve_shots, self.shots) < 1 or not self.seeds:
            raise ValueError(
                f"n_items={n_items}, shots={self.shots}, curve_shots={self.curve_shots}, "
                f"seeds={self.seeds}: need one item, shot and seed at least"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={self.seeds}: the same seed twice is no second sample")


def evaluate_few_shot(
    model: Any = "shapes-sd",
    *,
    tasks: Sequence[str] = TASKS,
    methods: Sequence[str] = tuple(RUNNERS),
    shots: int = 16,
    seeds: Sequence[int] = (0, 1, 2),
    n_items: int = 300,
    curve_task: str | None = "comvg",
    curve_shots: Sequence[int] = (1, 2, 4, 8, 16, 32),
    steps: int = 6,
    updates: int = 40,
    fit_steps: int = 2,
    device: str = "auto",
    output: Path | str | None = None,
    cache: Path | str = Path("build") / "few_shot",
    progress: bool = True,
) -> Path:
    """Return the path of few_shot.csv after measuring what it and the tables beside it lack.

    tasks, methods     of `TASKS` and `RUNNERS`; methods that learn nothing are measured once
    shots, seeds       labelled items, and the seeds that draw them (and starts, and batches)
    curve_task, curve_shots    where else `CURVE_METHODS` are measured; None for no curve
    steps              time steps of what is computed once and read by most methods
    updates, fit_steps    optimiser steps and time steps of what needs passes of its own
                       (`BY_PASSES`): on two cores the larger part of the time
    output, cache      few_shot.csv (default: results/); folder of what was computed

    unet_passes, labels and seconds are what the method *alone* would need: fitting it, choosing on
    the validation items and scoring the test items, although most of it was computed once for all.
    Raises ValueError for unknown names, ResultsError where the tables hold rows of other settings.
    """
    from dsd_tutorial.stable_diffusion import load_model

    curve = tuple(curve_shots) if curve_task is not None else ()
    plan = Plan(tuple(tasks), tuple(methods), shots, tuple(seeds), curve_task, curve)
    plan.check(n_items)
    loaded = load_model(model, device=device) if isinstance(model, str | Path) else model
    path = Path(output) if output is not None else results_folder() / "few_shot.csv"
    items = Table(
        tables.beside(path, "items"), tables.ITEMS, (*tables.NAMED, "seed"), loaded.sha256
    )
    settings = f"{steps} time steps, {updates} updates on {fit_steps}"
    tables.refuse_mixture(items.frame(), n_items, settings, items.path)
    batch = 32 if loaded.device.type == "cpu" else 256
    store = Store(loaded, Path(cache), steps, batch_size=batch, progress=progress)
    benches = {
        task: Bench(task, store, n_items, plan.most(task), updates, fit_steps, progress)
        for task in plan.tasks
    }
    summary = _fresh(path, tables.SUMMARY, tables.NAMED, loaded.sha256)
    choice = Table(
        tables.beside(path, "choice"), tables.CHOICE, (*tables.NAMED, "seed"), loaded.sha256
    )
    for group in items.frame()[list(tables.NAMED)].drop_duplicates().itertuples(index=False):
        _summarise(summary, items, plan, *group)
    try:
        _measure(plan, benches, items, summary, settings, progress)
        _cross_fit(plan, benches, choice, progress)
    finally:
        write_bars(path, items, choice, plan)
    return path


def _cross_fit(plan: Plan, benches: dict[str, Bench], choice: Table, progress: bool) -> None:
    """Fill the table by which an adapter is chosen: see `Bench.halves`.

    Candidates are the adapters that read what was computed once: to fit the others twice more would
    take an hour. Their gains stand in few_shot_bars.csv beside that of the chosen one.
    """
    from tqdm.auto import tqdm

    keys = ("task", "method", "shots", "seed")
    jobs = [
        dict(zip(keys, (task, method, plan.shots, seed), strict=True))
        for task in plan.tasks for method in plan.methods if method in CACHED
        for seed in plan.seeds
    ]  # fmt: skip
    todo = [job for job in jobs if not choice.has(**job)]
    # once per task: what a half chose among several hundred readings serves all methods and seeds
    halves = {task: benches[task].halves() for task in dict.fromkeys(job["task"] for job in todo)}
    for job in tqdm(todo, "choosing an adapter", disable=not progress):
        found = [
            measure_one(half, job["method"], plan.shots, job["seed"]).hits
            for half in halves[job["task"]]
        ]
        hits = [float(hit) for half in found for hit in half]
        choice.add(**job, accuracy=sum(hits) / len(hits), n=len(hits))


def _measure(
    plan: Plan, benches: dict[str, Bench], items: Table, summary: Table, settings: str,
    progress: bool,
) -> None:  # fmt: skip
    """Fill the table of items, and the summary with each group that is complete."""
    from tqdm.auto import tqdm

    todo = [job for job in plan.jobs() if not items.has(**job)]
    with tqdm(todo, "few-shot", disable=not progress) as bar, interrupts() as check:
        for job in bar:
            bar.set_postfix_str(f"{job['method']} on {job['task']}, {job['shots']} shots")
            outcome = measure_one(benches[job["task"]], job["method"], job["shots"], job["seed"])
            check()  # before anything is written
            tables.add_outcome(items, job, settings, outcome)
            _summarise(summary, items, plan, job["task"], job["method"], job["shots"])


def measure_one(bench: Bench, method: str, shots: int = 16, seed: int = 0) -> Outcome:
    """Return the `Outcome` of one method, as the table has it: for who wants to recompute a row.

    bench = Bench("comvg", Store(model, Path("build/few_shot")))
    measure_one(bench, "head_weights").hits.mean()

    A method of `ZERO_SHOT` takes no shots, whatever is given. Raises ValueError if unknown.
    """
    if method not in RUNNERS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(RUNNERS)}")
    return RUNNERS[method](bench, 0 if method in ZERO_SHOT else shots, seed)


def _fresh(path: Path, columns: Sequence[str], keys: Sequence[str], sha256: str) -> Table:
    """An empty table at `path`; rows of other weights were moved aside, as `Table` does."""
    Table(path, columns, keys, sha256)
    path.unlink(missing_ok=True)
    return Table(path, columns, keys, sha256)


def _summarise(summary: Table, items: Table, plan: Plan, task: str, method: str, shots: int):
    """Add the group's row if all its seeds are there and the row is not."""
    if summary.has(task=task, method=method, shots=shots):
        return
    row = tables.summary_row(items.frame(), task, method, shots, plan.seeds)
    if row is not None:
        summary.add(**row)


def write_bars(path: Path, items: Table, choice: Table, plan: Plan) -> Path:
    """Return the path of few_shot_bars.csv beside `path`, written anew from the other tables."""
    target = tables.beside(path, "bars")
    table = _fresh(target, tables.BARS, ("task", "comparison", "adapter"), items.sha256)
    for row in verdicts(items.frame(), choice.frame(), plan.shots, plan.seeds):
        table.add(**row)
    return target


@contextmanager
def interrupts() -> Iterator[Callable[[], None]]:
    """Yield a function that raises KeyboardInterrupt if Ctrl-C was pressed inside the block.

    A training loop obeys Ctrl-C by keeping the best so far. Half a training must not pass for a
    measurement, so the table asks again here.
    """
    pressed: list[int] = []

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check  # only the main thread may listen to signals
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        pressed.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
