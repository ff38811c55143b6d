"""The command: what it says, and that nothing starts before everything is checked."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from course_files import small_clone
from typer.testing import CliRunner

from dsd_tutorial.cli import app
from dsd_tutorial.course import running
from lab.__main__ import app as lab


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A small clone as the current folder."""
    path = small_clone(tmp_path, "print(steps)")
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def started(monkeypatch):
    """What `run` would have started, instead of starting it."""
    calls = []

    def record(path, output, parameters, *_):
        calls.append((path.name, parameters))
        return running.Outcome(path.stem, "ok", 1.0, 1.0, None, str(output), False)

    monkeypatch.setattr(running, "run_notebook", record)
    return calls


LAB = (("train",), ("measure",))


def invoke(*arguments: str):
    """The result of a command line."""
    return CliRunner().invoke(lab if arguments[:1] in LAB else app, list(arguments))


def test_run_takes_pairs_in_both_spellings(clone, started):
    result = invoke(
        "run", "00", "-p", "steps", "7", "--parameter", "prompt=a blue star", "-p", "guidance", "2"
    )
    assert result.exit_code == 0, result.output
    assert started == [
        ("00_orientation.ipynb", {"steps": 7, "prompt": "a blue star", "guidance": 2.0})
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("00", "-p", "stepz", "3"), "did you mean 'steps'"),
        (("00", "-p", "steps", "0"), "from 1 to 1000"),
        (("00", "-p", "steps", "many"), "steps = 'many'"),
        (("00", "-p", "steps"), "has no value"),
        (("00", "-p", "model", "shapes-ds"), "Nearest: shapes-sd"),
        (("orientation_00",), "Nearest: 00_orientation"),
        (("99",), "dsd-tutorial list"),
    ],
)
def test_mistakes_stop_before_a_kernel(clone, started, arguments, says):
    result = invoke("run", *arguments)
    assert result.exit_code == 2
    assert says in result.output
    assert started == []


def test_run_does_not_overwrite_the_notebook(clone, started):
    result = invoke("run", "00", "--output", str(clone.parent))
    assert result.exit_code == 2 and "--output" in result.output
    assert started == []


def test_list_names_notebooks_and_models(clone):
    result = invoke("list")
    assert result.exit_code == 0
    for said in ("00_orientation", "not measured yet", "shapes-sd", "sd-1.5", "MIT"):
        assert said in result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "tokenizer", "--init", "x"), "a tokenizer starts anew"),
        (("train", "clip", "--optimizer", "sgd"), "'sgd': Input should be 'adamw' or 'muon'"),
        (("train", "unet", "--image-side"), "--image-side is for clip"),
        (("train", "clip", "--image-side"), "with --init"),
        (("train", "unet", "--hard-negatives"), "ablation of clip"),
        (("train", "clip", "--lr", "-1"), "lr=-1"),
    ],
)
def test_train_refuses_what_has_no_meaning(arguments, says, tmp_path):
    result = invoke(*arguments, "--output", str(tmp_path))
    assert result.exit_code == 2
    assert says in result.output


def test_train_names_the_stage_that_is_missing(tmp_path):
    result = invoke("train", "clip", "--steps", "1", "--device", "cpu", "--output", str(tmp_path))
    assert result.exit_code == 2
    assert "python -m lab train tokenizer" in result.output


def test_measure_names_a_model_that_is_not_there(tmp_path):
    result = invoke("measure", "model", "--model", "shapes-ds")
    assert result.exit_code == 2 and "shapes-sd" in result.output
    result = invoke("measure", "model", "--model", str(tmp_path / "nothing"))
    assert result.exit_code == 2 and "no model folder" in result.output


def test_every_command_has_help():
    for command in (
        [],
        ["list"],
        ["run"],
        ["doctor"],
        ["train"],
        ["measure"],
        ["measure", "model"],
    ):
        result = invoke(*command, "--help")
        assert result.exit_code == 0, result.output


def test_help_imports_nothing_heavy():
    code = (
        "import sys, dsd_tutorial.cli; "
        "print([m for m in ('torch', 'diffusers', 'transformers', 'matplotlib', 'papermill') "
        "if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_installed_command_answers():
    name = "dsd-tutorial.exe" if sys.platform == "win32" else "dsd-tutorial"
    command = Path(sysconfig.get_path("scripts")) / name
    if not command.exists():
        pytest.skip("the package is on the path but not installed")
    out = subprocess.run([command, "--help"], capture_output=True, text=True)
    assert out.returncode == 0 and "doctor" in out.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("few-shot", "--task", "chess"), "chess"),
        (("few-shot", "--method", "magic"), "magic"),
        (("projection", "--model", "shape-sd"), "shapes-sd"),
    ],
)
def test_measure_names_what_it_does_not_know(arguments, says, tmp_path):
    result = invoke("measure", *arguments, "--output", str(tmp_path / "t.csv"))
    assert result.exit_code == 2 and says in result.output
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize(("old", "new"), [("train", "train"), ("evaluate", "measure")])
def test_what_moved_to_the_laboratory_says_so_in_one_line(old, new):
    result = CliRunner().invoke(app, [old, "unet", "--steps", "3"])
    assert result.exit_code == 2
    assert f"python -m lab {new}" in result.output and result.output.strip().count("\n") == 0
