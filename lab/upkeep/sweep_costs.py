"""What a sweep costs beside its runs: seconds for each, memory, and what 100,000 runs would take.

`python -m lab.upkeep.sweep_costs` measures with a notebook that does nothing and prints; parts:

entries   plans of 1,000, 10,000 and 100,000 runs: check, resume and tables, for each entry; memory
runs      seconds of a run beyond papermill alone, for a few and for 200
many      a simulation of 100,000 runs on 500 workers, from the costs measured here
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PARAMETERS = (
    'model: str = "shapes-sd"\ndevice: str = "auto"\ndtype: str = "float32"\nseed: int = 0\n'
    'prompt: str = "a red circle"\n'
    "steps: int = 25\nguidance: float = 3.0\nn_images: int = 8"
)


def clone(folder: Path) -> Path:
    """Return a folder that looks like a clone whose notebook 00 does nothing."""
    import nbformat

    v4 = nbformat.v4
    cells = [v4.new_code_cell(PARAMETERS), v4.new_code_cell("pass")]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (folder / "notebooks").mkdir(parents=True)
    (folder / "pyproject.toml").write_text("")
    nbformat.write(
        v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}),
        folder / "notebooks" / "00_orientation.ipynb",
    )
    return folder


def seconds_of(do: Callable[[], Any]) -> float:
    """Return the seconds that something takes."""
    begun = time.perf_counter()
    do()
    return time.perf_counter() - begun


def resident_mb() -> float:
    """Return the memory of this process."""
    return psutil.Process().memory_info().rss / 1e6


def row_of(run: Any) -> dict[str, Any]:
    """Return a row such as a run of notebook 01 leaves: twenty figures with intervals."""
    figures = {f"accuracy/{m}/{t}": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}
               for m in "abcde" for t in "wxyz"}  # fmt: skip
    return {
        "key": run.key, "notebook": run.notebook, "status": "ok", "seconds": 40.0, "peak_mb": 900.0,
        "tries": 1, "parameters": run.values, "figures": figures, "tables": {}, "error": None,
        "error_class": None, "error_cell": None, "output": f"runs/{run.file}", "worker": "w",
        "provenance": {"package": "0", "commit": "0" * 40, "torch": "2", "weights": "0" * 64},
    }  # fmt: skip


def entries(count: int) -> dict[str, float]:
    """Return milliseconds per entry and MB of a plan with `count` runs, all of which are done."""
    from dsd_tutorial.course.sweeps import Costs, Runs, SweepFolder, plan_from_pairs
    from dsd_tutorial.course.sweeps.costs import counted
    from dsd_tutorial.course.sweeps.expanding import source_of

    with tempfile.TemporaryDirectory() as name:
        notebook = str(clone(Path(name) / "clone") / "notebooks" / "00_orientation.ipynb")
        pairs = {"seed": f"0..{count // 10 - 1}", "steps": "1..10"}
        runs = Runs(*plan_from_pairs([notebook], pairs, [source_of(notebook).accepts]))
        before = resident_mb()
        said = {"checked": seconds_of(runs.check)}
        folder = SweepFolder(Path(name) / "sweep")
        with folder.held():
            folder.begin(runs.plan.text())
            with open(folder.journal, "w", encoding="utf-8") as file:
                file.writelines(json.dumps(row_of(run)) + "\n" for run in runs)

            def resume() -> None:
                Costs(row for _, row in folder.lines())
                assert not counted(runs, folder.statuses())

            said["resumed"] = seconds_of(resume)
            said["tables"] = seconds_of(lambda: folder.write_tables(runs))
        said = {name: 1000 * seconds / count for name, seconds in said.items()}
        return {**said, "MB more": resident_mb() - before}


def runs(few: int, many: int) -> dict[str, float]:
    """Return seconds of a run by papermill alone and in sweeps, on one worker; the client's memory.

    The sweeps have `few` and `many` runs.
    """
    import papermill

    with tempfile.TemporaryDirectory() as name:
        here = clone(Path(name) / "clone")
        source = here / "notebooks" / "00_orientation.ipynb"

        def alone() -> None:
            papermill.execute_notebook(
                str(source), str(here / "out.ipynb"), {"steps": 3}, progress_bar=False
            )

        alone()
        said = {"papermill alone, s": sum(seconds_of(alone) for _ in range(few)) / few}
        for count in (few, many):
            command = [sys.executable, "-m", "dsd_tutorial.cli", "sweep", "00", "--workers", "1",
                       "-p", "seed", f"0..{count - 1}", "--name", str(count)]  # fmt: skip
            begun, memory = time.perf_counter(), []
            client = subprocess.Popen(command, cwd=here, stdout=subprocess.DEVNULL)
            while client.poll() is None:
                memory.append(psutil.Process(client.pid).memory_info().rss / 1e6)
                time.sleep(1)
            spent = time.perf_counter() - begun
            lines = (here / "sweeps" / str(count) / "rows.jsonl").read_text().splitlines()
            inside = sum(json.loads(line)["seconds"] for line in lines) / count
            said[f"each of {count} in a sweep, start included, s"] = spent / count
            said[f"each of {count}, by the worker's clock, s"] = inside
            said[f"memory of the client, half of {count} done, MB"] = memory[len(memory) // 2]
            said[f"memory of the client at the end of {count}, MB"] = max(memory)
        return said


# -- a hundred thousand ------------------------------------------------------------------------


@dataclass
class Cluster:
    """What a sweep of many runs would be like, in numbers."""

    hours: float
    ideal_hours: float
    workers_busy: float  # share of their time
    client_busy: float
    scheduler_busy: float
    longest_wait: float  # seconds that a finished run waits to be written down


def simulate(
    count: int, workers: int, run_seconds: Callable[[], float], client: float, scheduler: float
) -> Cluster:
    """Return how `count` runs on `workers` would go.

    Each run costs the client `client` seconds (to unpack, write and force to disk, one after the
    other) and the scheduler `scheduler` seconds; a worker gets its next run once the scheduler has
    seen the end of the last. An eighth more runs than workers are with dask, as in `scheduling`.
    """
    free_scheduler = free_client = busy = wait = 0.0
    window = workers + (workers + 7) // 8
    events = [(0.0, worker) for worker in range(workers)]  # when a worker is free
    heapq.heapify(events)
    written: list[float] = []  # when the client has written the runs that ended, in order
    for number in range(count + workers):
        now, worker = heapq.heappop(events)
        if number >= workers:  # a run has just ended there
            wait = max(wait, free_client - now)
            free_client = max(free_client, now) + client
            written.append(free_client)
        if number >= count:  # no other begins
            heapq.heappush(events, (float("inf"), worker))
            continue
        if number >= window:  # the client submits a run once an earlier one has been written
            now = max(now, written[number - window])
        free_scheduler = max(free_scheduler, now) + scheduler
        spent = run_seconds()
        busy += spent
        heapq.heappush(events, (free_scheduler + spent, worker))
    total = free_client
    return Cluster(
        total / 3600, busy / workers / 3600, busy / workers / total, count * client / total,
        count * scheduler / total, wait,
    )  # fmt: skip


def client_seconds(kilobytes: int = 300, count: int = 50) -> float:
    """Return the client's seconds for a run whose executed notebook has this size."""
    from dsd_tutorial.course.sweeps import SweepFolder
    from dsd_tutorial.course.sweeps.expanding import Run

    packed = zlib.compress(random.Random(0).randbytes(kilobytes * 750).hex().encode(), 1)
    with tempfile.TemporaryDirectory() as name:
        folder = SweepFolder(Path(name) / "sweep")
        with folder.held():
            folder.begin("")

            def write() -> None:
                for number in range(count):
                    run = Run(number, "00_orientation", {"seed": number}, f"{number:016x}")
                    folder.add(row_of(run), zlib.decompress(packed))

            return seconds_of(write) / count


