"""What runs will take, from what they took: hours, memory, and how many fit side by side."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dsd_tutorial.course.notebooks import NotebookNotFound, all_notebooks
from dsd_tutorial.course.sweeps.expanding import Run

UNKNOWN_MB, UNKNOWN_SECONDS = 1500.0, 120.0  # of a notebook that nobody has measured
RESERVE = 0.15  # of the machine's memory that stays free


@dataclass(frozen=True)
class Cost:
    """What one run of a notebook takes, and how that is known."""

    seconds: float
    peak_mb: float
    known_from: str


class Costs:
    """The cost of one run by notebook: of runs that have ended here, else as `make run` measured.

    Seconds are means, memory is the largest seen.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()):
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._peak: dict[str, float] = defaultdict(float)
        for row in rows:
            name = row["notebook"]
            self._peak[name] = max(self._peak[name], row["peak_mb"] or 0)
            if row["status"] == "ok":
                self._seconds[name].append(row["seconds"])
        try:
            self._measured = {x.name: x for x in all_notebooks()}
        except NotebookNotFound:
            self._measured = {}

    def of(self, notebook: str) -> Cost:
        """What the next run of a notebook is expected to take."""
        peak, known = self._peak[notebook], self._measured.get(notebook)
        if seconds := self._seconds[notebook]:
            return Cost(sum(seconds) / len(seconds), peak, f"{len(seconds)} finished runs")
        if known is not None and known.seconds and known.peak_mb:
            return Cost(known.seconds, max(known.peak_mb, peak), "a run at its defaults")
        return Cost(UNKNOWN_SECONDS, max(UNKNOWN_MB, peak), "a guess")


def counted(runs: Iterable[Run], done: Container[str]) -> dict[str, int]:
    """How many runs of each notebook are still to go, given the keys of those that are done."""
    return dict(Counter(run.notebook for run in runs if run.key not in done))


def cores() -> int:
    """The processors that this process may use."""
    import os

    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers_that_fit(peak_mb: float, runs: int) -> int:
    """How many runs go side by side on this machine: by its cores, and by free memory."""
    import psutil

    free = min(psutil.virtual_memory().available / 1e6, machine_mb()) * (1 - RESERVE)
    return max(1, min(cores(), int(free // max(peak_mb, 1)), runs))


def machine_mb() -> float:
    """The memory that this machine, or the container that we run in, has in all."""
    from distributed.system import MEMORY_LIMIT

    return MEMORY_LIMIT / 1e6
