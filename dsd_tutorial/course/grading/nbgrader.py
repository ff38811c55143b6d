"""The course's notebooks as assignments of nbgrader, whose own commands do the rest.

    dsd-tutorial export --nbgrader COURSE/ 01 03
    cd COURSE && nbgrader generate_assignment 01_attention_scores

Each exercise becomes an answer that is graded by hand or by machine: its cell holds our solution
between nbgrader's marks, which it takes out of what learners get, and a locked cell calls the
check. All other cells are locked, so that nbgrader puts its own in their place before it grades.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsd_tutorial.course.grading.handins import Lesson, defines, quick_cell
from dsd_tutorial.course.notebooks import notebook_text, read_notebook, without_solutions
from dsd_tutorial.saving import expanded, require_writable, write_text

CONFIG = "nbgrader_config.py"
SCHEMA = 3
POINTS = 1
INDENT = "    "
SETTINGS = '''"""Settings of nbgrader; written by `dsd-tutorial export --nbgrader`."""

c = get_config()  # noqa: F821 (nbgrader provides it)
c.CourseDirectory.course_id = "dsd-tutorial"
c.ExecutePreprocessor.timeout = 600  # seconds for one cell
c.ClearSolutions.code_stub = {"python": 'raise NotImplementedError("your turn")'}
'''


class NoExercises(ValueError):
    """A notebook sets no exercise, so that there is nothing to hand in."""


def write_assignments(paths: Sequence[Path], course: Path) -> list[Path]:
    """The files written below `course`: one assignment for each notebook, and nbgrader's settings.

    Args:
        paths: Notebooks of the course.
        course: nbgrader's course folder.

    Raises:
        NoExercises: A notebook sets none.
        FileExistsError: An assignment is there already.
        OutputError: The folder cannot be written.
    """
    course = expanded(course)
    targets = [course / "source" / path.stem / path.name for path in paths]
    if there := [target for target in targets if target.exists()]:
        raise FileExistsError(f"{there[0]} is there already: give another folder.")
    texts = [notebook_text(assignment(path)) for path in paths]
    require_writable(course, room=sum(map(len, texts)) + 100_000)
    for target, text in zip(targets, texts, strict=True):
        write_text(target, text)
    if (course / CONFIG).exists():
        return targets
    write_text(course / CONFIG, SETTINGS)
    return [*targets, course / CONFIG]


def assignment(path: Path) -> dict[str, Any]:
    """The instructor's version of one notebook, as JSON, which ends within a minute.

    nbgrader runs each hand-in from top to bottom. Raises NoExercises.
    """
    lesson = Lesson(path)
    if not lesson.exercises:
        raise NoExercises(f"{path.stem} sets no exercises: choose notebooks that do (01 and up).")
    original = read_notebook(path)
    notebook = without_solutions(original)
    cells: list[dict[str, Any]] = []
    for number, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        name = next((n for n in lesson.exercises if defines(source, n)), None)
        if cell["cell_type"] == "code" and name:
            cells += _exercise(cell, name, source, _solution(original, name))
            continue
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = f"{source}\n# to end quickly\n{quick_cell(path.stem)}"
        if cell["cell_type"] == "code":
            _mark(cell, f"cell-{number}", locked=True)
        cells.append(cell)
    notebook["cells"] = cells
    return notebook


def _mark(cell: dict[str, Any], name: str, **kinds: Any) -> None:
    """Put nbgrader's metadata on a cell."""
    cell["metadata"]["nbgrader"] = {
        "grade": False,
        "grade_id": name,
        "locked": False,
        "schema_version": SCHEMA,
        "solution": False,
        "task": False,
        **kinds,
    }


def _exercise(cell: dict, name: str, source: str, body: str) -> list[dict[str, Any]]:
    """The learner's cell with a solution in nbgrader's marks, and the cell that grades it."""
    tree = ast.parse(source)
    (function,) = [s for s in tree.body if isinstance(s, ast.FunctionDef) and s.name == name]
    (*_, stub) = function.body  # the docstring stays, what raises goes
    lines = source.splitlines()
    answer = f"{INDENT}### BEGIN SOLUTION\n{body}\n{INDENT}### END SOLUTION"
    end = stub.end_lineno or stub.lineno
    cell["source"] = "\n".join([*lines[: stub.lineno - 1], answer, *lines[end:]])
    _mark(cell, name, solution=True)
    call = f"graded = checks.{name}({name})\nassert graded, graded.message"
    test = copy.deepcopy(cell) | {"id": f"grade-{name}"[:64], "source": call, "metadata": {}}
    _mark(test, f"{name}-check", grade=True, locked=True, points=POINTS)
    return [cell, test]


def _solution(notebook: dict[str, Any], name: str) -> str:
    """The lines of an exercise's solution, indented as in a function."""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if "solution" not in cell["metadata"].get("tags", []) or f"{name}_solution(" not in source:
            continue
        (function,) = [s for s in ast.parse(source).body if isinstance(s, ast.FunctionDef)]
        first = function.body[0]
        return "\n".join(source.splitlines()[first.lineno - 1 : function.end_lineno])
    raise ValueError(f"no cell tagged `solution` defines {name}_solution")