def scheduler_seconds(count: int = 2000) -> float:
    """Return dask's seconds for a task that does nothing, client, scheduler and worker together."""
    from distributed import Client, LocalCluster, as_completed

    with (
        LocalCluster(n_workers=1, threads_per_worker=4, processes=False, memory_limit=0,
                     dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip

        def carry_out() -> None:
            todo = iter(range(count))
            flying = as_completed(
                client.submit(abs, i, pure=False) for i, _ in zip(todo, range(5), strict=False)
            )
            for _ in flying:
                following = next(todo, None)
                if following is not None:
                    flying.add(client.submit(abs, following, pure=False))

        return seconds_of(carry_out) / count


def main(arguments: list[str] | None = None) -> int:
    """The exit status, after the measurements were printed."""
    parser = argparse.ArgumentParser(prog="python -m lab.upkeep.sweep_costs", description=__doc__)
    parser.add_argument("parts", nargs="*", default=["entries", "runs", "many"])
    parser.add_argument("--entries", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--many", type=int, default=200, help="runs of the larger sweep")
    given = parser.parse_args(arguments)
    if "entries" in given.parts:
        for count in given.entries:
            said = ", ".join(f"{name} {value:.3f}" for name, value in entries(count).items())
            print(f"{count:7,} entries: ms each: {said}", flush=True)
    if "runs" in given.parts:
        for name, value in runs(10, given.many).items():
            print(f"{name:50} {value:.2f}", flush=True)
    if "many" in given.parts:
        client, scheduler = client_seconds(), scheduler_seconds()
        print(f"a run costs the client {1000 * client:.1f} ms, dask {1000 * scheduler:.1f} ms")
        for mean in (20, 60, 150):
            draw = random.Random(0)
            found = simulate(
                100_000, 500, lambda d=draw, m=mean: d.lognormvariate(0, 0.4) * m, client, scheduler
            )
            print(f"100,000 runs of about {mean} s on 500 workers: {found}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
