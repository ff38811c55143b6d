"""Notebooks to hand out: no solution can be read in them, and every cell still has its names."""

import ast
import json
from pathlib import Path

import pytest
from course_files import small_clone
from typer.testing import CliRunner

from dsd_tutorial.cli import app
from dsd_tutorial.course import checks
from dsd_tutorial.course.notebooks import LEFT_OUT, export, without_solutions

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(notebook):
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]


@each
def test_every_solution_is_gone_and_every_name_is_bound(path):
    before = json.loads(path.read_text(encoding="utf-8"))
    after = without_solutions(before)
    assert len(after["cells"]) == len(before["cells"])
    solved = [
        "".join(c["source"]) for c in before["cells"] if "solution" in c["metadata"].get("tags", [])
    ]
    text = "\n".join(code(after))
    for source in solved:
        (function,) = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)]
        name = function.name.removesuffix("_solution")
        assert f"def {function.name}" not in text
        for statement in function.body:  # not a line of it is left
            assert ast.get_source_segment(source, statement) not in text
        assert f"{function.name} = checks.{name}.solution" in text
        assert callable(getattr(checks, name).solution)
    assert text.count(LEFT_OUT) == len(solved)


@each
def test_nothing_else_is_changed(path):
    before = json.loads(path.read_text(encoding="utf-8"))
    after = without_solutions(before)
    for a, b in zip(before["cells"], after["cells"], strict=True):
        if "solution" not in a["metadata"].get("tags", []):
            assert a == b
    assert after["metadata"] == before["metadata"] and after["nbformat"] == before["nbformat"]


def test_outputs_are_left_out_and_the_original_is_not_touched():
    cell = {
        "cell_type": "code", "id": "a", "source": "1 + 1", "execution_count": 3, "metadata": {},
        "outputs": [{"output_type": "stream", "name": "stdout", "text": "2"}],
    }  # fmt: skip
    notebook = {"cells": [cell], "metadata": {}}
    clean = without_solutions(notebook)
    assert clean["cells"][0]["outputs"] == [] and notebook["cells"][0]["outputs"]


def test_what_is_written_is_a_notebook(tmp_path):
    import nbformat

    for path in export(NOTEBOOKS, tmp_path / "hand out"):
        nbformat.validate(nbformat.read(path, as_version=4))


def test_the_command_writes_all_or_some(tmp_path, monkeypatch):
    small_clone(tmp_path, "print(steps)")
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    done = run(app, ["export", "out"])
    assert done.exit_code == 0 and (tmp_path / "out" / "00_orientation.ipynb").is_file()
    again = run(app, ["export", "out", "00"])
    assert again.exit_code == 2 and "--overwrite" in again.output
    assert run(app, ["export", "out", "00", "--overwrite"]).exit_code == 0
    wrong = run(app, ["export", "elsewhere", "77"])
    assert wrong.exit_code == 2 and not (tmp_path / "elsewhere").exists()


def test_the_course_itself_is_never_overwritten(tmp_path, monkeypatch):
    path = small_clone(tmp_path, "print(steps)")
    before = path.read_text(encoding="utf-8")
    with pytest.raises(FileExistsError, match="another folder"):
        export([path], path.parent, overwrite=True)
    assert path.read_text(encoding="utf-8") == before
