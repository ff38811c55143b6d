"""The folder of a sweep: what is done, what is to do, and nothing lost when the machine stops.

    plan.yaml      what was asked for
    rows.jsonl     the journal: a line for each finished run, appended and forced to disk
    runs/          executed notebooks, whole or not there, named by notebook and key
    runs.csv       a row for each run of the plan, written anew from the journal
    records.csv    the tables that notebooks recorded
    aside.csv      finished runs that belong to the plan no more

One process writes: the one that holds `.lock`. A run counts as finished once its notebook has been
moved into `runs/` and its line is in the journal, in this order. A line that a crash cut off is no
line. The last line of a key is the one that holds.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from dsd_tutorial.course.sweeps.expanding import Run
from dsd_tutorial.saving import (
    cannot_write,
    replacing,
    require_writable,
    write_bytes,
    write_json,
    write_text,
)

FIRST = ("run", "notebook", "status", "seconds", "peak_mb", "tries")
LAST = ("error_class", "error_cell", "error", "output", "finished", "worker", "key")
OK, FAILED, TO_DO = "ok", "failed", "to do"
AGAIN_ALONE = "out of memory"  # to be tried once more, with the machine to itself


class SweepInUse(RuntimeError):
    """Another process works on this folder."""


class SweepFolder:
    """What is kept of a sweep; see the module. Reading needs no lock."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.journal = self.path / "rows.jsonl"
        self.notebooks = self.path / "runs"

    # -- one process at a time -------------------------------------------------------------------

    @contextmanager
    def held(self) -> Iterator[SweepFolder]:
        """Inside the block nobody else works here; a killed process holds nothing.

        Raises SweepInUse, which names the process that does, and OutputError.
        """
        from filelock import FileLock, Timeout

        require_writable(self.path)
        note = self.path / "running.json"
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise SweepInUse(
                f"{self.path} is being worked on by {_who(note)}: wait for it or end it with "
                "Ctrl-C; nothing was started."
            ) from None
        try:
            write_json(note, {"process": os.getpid(), "host": platform.node(), "since": _now(),
                              "command": " ".join(sys.argv)})  # fmt: skip
            self._cut_what_a_crash_left()
            yield self
        finally:
            note.unlink(missing_ok=True)
            lock.release()

    def _cut_what_a_crash_left(self) -> None:
        if not self.journal.exists():
            return
        with open(self.journal, "rb+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 50_000_000))
            tail = file.read()
            whole = tail.rfind(b"\n") + 1
            if whole < len(tail):
                file.truncate(size - len(tail) + whole)

    # -- writing ---------------------------------------------------------------------------------

    def begin(self, plan_text: str) -> None:
        """Write the plan; one that says something else is kept beside it."""
        target = self.path / "plan.yaml"
        old = target.read_text(encoding="utf-8") if target.exists() else plan_text
        if old != plan_text:
            write_text(self.path / f"plan.until-{_now().replace(':', '')}.yaml", old)
        write_text(target, plan_text)
        self.notebooks.mkdir(parents=True, exist_ok=True)

    def add(self, row: Mapping[str, Any], notebook: bytes | None) -> None:
        """Keep a finished run: its notebook first, then its line."""
        if notebook is not None:
            write_bytes(self.path / row["output"], notebook)
        line = json.dumps({**row, "finished": _now()}, ensure_ascii=False) + "\n"
        try:
            with open(self.journal, "ab", buffering=0) as file:
                file.write(line.encode())
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.journal, error) from error

    # -- reading ---------------------------------------------------------------------------------

    def lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (offset, row) of every whole line of the journal, in its order."""
        if not self.journal.exists():
            return
        with open(self.journal, "rb") as file:
            offset = 0
            for line in file:
                if line.endswith(b"\n"):
                    yield offset, json.loads(line)
                offset += len(line)

    def statuses(self) -> dict[str, tuple[str, int]]:
        """Key -> (status, tries) of every run that has ended, as it ended last."""
        return {row["key"]: (sys.intern(row["status"]), row["tries"]) for _, row in self.lines()}

    def rows(self, keys: Iterable[str]) -> Iterator[dict[str, Any] | None]:
        """Yield the last row of each key, in this order, without holding them all in memory."""
        where = {row["key"]: offset for offset, row in self.lines()}
        if not where:
            yield from (None for _ in keys)
            return
        with open(self.journal, "rb") as file:
            for key in keys:
                if key in where:
                    file.seek(where[key])
                    yield json.loads(file.readline())
                else:
                    yield None

    # -- tables ----------------------------------------------------------------------------------

    def write_tables(self, runs: Iterable[Run]) -> None:
        """Write runs.csv, records.csv and aside.csv from the journal, for these runs."""
        numbers: dict[str, int] = {}
        names: dict[str, None] = {}
        for run in runs:
            numbers[run.key] = run.number
            names |= dict.fromkeys(run.values)
        kinds = _columns(row for _, row in self.lines())
        tables = kinds["tables"]
        names |= kinds["parameters"]
        columns = [*FIRST, *names, *kinds["figures"], *LAST, *kinds["provenance"]]
        with _csv(self.path / "runs.csv", columns) as write:
            for run, row in zip(runs, self.rows(numbers), strict=True):
                write({"run": run.number, **flat(row or _to_do(run))})
        if tables:
            with _csv(self.path / "records.csv", ["run", "table", *tables]) as write:
                for key, row in zip(numbers, self.rows(numbers), strict=True):
                    for table, entries in (row or {}).get("tables", {}).items():
                        head = {"run": numbers[key], "table": table}
                        for entry in entries:
                            write({**head, **entry})
        gone = [key for key in kinds["keys"] if key not in numbers]
        if gone:
            with _csv(self.path / "aside.csv", columns) as write:
                for row in self.rows(gone):
                    write(flat(row or {}))
        else:
            (self.path / "aside.csv").unlink(missing_ok=True)


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the journal as columns: parameters, figures and provenance by their own names."""
    found = {name: row.get(name) for name in (*FIRST[1:], *LAST)}
    found |= {name: _cell(value) for name, value in row.get("parameters", {}).items()}
    return found | _figures(row) | _provenance(row)


def _figures(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name if part == "value" else f"{name}:{part}": x
        for name, figure in row.get("figures", {}).items()
        for part, x in figure.items()
    }


def _provenance(row: Mapping[str, Any]) -> dict[str, Any]:
    return {f"provenance.{name}": fact for name, fact in row.get("provenance", {}).items()}


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _to_do(run: Run) -> dict[str, Any]:
    return {"notebook": run.notebook, "status": TO_DO, "tries": 0, "parameters": run.values,
            "key": run.key}  # fmt: skip


def _columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, None]]:
    """Names of columns by kind, in order, also those of the recorded tables; and all keys."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for row in rows:
        found["keys"][row["key"]] = None
        found["parameters"] |= dict.fromkeys(row["parameters"])
        found["figures"] |= dict.fromkeys(_figures(row))
        found["provenance"] |= dict.fromkeys(_provenance(row))
        for entry in chain.from_iterable(row.get("tables", {}).values()):
            found["tables"] |= dict.fromkeys(entry)
    return found


@contextmanager
def _csv(path: Path, columns: list[str]) -> Iterator[Any]:
    """Yield a function that writes a row; the file takes its place at the end of the block."""
    with replacing(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        yield writer.writerow


def _who(note: Path) -> str:
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        return "process {process} on {host} since {since} (`{command}`)".format(**said)
    except (OSError, ValueError, KeyError):
        return "another process"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
