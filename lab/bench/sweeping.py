"""What a sweep costs beside its runs, with a notebook that does nothing.

Seconds for each entry of a plan, seconds of a run beyond papermill alone, the client's memory; and
a simulation of 100,000 runs on 500 workers from these costs.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from dsd_tutorial.saving import write_json
from lab.bench.timing import Row, resident, timed_row
from lab.upkeep.blocks import ROOT

A_RUN = "sweep, a run that does nothing"
COSTS = "sweep, what a finished run takes"
ENTRIES, FEW, MANY = 10_000, 10, 200
WORKERS = 500  # of the simulation


def clone(folder: Path) -> Path:
    """Return a folder that looks like a clone whose notebook 00 has its parameters and no more."""
    source = Path("notebooks") / "00_orientation.ipynb"
    notebook = json.loads((ROOT / source).read_text(encoding="utf-8"))
    cells = notebook["cells"]
    notebook["cells"] = [x for x in cells if "parameters" in x["metadata"].get("tags", ())]
    write_json(folder / source, notebook)
    (folder / "pyproject.toml").write_text("")
    return folder


def seconds_of(do: Callable[[], Any]) -> float:
    """Return the seconds that something takes."""
    begun = time.perf_counter()
    do()
    return time.perf_counter() - begun


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


def entries(count: int) -> list[Row]:
    """Return a row each for checking, resuming and writing out a plan of `count` finished runs."""
    from dsd_tutorial.course.sweeps import Costs, Runs, SweepFolder, plan_from_pairs
    from dsd_tutorial.course.sweeps.costs import counted
    from dsd_tutorial.course.sweeps.expanding import source_of

    with tempfile.TemporaryDirectory() as name:
        notebook = str(clone(Path(name) / "clone") / "notebooks" / "00_orientation.ipynb")
        pairs = {"seed": f"0..{count // 10 - 1}", "steps": "1..10"}
        runs = Runs(*plan_from_pairs([notebook], pairs, [source_of(notebook).accepts]))
        case = f"sweep, plan of {count:,} runs"
        rows = [timed_row(case, "checked", [seconds_of(runs.check)], cores=1)]
        folder = SweepFolder(Path(name) / "sweep")
        with folder.held():
            folder.begin(runs.plan.text())
            with open(folder.journal, "w", encoding="utf-8") as file:
                file.writelines(json.dumps(row_of(run)) + "\n" for run in runs)

            def resume() -> None:
                Costs(row for _, row in folder.lines())
                assert not counted(runs, folder.statuses())

            rows.append(timed_row(case, "resumed", [seconds_of(resume)], cores=1))
            tables = seconds_of(lambda: folder.write_tables(runs))
            return [*rows, timed_row(case, "tables written", [tables], cores=1)]


def runs(few: int, many: int) -> list[Row]:
    """Return rows of seconds for each run: by papermill alone, and in sweeps on one worker.

    The sweeps have `few` and `many` runs; theirs is the time of the whole command by its runs, and
    the memory is the client's.
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
        each = [seconds_of(alone) for _ in range(few)]
        rows = [timed_row(A_RUN, "papermill alone", each, cores=1, peak_mb="")]
        for count in (few, many):
            command = [sys.executable, "-m", "dsd_tutorial.cli", "sweep", "00", "--workers", "1",
                       "-p", "seed", f"0..{count - 1}", "--name", str(count)]  # fmt: skip
            begun, memory = time.perf_counter(), 0.0
            client = subprocess.Popen(
                command, cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            while client.poll() is None:
                memory = max(memory, resident(client.pid))
                time.sleep(0.5)
            spent = time.perf_counter() - begun
            done = len((here / "sweeps" / str(count) / "rows.jsonl").read_text().splitlines())
            if client.returncode or done != count:
                raise RuntimeError(f"a sweep of {count} runs ended with {done} of them")
            rows.append(timed_row(
                A_RUN, f"in a sweep of {count}", [spent / count], cores=1, repeats=count,
                peak_mb=round(memory),
            ))  # fmt: skip
        first = rows[0]["seconds_min"]
        return [row | {"ratio": first / row["seconds_min"]} for row in rows]


# -- a hundred thousand ------------------------------------------------------------------------


@dataclass
class Cluster:
    """What a sweep of many runs would be like, in numbers."""

    hours: float
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
        total / 3600, busy / workers / total, count * client / total, count * scheduler / total,
        wait,
    )  # fmt: skip


