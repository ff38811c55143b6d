"""Assignments for nbgrader: what they hold. `make grading` runs its own commands on them."""

import ast
import math
import re
from collections import Counter

import nbformat
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dsd_tutorial.cli import app
from dsd_tutorial.course import checks
from dsd_tutorial.course.grading import write_assignments
from dsd_tutorial.course.grading.handins import lessons
from dsd_tutorial.course.grading.nbgrader import CONFIG, NoExercises, assignment
from dsd_tutorial.course.notebooks import find_notebook

KNOWN = lessons()
each = pytest.mark.parametrize("lesson", KNOWN, ids=lambda lesson: lesson.name)
REGION = re.compile(r"^ *### BEGIN SOLUTION\n.*?^ *### END SOLUTION", re.M | re.S)


def marked(lesson):
    """{grade_id: cell} of an assignment's code cells."""
    cells = [c for c in assignment(lesson.path)["cells"] if c["cell_type"] == "code"]
    found = {cell["metadata"]["nbgrader"]["grade_id"]: cell for cell in cells}
    assert len(found) == len(cells)
    return found


@each
def test_every_exercise_is_an_answer_and_a_locked_check(lesson):
    cells = marked(lesson)
    for name in lesson.exercises:
        answer, check = (cells[key]["metadata"]["nbgrader"] for key in (name, f"{name}-check"))
        assert answer["solution"] and not answer["locked"] and not answer["grade"]
        assert check["grade"] and check["locked"] and check["points"] == 1
        assert f"checks.{name}({name})" in cells[f"{name}-check"]["source"]
    kinds = Counter(bool(c["metadata"]["nbgrader"]["locked"]) for c in cells.values())
    assert kinds[False] == len(lesson.exercises)  # everything else is put back before grading


@each
def test_the_marks_hold_a_right_solution_and_nothing_else_does(lesson):
    cells = marked(lesson)
    names = {"torch": torch, "math": math, "np": np}
    for name in lesson.exercises:
        source = "".join(cells[name]["source"])
        (function,) = [x for x in ast.parse(source).body if isinstance(x, ast.FunctionDef)]
        exec(ast.unparse(function), names)
        assert getattr(checks, name)(names[name])
        left = REGION.sub('    raise NotImplementedError("your turn")', source)
        assert "raise" in left and len(REGION.findall(source)) == 1
        (stub,) = [x for x in ast.parse(left).body if isinstance(x, ast.FunctionDef)]
        assert ast.get_docstring(stub) == ast.get_docstring(function) and len(stub.body) == 2
    others = "\n".join("".join(c["source"]) for key, c in cells.items() if key not in names)
    assert not re.search(r"def \w+_solution", others)


@each
def test_it_is_a_notebook_with_quick_parameters(lesson, tmp_path):
    written = write_assignments([lesson.path], tmp_path)
    path = tmp_path / "source" / lesson.name / lesson.path.name
    assert written == [path, tmp_path / CONFIG]
    nbformat.validate(nbformat.read(path, as_version=4))
    assert "# to end quickly" in path.read_text(encoding="utf-8")
    ast.parse((tmp_path / CONFIG).read_text(encoding="utf-8"))
    with pytest.raises(FileExistsError, match="another folder"):
        write_assignments([lesson.path], tmp_path)


def test_a_notebook_without_exercises_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(NoExercises, match="01 and up"):
        write_assignments([find_notebook("00")], tmp_path / "course")
    assert not (tmp_path / "course").exists()


def test_the_command_takes_all_that_set_exercises(tmp_path):
    done = CliRunner().invoke(app, ["export", "--nbgrader", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert {p.name for p in (tmp_path / "source").iterdir()} == {lesson.name for lesson in KNOWN}
