"""Hand-ins as files: whose they are, of which notebook, and the code in them. Nothing is run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dsd_tutorial.course.notebooks import (
    LEFT_OUT,
    UnreadableNotebook,
    all_notebooks,
    read_notebook,
    read_title,
)
from dsd_tutorial.course.parameters import quick_values

LARGEST = 50_000_000  # bytes of one hand-in
MOODLE = re.compile(r"_\d+_assignsubmission_.*$")
MARKDOWN = "text/markdown"
Cell = tuple[str, str]  # (label, source)


class Unreadable(ValueError):
    """A hand-in cannot be judged at all; the message says why."""


@dataclass(frozen=True)
class Lesson:
    """One notebook of the course: its cells by id, and the exercises that it sets."""

    path: Path

    @property
    def name(self) -> str:
        """The notebook's name."""
        return self.path.stem

    @cached_property
    def cells(self) -> list[dict[str, Any]]:
        """Its code cells, as JSON, each with its source as one text."""
        return _code(read_notebook(self.path))

    @cached_property
    def exercises(self) -> list[str]:
        """The names of its exercises, in order."""
        called = re.compile(r"^checks\.(\w+)\(\1\)$", re.M)
        return [name for cell in self.cells for name in called.findall(cell["source"])]

    @cached_property
    def title(self) -> str:
        """The notebook's heading."""
        return read_title(self.path)

    @cached_property
    def titles(self) -> dict[str, str]:
        """What the notebook calls each exercise: name -> "Exercise 1: a soft maximum"."""
        heading, found = "", {}
        for cell in read_notebook(self.path)["cells"]:
            source = "".join(cell["source"])
            heading = "".join(re.findall(r"^### ✏ (Exercise .+)$", source, re.M)[:1]) or heading
            for name in self.exercises:
                if cell["cell_type"] == "code" and defines(source, name):
                    found.setdefault(name, heading or name)
        return found

    @cached_property
    def ids(self) -> frozenset[str]:
        """The ids of its code cells."""
        return frozenset(str(cell.get("id")) for cell in self.cells)

    @cached_property
    def sources(self) -> frozenset[str]:
        """The sources of its code cells, without space around them."""
        return frozenset(cell["source"].strip() for cell in self.cells)

    def before(self, exercise: str) -> list[Cell]:
        """The course's own cells before an exercise, with quick parameters; no solutions."""
        cells: list[Cell] = []
        for position, cell in enumerate(self.cells):
            if defines(cell["source"], exercise):
                break
            if any(defines(cell["source"], name) for name in self.exercises):
                continue
            tags = cell["metadata"].get("tags", [])
            if "solution" not in tags:
                cells.append((f"<cell {position} of the course>", cell["source"]))
            if "parameters" in tags:
                cells.append(("<cell of quick parameters>", quick_cell(self.name)))
        return cells


def quick_cell(notebook: str) -> str:
    """The lines that give a notebook the parameters with which it ends within a minute."""
    return "\n".join(f"{name} = {value!r}" for name, value in quick_values(notebook).items())


def _code(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells]


def defines(source: str, name: str) -> bool:
    """Whether a cell's source defines a function of that name, or assigns to it."""
    return bool(re.search(rf"^(def {name}\(|{name}\s*=)", source, re.M))


@dataclass(frozen=True)
class HandIn:
    """One file: whose, of which notebook, its code cells, and what it says of attempts."""

    path: Path
    person: str
    lesson: Lesson
    cells: list[dict[str, Any]] = field(repr=False)

    def cells_for(self, exercise: str) -> list[Cell]:
        """What is executed for an exercise: the learner's further cells, the course's, the answer.

        The course's cells are its own, not those of the file: whoever changed one there changed
        nothing here. The learner's further cells come first, so that the course's names win.
        """
        others, answers = [], []
        for position, cell in enumerate(self.cells):
            entry = (f"<cell {position}>", cell["source"])
            if defines(cell["source"], exercise):
                answers.append(entry)
            elif self._is_theirs(cell["source"]):
                others.append(entry)
        return [*others, *self.lesson.before(exercise), *answers]

    def _is_theirs(self, source: str) -> bool:
        """Whether a cell is the learner's own: neither the course's nor an answer."""
        ours = source.strip() in self.lesson.sources or source.startswith(LEFT_OUT)
        return not ours and not any(defines(source, name) for name in self.lesson.exercises)

    def answer(self, exercise: str) -> str:
        """The source of the cell that defines an exercise's function; "" where there is none."""
        found = [c["source"] for c in self.cells if defines(c["source"], exercise)]
        return found[-1] if found else ""

    def attempts(self, exercise: str) -> int | None:
        """How often the check was called, as the last output under the exercise says; or None."""
        found = None
        for cell in self.cells:
            if f"checks.{exercise}(" not in cell["source"]:
                continue
            for output in cell.get("outputs") or []:
                try:
                    number = output["metadata"][MARKDOWN]["attempts"]
                except (KeyError, TypeError):  # whatever a learner's file may hold there
                    continue
                found = number if isinstance(number, int) and number >= 0 else found
        return found


def lessons() -> list[Lesson]:
    """The course's notebooks that set exercises."""
    return [lesson for n in all_notebooks() if (lesson := Lesson(n.path)).exercises]


def files_in(folder: Path) -> Iterator[Path]:
    """The notebooks in a folder of hand-ins, in order."""
    for path in sorted(folder.rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts and not path.name.startswith("."):
            yield path


def person_of(path: Path, folder: Path, lesson: str) -> str:
    """Whose a file is: the first folder below the hand-ins, or the file's name without the rest."""
    parts = path.relative_to(folder).parts
    if len(parts) > 1:
        return MOODLE.sub("", parts[0])
    stem = path.stem.replace(lesson, "").strip(" _-.")
    return stem or path.stem


def read(path: Path, folder: Path, known: list[Lesson]) -> HandIn:
    """The hand-in in a file. Raises Unreadable."""
    if path.is_symlink():
        raise Unreadable("it is a link to another file")
    if path.stat().st_size > LARGEST:
        raise Unreadable(f"it is larger than {LARGEST / 1e6:.0f} MB")
    try:
        cells = _code(read_notebook(path))
        same = {n.name: len(n.ids & {str(cell.get("id")) for cell in cells}) for n in known}
    except (UnreadableNotebook, RecursionError, KeyError, TypeError, AttributeError) as error:
        why = str(error).replace(f"{path} ", "")[:120]
        raise Unreadable(f"it cannot be read as a notebook: {why}") from None
    text = json.dumps([cell["source"] for cell in cells])
    for lesson in known:  # where the ids are gone, the notebook still names itself
        same[lesson.name] += f'check_parameters(\\"{lesson.name}\\"' in text
    best = max(known, key=lambda lesson: same[lesson.name])
    if not same[best.name]:
        raise Unreadable("it is of no notebook of the course that sets exercises")
    return HandIn(path, person_of(path, folder, best.name), best, cells)
