"""A dask cluster: one that is there already, or workers on this machine for one sweep."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from dsd_tutorial.course.sweeps.expanding import Runs
from dsd_tutorial.course.sweeps.jobs import ONE_THREAD

CONNECT = 20  # seconds in which a scheduler must answer


class NoScheduler(RuntimeError):
    """The dask scheduler is not there, or no more; what has finished is kept."""


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
