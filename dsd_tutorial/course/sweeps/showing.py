"""What is seen of a sweep while it runs: a live table in a terminal, else a line for each run."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dsd_tutorial.course.sweeps.expanding import Run


@dataclass
class Showing:
    """Counts runs as they begin and end, and shows the counts."""

    total: int
    varied: list[str] = field(default_factory=list)
    dashboard: str = ""
    done: int = 0
    failed: int = 0
    workers: int = 0
    seconds_each: float = 0.0  # expected, until runs have ended
    running: dict[str, float] = field(default_factory=dict)  # key -> when it began
    said: str = ""
    _live: Any = None
    _ended: int = 0
    _spent: float = 0.0  # seconds of the runs that have ended

    def __enter__(self) -> Showing:
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(self._table(), refresh_per_second=2)
            self._live.start()
        elif self.dashboard:
            print(f"dashboard: {self.dashboard}", flush=True)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.update(self._table())
            self._live.stop()

    def begun(self, key: str) -> None:
        """A worker has begun a run."""
        self.running[key] = time.monotonic()

    def ended(self, run: Run, row: Mapping[str, Any]) -> None:
        """A run has ended and its row is written."""
        self.running.pop(run.key, None)
        self._ended, self._spent = self._ended + 1, self._spent + row["seconds"]
        if row["status"] == "ok":
            self.done += 1
        elif row["status"] == "failed":
            self.failed += 1
        line = (
            f"[{self.done + self.failed}/{self.total}] run {run.number} {run.notebook} "
            f"{self._values(run)}: {row['status']}, {row['seconds']:.0f} s, "
            f"{row['peak_mb']:.0f} MB"
        )
        line += f"\n    {row['error'].splitlines()[0][:200]}" if row["error"] else ""
        if self._live is None:
            print(line, flush=True)
        elif row["status"] != "ok":
            self._live.console.print(line, highlight=False, markup=False)

    def _values(self, run: Run) -> str:
        """What varies, in a few words: `layers=[up.2.1] seed=3`."""
        chosen = {name: run.values[name] for name in self.varied if name in run.values}
        return " ".join(
            f"{name}=[{', '.join(map(str, x))}]" if isinstance(x, list) else f"{name}={x}"
            for name, x in chosen.items()
        )

    def say(self, line: str) -> None:
        """Tell something beside the table."""
        if self._live is None and line != self.said:
            print(line, flush=True)
        self.said = line

    def tick(self) -> None:
        """Show the counts as they are now."""
        if self._live is not None:
            self._live.update(self._table())

    @property
    def to_go(self) -> int:
        """How many runs have not ended."""
        return self.total - self.done - self.failed

    def expected_end(self) -> datetime | None:
        """When the last run will have ended, if the rest takes as long as what has ended."""
        each = self._spent / self._ended if self._ended else self.seconds_each
        if not each or not self.workers:
            return None
        rest = max(self.to_go * each / self.workers, each if self.to_go else 0)
        return datetime.now() + timedelta(seconds=rest)

    def _table(self) -> Any:
        from rich.table import Table

        end = self.expected_end()
        table = Table(title=self.said or None, title_justify="left")
        for name in ("done", "running", "failed", "to go", "workers", "expected end", "dashboard"):
            table.add_column(name, justify="left" if name == "dashboard" else "right")
        waiting = self.to_go - len(self.running)
        table.add_row(
            *(str(n) for n in (self.done, len(self.running), self.failed, waiting, self.workers)),
            f"{end:%a %H:%M}" if end else "?",
            self.dashboard or "-",
        )
        return table
