"""The runs that are with dask: sent, watched, taken back, and what comes of each written down.

Only a few more runs than there are workers are with dask at any time, so that neither its scheduler
nor this process grows with the plan, and so that Ctrl-C has little to take back.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from dsd_tutorial.course.sweeps.costs import machine_mb
from dsd_tutorial.course.sweeps.expanding import Run, Runs, weights_of
from dsd_tutorial.course.sweeps.folder import AGAIN_ALONE, FAILED, SweepFolder
from dsd_tutorial.course.sweeps.jobs import STARTED, carry_out, out_of_memory
from dsd_tutorial.course.sweeps.showing import Showing

GONE = "the dask scheduler is gone: what has finished is kept."
LOOK = 0.5  # seconds between two looks at workers, Ctrl-C and the clock
TABLES_EVERY = 10.0  # seconds between two writings of runs.csv, or twenty times what one takes
LOCAL_SHARE = 0.9  # of the machine's memory that all kernels together may take


class NoScheduler(RuntimeError):
    """The dask scheduler is not there, or no more; what has finished is kept."""


@contextmanager
def answering() -> Iterator[None]:
    """Inside the block the scheduler is asked for something; it may be gone before it answers.

    Raises:
        NoScheduler: it is.
    """
    from distributed.client import ClosedClientError

    try:
        yield
    except (OSError, CancelledError, ClosedClientError) as error:
        raise NoScheduler(GONE) from error


@dataclass
class Flight:
    """The runs that are with dask, and what comes of each."""

    client: Any
    runs: Runs
    folder: SweepFolder
    showing: Showing
    statuses: dict[str, tuple[str, int]]
    memory_mb: float | None
    local: bool
    stopping: bool = False
    in_flight: dict[Any, Run] = field(default_factory=dict)
    alone: dict[str, Run] = field(default_factory=dict)  # to be tried once more, by key
    _done: queue.Queue = field(default_factory=queue.Queue)
    _begun: set[str] = field(default_factory=set)

    def carry_out(self, pending: Iterator[Run]) -> None:
        """Carry out all of `pending`; those that memory ran out for come last, one at a time."""
        self.client.subscribe_topic(STARTED, self._on_begun)
        self._looked, self._written, self._taken = 0.0, time.monotonic(), 0.0
        together = (run for run in pending if not self._comes_last(run))
        self._fly(together, self._width)
        if not self.stopping:
            self._fly(iter(list(self.alone.values())), lambda: min(1, self._width()))

    def _comes_last(self, run: Run) -> bool:
        if self.statuses.get(run.key, ("",))[0] != AGAIN_ALONE:
            return False
        self.alone[run.key] = run
        return True

    def _fly(self, pending: Iterator[Run], width: Any) -> None:
        left: Run | None = next(pending, None)
        self._look()
        while left is not None or self.in_flight:
            while left is not None and not self.stopping and len(self.in_flight) < width():
                self._submit(left)
                left = next(pending, None)
            if self.stopping:
                self._take_back()
                left = None
            with suppress(queue.Empty):
                self._land(self._done.get(timeout=LOOK))
            self._look()

    def _submit(self, run: Run) -> None:
        source = self.runs.sources[run.notebook]
        parameters = {**source.defaults, **self.runs.injected(run)}
        limits = self.runs.plan.limits
        job = {
            "key": run.key,
            "notebook": run.notebook,
            "source": source.text,
            "values": self.runs.injected(run),
            "parameters": parameters,
            "weights": weights_of(str(parameters.get("model"))),
            "memory_mb": self._raised(run) if run.key in self.alone else self.memory_mb,
            "minutes": limits.minutes,
            "threads": 1,
        }
        with answering():
            future = self.client.submit(
                carry_out,
                job,
                key=f"run-{run.key}-{time.monotonic_ns()}",
                pure=False,
                resources=self.runs.plan.resources or None,
            )
        self.in_flight[future] = run
        future.add_done_callback(self._done.put)

    def _raised(self, run: Run) -> float:
        """The megabytes of a second try: twice what the first one took."""
        (row,) = self.folder.rows([run.key])
        raised = 2 * max((row or {}).get("peak_mb") or 0, self.memory_mb or 0)
        return min(raised, LOCAL_SHARE * machine_mb()) if self.local else raised

    def _land(self, future: Any) -> None:
        """Write down what came of a run."""
        run = self.in_flight.pop(future, None)
        if run is None:  # taken back
            return
        if future.status in ("cancelled", "lost"):
            raise NoScheduler(GONE)
        notebook = None
        if future.status == "error":
            row = self._lost(run, future.exception())
        else:
            with answering():  # what a worker has is asked for through the scheduler
                row, packed = future.result()
            notebook = packed and zlib.decompress(packed)
        row["tries"] = self.statuses.get(run.key, ("", 0))[1] + 1
        row["output"] = f"{self.folder.notebooks.name}/{run.file}" if notebook else None
        row["provenance"] |= {"plan": self.runs.plan.digest()}
        if out_of_memory(row) and run.key not in self.alone:
            row["status"] = AGAIN_ALONE
            self.alone[run.key] = run
        self.folder.add(row, notebook)
        self.statuses[run.key] = (row["status"], row["tries"])
        self._begun.discard(run.key)
        self.showing.ended(run, row)

    def _lost(self, run: Run, error: BaseException | None) -> dict[str, Any]:
        """The row of a run that no worker could end: it took several workers down with it."""
        said = f"{type(error).__name__}: {error}"
        return {
            "key": run.key, "notebook": run.notebook, "status": FAILED, "seconds": 0.0,
            "peak_mb": 0.0, "parameters": run.values, "figures": {}, "tables": {},
            "error": said[-2000:], "error_class": type(error).__name__, "error_cell": None,
            "worker": None, "provenance": {},
        }  # fmt: skip

    # -- workers, Ctrl-C, tables -----------------------------------------------------------------

    def _width(self) -> int:
        """How many runs are with dask: one for each worker, and a few that wait for the next."""
        threads = self.showing.workers
        return threads + (threads + 7) // 8 if threads else 0

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked > (LOOK if not self.showing.workers else 5.0):
            self._looked = now
            if self.client.status not in ("running", "connecting"):
                raise NoScheduler(GONE)
            with suppress(OSError, TimeoutError):  # it may come back
                try:
                    self.showing.workers = sum(self.client.nthreads().values())
                except AttributeError:  # it was closed since the look at its status
                    raise NoScheduler(GONE) from None
            if not self.showing.workers:
                self.showing.say("no worker is there yet: waiting for the first")
        if now - self._written > max(TABLES_EVERY, 20 * self._taken):
            self.folder.write_tables(self.runs)
            self._written = time.monotonic()
            self._taken = self._written - now
        self.showing.tick()

    def _on_begun(self, event: Any) -> None:
        _, key = event
        self._begun.add(key)
        if any(run.key == key for run in list(self.in_flight.values())):
            self.showing.begun(key)

    def _take_back(self) -> None:
        """Take back what no worker has begun; what is running may end."""
        waiting = [f for f, run in self.in_flight.items() if run.key not in self._begun]
        for future in waiting:
            del self.in_flight[future]
        if waiting:
            with answering():
                self.client.cancel(waiting)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside the block the first Ctrl-C starts nothing new, and the second ends everything."""

        def asked(number: int, frame: Any) -> None:
            if self.stopping:
                raise KeyboardInterrupt
            self.stopping = True
            n = len(self.showing.running)
            self.showing.say(
                f"Stopping: {n} running {'run ends' if n == 1 else 'runs end'}, no other begins; "
                "Ctrl-C again ends them at once."
            )

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = [signal.SIGINT, signal.SIGTERM]
        before = [signal.signal(number, asked) for number in signals]
        try:
            yield
        finally:
            for number, handler in zip(signals, before, strict=True):
                with suppress(TypeError):
                    signal.signal(number, handler)
