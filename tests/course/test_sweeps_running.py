"""Sweeps while they run: killed, stopped, out of memory, refused; nothing lost, nothing twice."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from course_files import small_clone

from dsd_tutorial.course.sweeps.flight import Flight, NoScheduler
from lab.upkeep import faults

pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows knows no kill -9")

SOURCE = """
import time
from dsd_tutorial.course import record
time.sleep(guidance)
if prompt == "memory":
    block = bytearray(300_000_000)
    time.sleep(1)
assert prompt != "fail"
record("double", 2 * steps)
"""


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A small clone whose notebook sleeps for `guidance` seconds."""
    small_clone(tmp_path, SOURCE)
    root = str(Path(__file__).resolve().parents[2])
    monkeypatch.setenv("PYTHONPATH", root)
    started, start = [], faults.start
    monkeypatch.setattr(faults, "start", lambda *a: started.append(start(*a)) or started[-1])
    yield tmp_path
    for process in started:
        if process.poll() is None:
            process.kill()


def rows_of(folder: Path) -> list[dict]:
    """The rows of runs.csv."""
    with open(folder / "runs.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_killed_workers_and_a_killed_client_lose_nothing(clone):
    command = ["00", "-p", "steps", "1..4", "-p", "seed", "0,1", "-p", "guidance", "0.6",
               "--name", "a", "--workers", "2"]  # fmt: skip
    folder = clone / "sweeps" / "a"
    assert faults.disturbed(command, clone, folder, workers_at=(0, 1, 3), client_at=4) == 0
    rows = rows_of(folder)
    assert [(r["status"], r["tries"], r["double"]) for r in rows] == [
        ("ok", "1", str(2 * steps)) for steps in (1, 2, 3, 4) for _ in (0, 1)
    ]
    assert len(faults.journal(folder)) == len({row["key"] for row in faults.journal(folder)}) == 8
    for row in rows:
        json.loads((folder / row["output"]).read_text(encoding="utf-8"))
    again = [sys.executable, "-m", "dsd_tutorial.cli", "repeat", "sweeps/a/runs.csv:3"]
    said = subprocess.run(again, cwd=clone, capture_output=True, text=True)
    assert said.returncode == 0 and "run 3: every recorded value is the same" in said.stdout
    before = (folder / "rows.jsonl").read_bytes()
    assert faults.start(command, clone, clone / "again.log").wait() == 0  # nothing is left to do
    assert (folder / "rows.jsonl").read_bytes() == before


def test_a_failing_run_is_a_row_and_memory_that_ran_out_is_tried_again_alone(clone):
    plan = clone / "b.yaml"
    text = "notebooks: ['00']\nset: {guidance: 0}\ncases:\n"
    text += "".join(f"- {{prompt: {word}}}\n" for word in ("memory", "fail", "well"))
    plan.write_text(text + "limits: {memory_gb: 0.2, minutes: 5}\n")
    folder, command = clone / "sweeps" / "b", [str(plan), "--workers", "2"]
    assert faults.start(command, clone, clone / "log").wait() == 1
    memory, fail, well = rows_of(folder)
    assert (memory["status"], memory["tries"], memory["double"]) == ("ok", "2", "50")
    tried = [row["status"] for row in faults.journal(folder) if row["key"] == memory["key"]]
    assert tried == ["out of memory", "ok"]
    assert (well["status"], well["tries"]) == ("ok", "1")
    assert (fail["status"], fail["error_class"], fail["error_cell"]) == (
        "failed", "AssertionError", "2"
    )  # fmt: skip
    assert "--retry failed" in (clone / "log").read_text()
    lines = len(faults.journal(folder))
    assert faults.start(command, clone, clone / "log").wait() == 1  # failed ones are left alone
    assert len(faults.journal(folder)) == lines
    assert faults.start([*command, "--retry", "failed"], clone, clone / "log").wait() == 1
    assert len(faults.journal(folder)) == lines + 1 and rows_of(folder)[1]["tries"] == "2"


def test_ctrl_c_lets_running_ones_end_and_says_how_to_go_on(clone):
    command = ["00", "-p", "steps", "1..30", "-p", "guidance", "2", "--name", "c", "--workers", "1"]
    folder, log = clone / "sweeps" / "c", clone / "log"
    client = faults.start(command, clone, log)
    faults.wait_until(lambda: faults.journal(folder), "the first row", 400)
    second = faults.start(command, clone, clone / "second.log")
    assert second.wait() == 1
    assert f"process {client.pid} on" in (clone / "second.log").read_text()
    faults.wait_until(lambda: faults.busy_workers(client), "the next run", 400)
    time.sleep(0.5)
    os.killpg(client.pid, signal.SIGINT)  # what a terminal does: to all processes of the group
    assert client.wait() == 130
    ended = len(faults.journal(folder))
    assert 2 <= ended < 30 and all(row["status"] == "ok" for row in faults.journal(folder))
    assert "To go on: dsd-tutorial sweep 00" in log.read_text()
    assert [row["status"] for row in rows_of(folder)].count("to do") == 30 - ended


def dask_process(kind: str, cwd: Path, *more: str) -> subprocess.Popen:
    """A scheduler or a worker, as somebody would start it elsewhere, in a folder of its own."""
    cwd.mkdir()
    command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *more]
    with open(cwd / "log", "wb") as log:
        return subprocess.Popen(command, cwd=cwd, stdout=log, stderr=log, start_new_session=True)


