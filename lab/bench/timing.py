"""Seconds of several ways to do one thing, on a machine that may be busy with other things.

Ways take turns, so that whatever slows the machine slows them all; the fastest of several turns is
the least disturbed one, and ratios of ways are less disturbed than seconds.
"""

from __future__ import annotations

import gc
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import psutil
import torch

Row = dict[str, Any]
FULL = "full size"  # begins the cases of `full_size.py`


@dataclass(frozen=True)
class Timed:
    """The seconds of one way, turn by turn, and what it returned the last time."""

    seconds: tuple[float, ...]
    result: Any

    @property
    def fastest(self) -> float:
        return min(self.seconds)


def interleaved(ways: Mapping[str, Callable[[], Any]], repeats: int = 5) -> dict[str, Timed]:
    """Return the seconds of each way in `repeats` turns; a first turn, not counted, is yours."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            gc.collect()
            began = perf_counter()
            results[name] = way()
            seconds[name].append(perf_counter() - began)
    return {name: Timed(tuple(seconds[name]), results[name]) for name in ways}


def timed_row(case: str, way: str, seconds: Sequence[float], **known: Any) -> Row:
    """Return a row of results/benchmark.csv; of its other columns those that are `known`."""
    return {
        "case": case, "way": way, "device": "cpu", "dtype": "", "cores": torch.get_num_threads(),
        "batch": "", "seconds_min": min(seconds), "seconds_median": median(seconds),
        "repeats": len(seconds), "passes": 0, "peak_mb": round(resident()), "ratio": "",
        "agreement": "", "versions": versions(), **known,
    }  # fmt: skip


def resident(process: int | None = None) -> float:
    """Return the memory of this process, or of that with a number, in MB."""
    return psutil.Process(process).memory_info().rss / 1e6


def versions() -> str:
    """Return what the seconds depend on beside the machine."""
    import diffusers

    return (
        f"python {platform.python_version()}, torch {torch.__version__}, "
        f"diffusers {diffusers.__version__}, {torch.backends.cpu.get_cpu_capability()}"
    )
