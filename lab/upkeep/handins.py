"""Made hand-ins, and how long it takes to judge them.

`python -m lab.upkeep.handins --people 30` makes hand-ins of one notebook (all right, some right,
untouched, one that never ends), grades them and says how long that took, then once more.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsd_tutorial.course.grading import grade
from dsd_tutorial.course.grading.handins import Lesson, defines
from dsd_tutorial.course.notebooks import find_notebook, read_notebook, without_solutions
from dsd_tutorial.saving import write_json

LOOP = "def {name}(*args):\n    while True:\n        pass\n"
WRONG = "def {name}(first, *rest):\n    return first * 0\n"


def solutions(path: Path) -> dict[str, str]:
    """Exercise -> its solution as a learner would write it, from the notebook's folded cells."""
    lesson, found = Lesson(path), {}
    for cell in lesson.cells:
        for name in lesson.exercises:
            if cell["source"].startswith(f"def {name}_solution("):
                function, *_ = cell["source"].split("\n\n\n")
                found[name] = function.replace(f"{name}_solution", name, 1)
    return found


def hand_in(path: Path, answers: Mapping[str, str]) -> dict[str, Any]:
    """The handed-out notebook, as JSON, with these answers in it."""
    return answered(without_solutions(read_notebook(path)), answers)


def answered(notebook: dict[str, Any], answers: Mapping[str, str]) -> dict[str, Any]:
    """A copy of a notebook, as JSON, with these answers in their cells."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook["cells"]:
        for name, answer in answers.items():
            if cell["cell_type"] == "code" and defines("".join(cell["source"]), name):
                cell["source"] = f"{answer}\n\n\nchecks.{name}({name})"
    return notebook


def put(folder: Path, person: str, path: Path, answers: Mapping[str, str]) -> Path:
    """The file of a made hand-in: `folder/person/notebook`."""
    target = folder / person / path.name
    write_json(target, hand_in(path, answers))
    return target


def people(path: Path, number: int) -> dict[str, dict[str, str]]:
    """Person -> answers, of many kinds."""
    right = solutions(path)
    names = list(right)
    made: dict[str, dict[str, str]] = {}
    for i in range(number):
        wrong = {name: WRONG.format(name=name) for name in names[: i % (len(names) + 1)]}
        made[f"person-{i:02}"] = {**right, **wrong} if i % 5 else dict(list(right.items())[:2])
    last = names[-1]
    made[f"person-{number - 1:02}"] = {**right, last: LOOP.format(name=last)}
    return made


def main() -> int:
    """The exit status: 0 when every hand-in was judged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=30)
    parser.add_argument("--notebook", default="01")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--output", type=Path, default=Path("build") / "grading")
    given = parser.parse_args()
    path = find_notebook(given.notebook)
    folder = given.output / "hand-ins"
    for person, answers in people(path, given.people).items():
        put(folder, person, path, answers)
    for turn in ("judged", "judged again"):
        start = time.perf_counter()
        done = grade(folder, given.output / "grades.csv", jobs=given.jobs)
        print(f"{len(done)} hand-ins {turn} in {time.perf_counter() - start:.1f} s")
    return int(any(graded.problem for graded in done))


if __name__ == "__main__":
    sys.exit(main())