@contextmanager
def elsewhere(clone: Path, head: str, *workers: str):
    """The address of a scheduler, and its process; it has these workers, in folders of their own.

    What a lost scheduler leaves behind is killed with the rest at the end.
    """
    note = clone / f"{head}.json"
    processes = [
        dask_process("scheduler", clone / head, "--scheduler-file", str(note), "--port", "0",
                     "--host", "127.0.0.1", "--no-dashboard"),
    ]  # fmt: skip
    try:
        whole = lambda: note.exists() and note.read_text().rstrip().endswith("}")  # noqa: E731
        faults.wait_until(whole, "the scheduler's address", 200)
        address = json.loads(note.read_text())["address"]
        for name in workers:
            processes.append(
                dask_process("worker", clone / name, address, "--nthreads", "1", "--name", name,
                             "--local-directory", ".", "--no-dashboard", "--no-nanny")
            )  # fmt: skip
        yield address, processes[0]
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_scheduler_that_takes_a_result_with_it_is_said_to_be_gone(clone):
    from distributed import Client

    with elsewhere(clone, "head", "one") as (address, head):
        with Client(address, timeout=60, set_as_default=False) as client:
            flight = Flight(client, *[None] * 3, {}, None, False)
            ended = client.submit(dict, key="ended")
            flight.in_flight[ended] = "a run"
            faults.wait_until(lambda: ended.status == "finished", "the result", 60)
            os.killpg(head.pid, signal.SIGKILL)
            with pytest.raises(NoScheduler, match="is gone: what has finished is kept"):
                flight._land(ended)


def test_workers_elsewhere_need_no_folder_in_common_and_a_lost_scheduler_loses_nothing(clone):
    with elsewhere(clone, "head", "one", "two") as (address, head):
        command = ["00", "-p", "steps", "1..4", "-p", "guidance", "1", "--name", "d"]
        client = faults.start([*command, "--scheduler", address], clone, clone / "log")
        assert client.wait(400) == 0, (clone / "log").read_text()
        assert not list((clone / "one").rglob("*.ipynb")) + list((clone / "two").rglob("*.ipynb"))
        command = ["00", "-p", "steps", "1..6", "-p", "guidance", "1.5", "--name", "e"]
        client = faults.start([*command, "--scheduler", address], clone, clone / "lost.log")
        lost = clone / "sweeps" / "e"
        faults.wait_until(lambda: faults.journal(lost), "the first row", 400)
        os.killpg(head.pid, signal.SIGKILL)
        assert client.wait(400) == 1
    said = (clone / "lost.log").read_text()
    assert "the dask scheduler is gone: what has finished is kept" in said
    rows = rows_of(clone / "sweeps" / "d")
    assert [row["double"] for row in rows] == ["2", "4", "6", "8"]
    assert {row["worker"].split()[-1] for row in rows} == {"one", "two"}
    assert all((clone / "sweeps" / "d" / row["output"]).is_file() for row in rows)
    kept = faults.journal(lost)
    assert 1 <= len(kept) < 6 and {row["status"] for row in rows_of(lost)} == {"ok", "to do"}
    with elsewhere(clone, "another", "three") as (address, _):
        client = faults.start([*command, "--scheduler", address], clone, clone / "log")
        assert client.wait(400) == 0, (clone / "log").read_text()
    assert faults.journal(lost)[: len(kept)] == kept and len(faults.journal(lost)) == 6
    assert faults.start(command, clone, clone / "log").wait() == 0  # nothing left: no need of it
