"""How much memory a kernel takes, and its end where it takes more than it may."""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_EVERY = 0.1  # seconds between two looks
FAMILY_EVERY = 1.0  # seconds between two counts of children, which read every process there is
OUT_OF_MEMORY, OUT_OF_TIME = "OutOfMemory", "OutOfTime"


@dataclass(frozen=True)
class Limits:
    """What one notebook may take before its kernel is ended; None: as much as there is."""

    memory_mb: float | None = None
    minutes: float | None = None


class Watch:
    """Samples the memory of our child processes (the kernel's tree) in a thread, into `bytes`.

    Where they take more than `limits` allow they are killed, and `broken` says which limit it was.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.bytes = 0
        self.broken: tuple[str, str] | None = None  # (class, sentence)
        self._limits = limits or Limits()
        self._started = time.monotonic()
        self._done = threading.Event()
        self._ours = psutil.Process()
        self._before = set(self._ours.children(recursive=True))
        self._family: set[psutil.Process] = set()
        self._counted = -FAMILY_EVERY
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _kernel(self) -> set[psutil.Process]:
        return set(self._ours.children(recursive=True)) - self._before

    def _look(self) -> None:
        now = time.monotonic()
        if not self._family or now - self._counted > FAMILY_EVERY:
            self._family, self._counted = self._kernel(), now
        total = 0
        for process in self._family:
            with suppress(psutil.Error):  # it ended between the two calls
                total += process.memory_info().rss
        self.bytes = max(self.bytes, total)
        most, minutes = self._limits.memory_mb, self._limits.minutes
        if most is not None and total > most * 1e6:
            self.broken = (OUT_OF_MEMORY, f"it took more than the {most:,.0f} MB it may take")
        elif minutes is not None and now - self._started > 60 * minutes:
            self.broken = (OUT_OF_TIME, f"it took longer than the {minutes:g} minutes it may take")
        if self.broken:
            for process in self._kernel():
                with suppress(psutil.Error):
                    process.kill()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_EVERY):
            self._look()

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()


def processes_killed_for_memory() -> int:
    """How many processes this system has killed since it started because memory ran out."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    except (OSError, StopIteration):
        return 0  # not Linux: nobody says
