"""A sweep carried out: dask starts, places, repeats and fetches; we say what is still to do.

The dask cluster is one that is there already, or workers on this machine for one sweep.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsd_tutorial.course.sweeps.costs import Costs, counted, machine_mb, workers_that_fit
from dsd_tutorial.course.sweeps.expanding import Runs
from dsd_tutorial.course.sweeps.flight import LOCAL_SHARE, Flight, NoScheduler
from dsd_tutorial.course.sweeps.folder import FAILED, OK, SweepFolder
from dsd_tutorial.course.sweeps.jobs import ONE_THREAD
from dsd_tutorial.course.sweeps.showing import Showing

CONNECT = 20  # seconds in which a scheduler must answer


@dataclass
class Ended:
    """How a sweep ended: how many runs are fine, have failed, are to do; and whether by Ctrl-C."""

    ok: int
    failed: int
    to_do: int
    stopped: bool


def sweep(
    runs: Runs,
    folder: SweepFolder,
    total: int,
    scheduler: str | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
) -> Ended:
    """How it ended. `folder` is held by the caller, and `total` what `runs.check()` has counted.

    Args:
        runs: Of the plan, checked.
        folder: Where everything is kept; what has finished there is not done again.
        total: The number of runs.
        scheduler: Address of a dask scheduler; None: workers on this machine, for this sweep.
        workers: How many on this machine; None: as many as cores and memory allow.
        retry_failed: Whether failed runs are tried again.

    Raises:
        NoScheduler: it does not answer, or was lost on the way.
        OutputError: the folder cannot be written to any more.
    """
    statuses = folder.statuses()
    costs = Costs(row for _, row in folder.lines())
    over = {k for k, (status, _) in statuses.items() if status == OK
            or (status == FAILED and not retry_failed)}  # fmt: skip
    wanted = counted(runs, over)
    if not wanted:
        folder.write_tables(runs)
        return _counted(runs, folder, False)
    peak = max(costs.of(name).peak_mb for name in wanted)
    with ExitStack() as stack:
        local = None if scheduler else workers or workers_that_fit(peak, sum(wanted.values()))
        client = stack.enter_context(
            cluster_of(runs, scheduler, local, folder.path.resolve() / "workers.log")
        )
        showing = Showing(total, runs.plan.varied, client.dashboard_link or "")
        showing.seconds_each = max(costs.of(name).seconds for name in wanted)
        for run in runs:
            status = statuses.get(run.key, ("", 0))[0] if run.key in over else ""
            showing.done += status == OK
            showing.failed += status == FAILED
        memory_mb = runs.plan.limits.memory_gb and 1000 * runs.plan.limits.memory_gb
        if memory_mb is None and local:
            memory_mb = LOCAL_SHARE * machine_mb() / local
        flight = Flight(client, runs, folder, showing, statuses, memory_mb, bool(local))
        stack.enter_context(showing)
        stack.enter_context(flight.interruptible())
        try:
            flight.carry_out(run for run in runs if run.key not in over)
        finally:
            folder.write_tables(runs)
    return _counted(runs, folder, flight.stopping)


def _counted(runs: Runs, folder: SweepFolder, stopped: bool) -> Ended:
    statuses = folder.statuses()
    found = [statuses.get(run.key, ("",))[0] for run in runs]
    ok, failed = found.count(OK), found.count(FAILED)
    return Ended(ok, failed, len(found) - ok - failed, stopped)


@contextmanager
def cluster_of(runs: Runs, scheduler: str | None, workers: int | None, log: Path) -> Iterator[Any]:
    """Yield a client of a cluster: the one with this address, or one of our own."""
    from dask import config
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        where: Any = scheduler
        if where is None:
            stack.enter_context(config.set({"distributed.scheduler.worker-saturation": 1.0}))
            where = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    memory_limit=0,  # kernels are watched, each by its worker
                    dashboard_address="127.0.0.1:0",
                    resources=runs.plan.resources or None,
                    env=ONE_THREAD,
                    silence_logs=50,
                )
            )
        try:
            client = stack.enter_context(Client(where, timeout=CONNECT, set_as_default=False))
        except (OSError, ValueError) as error:
            raise NoScheduler(
                f"no dask scheduler answers at {scheduler} ({type(error).__name__}): start one "
                "with `dask scheduler`, or leave --scheduler out to use this machine."
            ) from None
        if scheduler is None:
            client.register_plugin(_apart(log))
        yield client


def _apart(log: Path) -> Any:
    """What keeps the terminal's Ctrl-C from our own workers, and their words from the terminal.

    It is this process that ends them; what they and their kernels print goes to a file.
    """
    from distributed import WorkerPlugin

    class Apart(WorkerPlugin):
        name = "dsd-tutorial-apart"

        def setup(self, worker: Any) -> None:
            with open(log, "ab") as file:
                for stream in (1, 2):
                    os.dup2(file.fileno(), stream)
            with suppress(AttributeError, OSError):  # Windows has no sessions
                os.setsid()

    return Apart()
