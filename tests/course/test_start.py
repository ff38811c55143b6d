"""The course in a folder of one's own: laid out, upgraded, and nothing of the learner's lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from course_files import small_clone, write_notebook
from typer.testing import CliRunner

from dsd_tutorial.cli import app
from dsd_tutorial.course import notebooks, records, start
from dsd_tutorial.course.parameters import quick_values
from dsd_tutorial.course.start import CannotStart, lay_out, open_lab

ROOT = Path(__file__).resolve().parents[2]
NAME = "00_orientation.ipynb"


@pytest.fixture
def course(tmp_path):
    """A small course with one notebook, and a folder to put it into."""
    clone = tmp_path / "clone"
    clone.mkdir()
    small_clone(clone, "print(steps)")
    return clone, tmp_path / "mine"


def said(found):
    return {laid.name: laid.what for laid in found}


def edit(path, source):
    """Put another source into the last cell of a notebook."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["cells"][-1]["source"] = source
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path.read_bytes()


def test_the_first_time_everything_is_new_and_the_second_as_it_was(course):
    clone, mine = course
    assert said(lay_out(mine, clone)) == {NAME: "new"}
    assert (mine / NAME).read_bytes() == (clone / "notebooks" / NAME).read_bytes()
    assert said(lay_out(mine, clone)) == {NAME: "as it was"}


def test_an_upgrade_renews_what_nobody_changed(course):
    clone, mine = course
    lay_out(mine, clone)
    newer = edit(clone / "notebooks" / NAME, "print(2)")
    assert said(lay_out(mine, clone)) == {NAME: "updated"}
    assert (mine / NAME).read_bytes() == newer


def test_what_was_changed_stays_and_the_new_lies_beside_it(course):
    clone, mine = course
    lay_out(mine, clone)
    own = edit(mine / NAME, "my_work = 1")
    assert said(lay_out(mine, clone)) == {NAME: "yours"}  # nothing new: nothing beside it
    assert {path.name for path in mine.glob("*.ipynb")} == {NAME}
    newer = edit(clone / "notebooks" / NAME, "print(2)")
    (found,) = lay_out(mine, clone)
    assert found.what == "yours" and "00_orientation.new.ipynb is new: 1 cell" in found.note
    assert (mine / NAME).read_bytes() == own
    assert (mine / "00_orientation.new.ipynb").read_bytes() == newer
    written = edit(mine / "00_orientation.new.ipynb", "my_merge = 1")  # work in the copy is work
    edit(clone / "notebooks" / NAME, "print(3)")
    lay_out(mine, clone)
    assert (mine / "00_orientation.new.ipynb").read_bytes() == written
    assert (mine / "00_orientation.new-2.ipynb").is_file()


def test_a_file_of_that_name_that_was_there_before_is_nobody_elses(course):
    clone, mine = course
    own = write_notebook(mine / NAME, "something of mine").read_bytes()
    (found,) = lay_out(mine, clone)
    assert found.what == "yours" and (mine / NAME).read_bytes() == own
    assert (mine / "00_orientation.new.ipynb").is_file()


def test_the_course_itself_is_no_place_to_start(course):
    clone, _ = course
    with pytest.raises(ValueError, match="another folder"):
        lay_out(clone / "notebooks", clone)


def test_sections_that_changed_are_named(tmp_path):
    old, new = tmp_path / "a.ipynb", tmp_path / "b.ipynb"
    cells = [
        {"cell_type": "markdown", "source": "## 1. Noise"},
        {"cell_type": "code", "source": "a = 1"},
        {"cell_type": "markdown", "source": "## 2. Text"},
        {"cell_type": "code", "source": "b = 1"},
    ]
    old.write_text(json.dumps({"cells": cells}))
    cells[3] = cells[3] | {"source": "b = 2"}
    new.write_text(json.dumps({"cells": cells}))
    assert start.changed_sections(old, new) == "1 cell (2. Text)"
    assert start.changed_sections(old, old) == "0 cells"


def test_jupyterlab_opens_at_the_first_notebook(course, monkeypatch):
    clone, mine = course
    lay_out(mine, clone)
    called = []
    monkeypatch.setattr(start.subprocess, "call", lambda *a, **k: called.append((a, k)) or 0)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert open_lab(mine, ["--port", "9999"]) == 0
    (((command,), given),) = called
    assert command[1:4] == ["-m", "jupyterlab", str(mine / NAME)] and command[-1] == "9999"
    assert given["env"]["HF_HUB_OFFLINE"] == "1" and given["env"]["OMP_WAIT_POLICY"] == "active"


@pytest.mark.parametrize("uv", [None, "/usr/bin/uv"])
def test_without_jupyterlab_uv_is_asked_or_the_command_named(course, monkeypatch, uv):
    _, mine = course
    called = []
    monkeypatch.setattr(start.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(start.subprocess, "call", lambda c, **k: called.append((c, k["env"])) or 0)
    monkeypatch.delenv("UV", raising=False)
    if uv is None:
        with pytest.raises(CannotStart, match=r'pip install "dsd-tutorial\[course\]"'):
            open_lab(mine, [])
        return
    monkeypatch.setenv("UV", uv)
    open_lab(mine, ["--no-browser"])
    ((command, environment),) = called
    assert command[:4] == [uv, "tool", "run", "--from"]
    assert command[4].startswith("dsd-tutorial[course]==") and command[-1] == "--no-browser"
    monkeypatch.setattr("os.environ", environment)
    with pytest.raises(CannotStart):  # never asked twice
        open_lab(mine, [])


def test_the_command_lays_out_and_passes_options_on(course, monkeypatch):
    clone, mine = course
    opened = []
    monkeypatch.setattr(start, "repository", lambda: clone)
    monkeypatch.setattr(start, "open_lab", lambda *given: opened.append(given) or 0)
    done = CliRunner().invoke(app, ["start", str(mine), "--no-browser"])
    assert done.exit_code == 0 and "new" in done.output
    assert opened == [(mine, ["--no-browser"])]
    assert CliRunner().invoke(app, ["start", str(mine), "--no-lab"]).exit_code == 0
    assert len(opened) == 1


# -- what the wheel carries -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The package as a build lays it out, without a clone around it."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(folder)]
    command += ["build_py", "--build-lib", str(folder / "lib")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "lib"


def test_the_wheel_carries_notebooks_results_and_quick_values(built, monkeypatch, tmp_path):
    carried = built / records.CARRIED.relative_to(records.CLONE)
    for pattern in ("notebooks/*.ipynb", "results/*.csv", "tests/params/fast.yaml"):
        names = [path.relative_to(ROOT) for path in ROOT.glob(pattern)]
        assert names and all(
            (carried / name).read_bytes() == (ROOT / name).read_bytes() for name in names
        )
    for module in (notebooks, records):
        monkeypatch.setattr(module, "CLONE", tmp_path)
        monkeypatch.setattr(module, "CARRIED", carried)
    monkeypatch.chdir(tmp_path)
    assert records.results_folder() == carried / "results"
    assert notebooks.find_notebook("00").parent == carried / "notebooks"
    assert quick_values("00_orientation")["steps"] == 4
    assert set(said(lay_out(tmp_path / "mine"))) > {NAME, "quick.yaml"}


def test_what_is_not_the_courses_stays_out(built):
    top = {path.name for path in built.iterdir()}
    assert top == {"dsd_tutorial"}
    assert not [path for path in built.rglob("*") if path.suffix == ".pyc"]
