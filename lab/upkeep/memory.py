"""Whether notebooks run where Binder runs them: a Jupyter server and a kernel within 2 GB.

`python -m lab.upkeep.memory` starts JupyterLab, executes each notebook at its defaults beside it,
and prints the largest memory that all processes held together. Where the system lets us (root on
Linux, cgroups), both stand under a limit that the kernel of the system enforces: who exceeds it is
ended. Elsewhere the sum is watched, and the last line says so.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from dsd_tutorial.course.notebooks import all_notebooks, find_notebook

LIMIT_MB = 2000
LOOK = 0.2  # seconds between two looks
START = 20.0  # seconds until JupyterLab is up
V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
FILES = {V1: ("memory.limit_in_bytes", "total_rss"), V2: ("memory.max", "anon")}


class Group:
    """A control group with a limit on memory; its processes are those that `enter` it."""

    def __init__(self, root: Path, limit: int):
        limiting, self._counted = FILES[root]
        self.folder = root / f"dsd-tutorial-{os.getpid()}"
        self.folder.mkdir()
        (self.folder / limiting).write_text(str(limit))

    def enter(self) -> None:
        """Put this process, and what it starts, into the group."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def held(self) -> int:
        """Bytes that its processes hold, files that could be dropped not counted."""
        lines = (self.folder / "memory.stat").read_text().splitlines()
        return int(dict(map(str.split, lines))[self._counted])

    def close(self) -> None:
        """Take the group away; nothing runs in it any more."""
        with suppress(OSError):
            self.folder.rmdir()


def group(limit: int) -> Group | None:
    """A control group, or None where the system gives us none."""
    for root in (V1, V2):
        with suppress(OSError):
            return Group(root, limit)
    return None


@contextmanager
def server(limits: Group | None) -> Iterator[subprocess.Popen]:
    """JupyterLab, running in the group."""
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, preexec_fn=limits and limits.enter, **quiet)
    try:
        time.sleep(START)
        yield process
    finally:
        process.terminate()
        process.wait()


def held_by(processes: list[subprocess.Popen]) -> int:
    """Bytes that processes and their children hold."""
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            top = psutil.Process(process.pid)
            for each in [top, *top.children(recursive=True)]:
                total += each.memory_info().rss
    return total


def measure(notebook: Path, output: Path, limits: Group | None, beside: subprocess.Popen) -> tuple:
    """(exit status, seconds, largest bytes) of one notebook beside the server."""
    command = [sys.executable, "-m", "dsd_tutorial.course.running", str(notebook)]
    start, most = time.perf_counter(), 0
    process = subprocess.Popen(
        [*command, "--output", str(output)], preexec_fn=limits and limits.enter
    )
    while process.poll() is None:
        most = max(most, limits.held() if limits else held_by([process, beside]))
        time.sleep(LOOK)
    return process.returncode, time.perf_counter() - start, most


def main() -> int:
    """The exit status: 0 when every notebook stayed within the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", help="names (default: all)")
    parser.add_argument("--limit", type=int, default=LIMIT_MB, help="MB")
    parser.add_argument("--output", type=Path, default=Path("build") / "memory")
    given = parser.parse_args()
    paths = [find_notebook(name) for name in given.notebooks]
    limits, bad = group(given.limit * 1_000_000), 0
    with server(limits) as running:
        for path in paths or [n.path for n in all_notebooks()]:
            status, seconds, most = measure(path, given.output, limits, running)
            ok = status == 0 and most <= given.limit * 1_000_000
            bad += not ok
            said = f"{path.stem:32}{seconds:7.0f} s {most / 1e6:7.0f} MB"
            print(f"{said}  {'ok' if ok else 'failed'}", flush=True)
    if limits:
        limits.close()
    print("enforced by a control group" if limits else "watched only: no control group here")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