def client_seconds(kilobytes: int = 300, count: int = 50) -> float:
    """Return the client's seconds to write down a run whose executed notebook has this size."""
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


# -- rows and page -----------------------------------------------------------------------------


def sweeps(_: object = None) -> list[Row]:
    """Return the rows of this case; five minutes, most of it for a sweep of 200 runs."""
    client = [client_seconds() for _ in range(3)]
    scheduler = [scheduler_seconds() for _ in range(3)]
    return [
        *entries(ENTRIES),
        *runs(FEW, MANY),
        timed_row(COSTS, "of the client", client, cores=1),
        timed_row(COSTS, "of dask", scheduler, cores=1),
    ]


def page(rows: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """Return what docs/many-runs.md says of it; `rows` by case and way.

    The simulation is carried out here, from the costs in the rows.
    """
    seconds = {key: float(row["seconds_min"]) for key, row in rows.items()}
    plan = f"sweep, plan of {ENTRIES:,} runs"
    each = {way: 1000 * seconds[plan, way] / ENTRIES
            for way in ("checked", "resumed", "tables written")}  # fmt: skip
    few, many = f"in a sweep of {FEW}", f"in a sweep of {MANY}"
    client, scheduler = seconds[COSTS, "of the client"], seconds[COSTS, "of dask"]
    points = [
        f"A run of a notebook that does nothing takes {seconds[A_RUN, 'papermill alone']:.2f} s by "
        f"papermill alone, {seconds[A_RUN, few]:.2f} s each in a sweep of {FEW}, workers' start "
        f"included, and {seconds[A_RUN, many]:.2f} s each in one of {MANY}. The client took "
        f"{rows[A_RUN, few]['peak_mb']} MB for the one and {rows[A_RUN, many]['peak_mb']} MB for "
        "the other.",
        f"Of a plan of {ENTRIES:,} runs an entry takes {each['checked']:.2f} ms to check, "
        f"{each['resumed']:.2f} ms to find done again, and {each['tables written']:.2f} ms in each "
        "writing of the tables.",
        "To write down a finished run (an executed notebook of 300 kB, its row, both forced to "
        f"disk) takes the client {1000 * client:.0f} ms, and dask's own work on a task "
        f"{1000 * scheduler:.0f} ms.",
    ]
    said = [
        *(fill(x, 100, initial_indent="* ", subsequent_indent="  ") for x in points),
        "",
        f"What 100,000 runs on {WORKERS} workers would be like was simulated from the last two "
        "figures, not tried:",
        "",
        "| a run takes | hours | workers busy | client busy | scheduler busy "
        "| longest wait to be written |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for mean in (20, 60, 150):
        draw = random.Random(0)  # -0.08 is half of 0.4's square: the mean is 1
        found = simulate(
            100_000,
            WORKERS,
            lambda d=draw, m=mean: d.lognormvariate(-0.08, 0.4) * m,
            client,
            scheduler,
        )
        said.append(
            f"| {mean} s | {found.hours:.1f} | {100 * found.workers_busy:.0f} % "
            f"| {100 * found.client_busy:.0f} % | {100 * found.scheduler_busy:.0f} % "
            f"| {found.longest_wait:.1f} s |"
        )
    shortest = fill(
        f"With runs shorter than {WORKERS * client:.0f} s the client would be the bottleneck: one "
        "notebook should then do more.", 100,
    )  # fmt: skip
    return "\n".join([*said, "", shortest])
