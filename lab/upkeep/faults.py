"""Sweeps under fire: workers and the client are killed with kill -9, and nothing may be lost.

`python -m lab.upkeep.faults` carries out 40 real runs (notebooks 00 and 01 at small parameters) on
two workers twice: undisturbed, and with a worker killed three times and the client once. Both
tables must agree row by row in every recorded figure, and no run that had finished may be done
again. It takes about half an hour of two processors; given again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import atexit
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pandas as pd
import psutil

from dsd_tutorial.course.sweeps import SweepFolder
from lab.upkeep.blocks import ROOT

OUTPUT = ROOT / "build" / "faults"
PLAN = """notebooks: [00, 01]
cases:
- {notebook: 00, prompt: a blue square, steps: 2, n_images: 2}
- {notebook: 01, n_items: 8, n_validation: 8, steps: [600], layers: last}
seeds: 0..{last}
"""
# columns that may differ between two sweeps of the same plan: when, where and how fast
MAY_DIFFER = ("seconds", "peak_mb", "tries", "finished", "worker")
PATIENCE = 3600  # seconds in which something must happen
T = TypeVar("T")


def journal(folder: Path) -> list[dict]:
    """Return the whole lines of a sweep's journal."""
    return [row for _, row in SweepFolder(folder).lines()]


def start(command: Sequence[str], cwd: Path, log: Path) -> subprocess.Popen:
    """Start `dsd-tutorial sweep ...` as a process of its own session, its output in `log`."""
    with open(log, "ab") as file:
        client = subprocess.Popen(
            [sys.executable, "-m", "dsd_tutorial.cli", "sweep", *command],
            cwd=cwd, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    atexit.register(_end, client)  # also after Ctrl-C nothing goes on behind our back
    return client


def _end(client: subprocess.Popen) -> None:
    if client.poll() is None:
        client.terminate()
        client.wait(300)


def busy_workers(client: subprocess.Popen) -> list[psutil.Process]:
    """Return the worker processes of a sweep that have a kernel at work."""
    found = []
    for child in psutil.Process(client.pid).children():
        try:
            if "spawn_main" in " ".join(child.cmdline()) and child.children():
                found.append(child)
        except psutil.Error:  # it has just ended
            continue
    return found


def wait_until(so: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """Return what `so()` says once it holds; raise TimeoutError where it never does."""
    end = time.monotonic() + patience
    while not (found := so()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {patience:.0f} s in vain: {what}")
        time.sleep(0.05)
    return found


def disturbed(
    command: Sequence[str], cwd: Path, folder: Path, workers_at: Sequence[int], client_at: int
) -> int:
    """Return the exit status of a sweep that was carried through all of this.

    When `workers_at` rows are written a busy worker is killed, for each of these numbers; when
    `client_at` rows are, the client. Then the same command is given again.
    """
    log = cwd / f"{folder.name}.log"
    client = start(command, cwd, log)
    for number in sorted({*workers_at, client_at}):
        if number < len(journal(folder)):
            continue  # this was done when the command was given before
        wait_until(lambda n=number: len(journal(folder)) >= n, f"{number} rows in {folder}")
        family = psutil.Process(client.pid).children(recursive=True)
        if number == client_at:
            client.kill()
            client.wait()
            _, left = psutil.wait_procs(family, timeout=20)
            if left:
                raise RuntimeError(f"{left} outlived the client that started them")
            client = start(command, cwd, log)
        else:
            # one that is at work at this moment: a moment later its run may have ended
            victim, *_ = wait_until(lambda c=client: busy_workers(c), "a worker that is at work")
            victim.kill()
            print(f"after {number} rows: killed worker {victim.pid}", flush=True)
    return client.wait()


def table(folder: Path) -> list[dict[str, str]]:
    """Return the rows of runs.csv, without the columns that may differ."""
    rows = pd.read_csv(folder / "runs.csv", dtype=str, keep_default_na=False)
    return rows.drop(columns=[*MAY_DIFFER]).to_dict("records")


def faults_of(undisturbed: Path, disturbed: Path) -> list[str]:
    """Return what is wrong with the disturbed sweep, in sentences; nothing where it is well."""
    one, other = table(undisturbed), table(disturbed)
    said = []
    if len(one) != len(other):
        said.append(f"{len(other)} rows instead of {len(one)}")
    for number, (a, b) in enumerate(zip(one, other, strict=False), start=1):
        differing = {k: (a.get(k), b.get(k)) for k in {*a, *b} if a.get(k) != b.get(k)}
        if differing:
            said.append(f"run {number} differs: {differing}")
    done = Counter(row["key"] for row in journal(disturbed) if row["status"] == "ok")
    said += [f"{key} was done {n} times" for key, n in done.items() if n > 1]
    for row in other:
        executed = disturbed / row["output"]
        if row["status"] != "ok" or not executed.is_file():
            said.append(f"run {row['run']} is {row['status']}, its notebook {executed}")
        else:
            json.loads(executed.read_text(encoding="utf-8"))
    return said


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 when the disturbed sweep gave what the undisturbed one did."""
    parser = argparse.ArgumentParser(prog="python -m lab.upkeep.faults", description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=40, help="an even number from 8 (default: 40)")
    given = parser.parse_args(arguments)
    n = given.runs
    OUTPUT.mkdir(parents=True, exist_ok=True)
    plan = OUTPUT / "plan.yaml"
    plan.write_text(PLAN.replace("{last}", str(n // 2 - 1)), encoding="utf-8")
    common = [str(plan), "--output", str(OUTPUT), "--workers", str(given.workers)]
    calm, wild = OUTPUT / f"undisturbed-{n}", OUTPUT / f"disturbed-{n}"
    begun = time.monotonic()
    code = start([*common, "--name", calm.name], OUTPUT, OUTPUT / "undisturbed.log").wait()
    middle = time.monotonic()
    print(f"undisturbed: exit status {code}, {middle - begun:.0f} s", flush=True)
    workers_at = (n // 8, 3 * n // 10, 3 * n // 4)
    code = disturbed([*common, "--name", wild.name], OUTPUT, wild, workers_at, client_at=n // 2)
    print(f"disturbed: exit status {code}, {time.monotonic() - middle:.0f} s", flush=True)
    said = faults_of(calm, wild)
    rows = table(wild)
    print("\n".join(said) or f"{len(rows)} runs: equal row by row, none that had finished twice")
    return 1 if said or code else 0


if __name__ == "__main__":
    sys.exit(main())
