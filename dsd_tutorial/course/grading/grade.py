"""All hand-ins of a folder, judged side by side, each kept as soon as it is done.

    dsd-tutorial grade HANDINS --output grades.csv

Beside `grades.csv` a folder `grades/` holds one record and one page for each hand-in, and a page
for the instructor. A record is taken again where neither the file nor the course has changed, so
that what was stopped goes on.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from dsd_tutorial.course import checks
from dsd_tutorial.course.grading import judge
from dsd_tutorial.course.grading.handins import (
    HandIn,
    Lesson,
    Unreadable,
    files_in,
    lessons,
    person_of,
    read,
)
from dsd_tutorial.course.grading.judge import judged
from dsd_tutorial.course.grading.process import Limits, Sandbox, Stopped
from dsd_tutorial.saving import expanded, file_sha256, require_writable, write_json, write_text

COLUMNS = ["person", "notebook", "exercise", "right", "mistake", "attempts", "seconds", "file"]
WALLED = "Each hand-in ran without network, without other files or processes, within limits."
FORMULA = ("=", "+", "-", "@")


class NothingToGrade(ValueError):
    """The folder holds no hand-in; the message says what is looked for."""


@dataclass(frozen=True)
class Graded:
    """One hand-in, judged: a row for each exercise, or why it cannot be judged."""

    file: str
    person: str
    notebook: str
    rows: list[dict[str, Any]]
    problem: str = ""
    page: str = ""  # the file name of its record and page, without ending
    again: bool = False  # whether it was taken from an earlier run


def grade(
    folder: str | Path,
    output: str | Path,
    limits: Limits | None = None,
    jobs: int | None = None,
    tell: Callable[[str], None] = print,
) -> list[Graded]:
    """Every hand-in below `folder`, judged and written; see the module.

    Args:
        folder: A folder for each person, or files that bear their names.
        output: The table.
        limits: What one exercise may take.
        jobs: Hand-ins judged side by side (default: one for each core).
        tell: Gets one line for each hand-in, and what the walls are.

    Raises:
        NothingToGrade: No notebook is there.
        OutputError: The table cannot be written.
    """
    folder, output = expanded(folder).resolve(), expanded(output)
    paths = list(files_in(folder)) if folder.is_dir() else []
    if not paths:
        raise NothingToGrade(f"{folder} holds no notebooks (.ipynb): give the folder of hand-ins.")
    pages = require_writable(output.with_suffix(""), room=1_000_000 + 200_000 * len(paths))
    if pages == folder or pages in folder.parents or folder in pages.parents:
        raise ValueError(f"{output} lies with the hand-ins: write it elsewhere, with --output.")
    limits, walls = _walls(limits or Limits())
    tell(walls)
    known = lessons()
    version = course_version(known)
    done: list[Graded] = []
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        tasks = [pool.submit(_one, p, folder, pages, known, limits, version) for p in paths]
        for number, task in enumerate(tasks, start=1):
            done.append(task.result())
            tell(f"[{number}/{len(tasks)}] {_line(done[-1])}")
    _publish(done, output, pages, walls, known)
    return done


@cache
def _walls(limits: Limits) -> tuple[Limits, str]:
    """The limits as they can be had here, and what they are, in words."""
    try:
        with Sandbox(limits) as sandbox:
            sandbox.load("nothing", [])
            reason = sandbox.unwalled
    except Stopped as error:  # Python does not start within the walls
        limits, reason = replace(limits, walls=False), f"Python does not start in them ({error})"
    if not reason:
        return limits, WALLED
    return limits, (
        f"Limits only, no walls: {reason}. A hand-in can read what you can read here and reach the "
        "network: grade strangers' work in a virtual machine."
    )


def course_version(known: Sequence[Lesson]) -> str:
    """A digest of all that a verdict depends on: the checks, the judge and the notebooks."""
    package = Path(judge.__file__).parents[1]
    files = [*sorted(package.glob("checks/*.py")), *sorted(package.glob("grading/*.py"))]
    files += [lesson.path for lesson in known]
    return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()


def _one(
    path: Path, folder: Path, pages: Path, known: list[Lesson], limits: Limits, version: str
) -> Graded:
    name = str(path.relative_to(folder))
    try:
        hand_in = read(path, folder, known)
        said = f"{file_sha256(path)}{version}{asdict(limits)}"
        key = hashlib.sha256(said.encode()).hexdigest()
    except (Unreadable, OSError) as error:
        return Graded(name, person_of(path, folder, ""), "", [], str(error))
    page = page_name(hand_in, name)
    record = pages / f"{page}.json"
    kept = _kept(record, key)
    rows = list(_rows(hand_in, limits)) if kept is None else kept
    if kept is None:
        write_json(record, {"key": key, "file": name, "rows": rows})
    return Graded(name, hand_in.person, hand_in.lesson.name, rows, "", page, kept is not None)


def _rows(hand_in: HandIn, limits: Limits) -> Iterator[dict[str, Any]]:
    with Sandbox(limits) as sandbox:
        for name in hand_in.lesson.exercises:
            verdict = judged(getattr(checks, name), sandbox, hand_in.cells_for(name))
            answer, attempts = hand_in.answer(name), hand_in.attempts(name)
            yield {**asdict(verdict), "attempts": attempts, "answer": answer[:20_000]}


def _kept(record: Path, key: str) -> list[dict[str, Any]] | None:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        return found["rows"] if found["key"] == key else None
    except (OSError, ValueError, KeyError):
        return None


def page_name(hand_in: HandIn, file: str) -> str:
    """A file name for a hand-in's record and page: readable, and no other hand-in's."""
    words = re.sub(r"[^\w-]+", "-", f"{hand_in.person}-{hand_in.lesson.name}").strip("-")[:80]
    return f"{words}-{hashlib.sha256(file.encode()).hexdigest()[:6]}"


def _line(graded: Graded) -> str:
    if graded.problem:
        return f"{graded.file}: not judged, {graded.problem}"
    right = sum(row["right"] for row in graded.rows)
    again = ", as before" if graded.again else ""
    return f"{graded.person}, {graded.notebook}: {right} of {len(graded.rows)} right{again}"


def table(done: Sequence[Graded]) -> str:
    """The table as CSV, one line for each person and exercise; no cell is taken for a formula."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for graded in done:
        about = {"person": graded.person, "notebook": graded.notebook, "file": graded.file}
        rows = graded.rows or [{"exercise": "", "right": False, "mistake": graded.problem}]
        for row in rows:
            line = {column: row.get(column, "") for column in COLUMNS} | about
            line["right"] = int(row["right"])
            line["attempts"] = "" if row.get("attempts") is None else row["attempts"]
            writer.writerow({k: _harmless(v) for k, v in line.items()})
    return text.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _publish(
    done: Sequence[Graded], output: Path, pages: Path, walls: str, known: Sequence[Lesson]
) -> None:
    from dsd_tutorial.course.grading.feedback import feedback_page, summary_page

    by_name = {lesson.name: lesson for lesson in known}
    for graded in done:
        if not graded.problem:
            page = feedback_page(graded, by_name[graded.notebook])
            write_text(pages / f"{graded.page}.html", page)
    write_text(pages / "summary.html", summary_page(done, walls, by_name))
    write_text(output, table(done))
