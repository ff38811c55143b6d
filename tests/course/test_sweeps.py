"""Plans: what they say, what is refused and where, and which runs come of them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from course_files import small_clone
from typer.testing import CliRunner

from dsd_tutorial.cli import app
from dsd_tutorial.course.sweeps import PlanError, Runs, SweepFolder, SweepInUse, commands, read_plan
from dsd_tutorial.course.sweeps.plans import split
from lab.upkeep import plan_schema

PLAN = """notebooks: ["00"]
set: {n_images: 4}
grid:
  steps: 1..3
  guidance: [1.0, 2.0]
exclude:
- {steps: 3, guidance: 2.0}
seeds: [0, 5..6]
"""


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A small clone as the current folder."""
    small_clone(tmp_path, "print(steps)")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def runs_of(folder, text: str) -> Runs:
    """The runs of a plan that is written to a file first."""
    file = folder / "plan.yaml"
    file.write_text(text, encoding="utf-8")
    return Runs(*read_plan(file))


def test_a_plan_is_the_runs_it_says(clone):
    runs = runs_of(clone, PLAN)
    assert runs.check() == 15
    found = list(runs)
    assert [run.number for run in found] == list(range(1, 16))
    assert len({run.key for run in found}) == 15 and found == list(runs)
    assert found[0].values == {"n_images": 4, "steps": 1, "guidance": 1.0, "seed": 0}
    assert [run.values["seed"] for run in found[:3]] == [0, 5, 6]
    assert not any(run.values["steps"] == 3 and run.values["guidance"] == 2.0 for run in found)


def test_side_by_side_and_cases(clone):
    runs = runs_of(
        clone,
        "notebooks: ['00']\nzip: {steps: [1, 2], n_images: [3, 4]}\n"
        "cases: [{prompt: a star}, {prompt: a ring, guidance: 2}]",
    )
    found = [tuple(run.values.values()) for run in runs]
    assert found == [("a star", 1, 3), ("a star", 2, 4), ("a ring", 2, 1, 3), ("a ring", 2, 2, 4)]


def test_equal_runs_are_one(clone):
    runs = runs_of(clone, "notebooks: ['00']\ncases: [{steps: 7}, {steps: 7, guidance: 3.0}]")
    assert runs.check() == 1 and runs.repeated == 1  # 3.0 is the notebook's own default


def test_a_key_changes_with_whatever_a_run_depends_on(clone):
    text = "notebooks: ['00']\nset: {steps: 7}"
    (first,) = runs_of(clone, text)
    (again,) = runs_of(clone, text)
    (other,) = runs_of(clone, text.replace("7", "8"))
    path = clone / "notebooks" / "00_orientation.ipynb"
    path.write_text(path.read_text().replace("print(steps)", "print(-steps)"))
    (edited,) = runs_of(clone, text)
    assert first.key == again.key and len({first.key, other.key, edited.key}) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "notebooks: ['00']\ngrid:\n  steps: [1,\n    0]",
            "line 4, 00_orientation, run 2: steps",
        ),
        ("notebooks: ['00']\nset:\n  stepz: 1", "line 3, 00_orientation, run 1: unknown parameter"),
        ("notebooks: ['00']\ngrid: {steps: 5..1}", "the range 5..1 is empty"),
        ("notebooks: ['00']\ngrid: {steps: 5}", "give a list such as"),
        ("notebooks: ['00']\ngrid: {steps: []}", "it is empty"),
        ("notebooks: ['00']\ngird: {steps: [1]}", "line 2: gird: no plan says this"),
        ("notebooks: ['00']\nset: {steps: 1}\ngrid: {steps: [2]}", "steps is set and varied"),
        ("notebooks: ['00']\nseeds: 0..1\ngrid: {seed: [2]}", "seed is varied in two places"),
        ("notebooks: ['00']\nzip: {steps: [1, 2], seed: [1]}", "steps has 2, seed has 1"),
        ("notebooks: ['07']", "line 1: No single notebook called '07'"),
        ("notebooks: ['00']\ncases: [{notebook: '02', steps: 1}]", "02 does not run here"),
        ("notebooks: ['00']\nset: {steps: 1}\nset: {steps: 2}", "line 3: set stands there twice"),
        ("notebooks: ['00']\nexclude: [{steps: 4}]", "line 2: no run has {'steps': 4}"),
        ("notebooks: ['00']\nexclude: [{steps: 25}]", "no run is left"),
        ("notebooks: ['00'\n", "no plain YAML"),
        ("- 1", "holds no plan"),
    ],
)
def test_a_mistake_is_named_with_its_line(clone, text, says):
    with pytest.raises(PlanError) as error:
        runs_of(clone, text).check()
    assert says in str(error.value) and "plan.yaml" in str(error.value)


def test_a_plan_is_written_as_it_is_read(clone):
    plan = runs_of(clone, PLAN).plan
    assert runs_of(clone, plan.text()).plan == plan


def test_what_is_typed_is_split_outside_brackets():
    assert split("[200],[400, 600],0..9") == ["[200]", "[400, 600]", "0..9"]


def invoke(*arguments: str):
    """The result of a command line; nothing is asked of it without the extra `runs`."""
    pytest.importorskip("distributed")
    return CliRunner().invoke(app, ["sweep", *arguments])


def test_spans_are_told_in_hours_or_minutes():
    said = [commands._span(hours) for hours in (0.0, 0.02, 0.5, 0.96, 12.34)]
    assert said == ["1 minute", "1 minute", "30 minutes", "1.0 hours", "12.3 hours"]


def test_a_plan_is_told_and_nothing_starts(clone):
    command = ["00", "-p", "steps", "1..3", "-p", "seed", "0,1", "--name", "a", "--workers", "2"]
    result = invoke(*command, "--plan")
    assert result.exit_code == 0, result.output
    assert "6 runs, 0 are done, 6 to go" in result.output and "about 6 minutes" in result.output
    assert not (clone / "sweeps").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("00", "-p", "steps", "0,1"), "the command line, 00_orientation, run 1: steps = 0"),
        (("00", "-p", "steps"), "has no value"),
        (("none.yaml",), "cannot be read"),
        (("00", "--name", "a/b"), "name: "),
        (("00", "--workers", "0"), "from 1, or auto"),
        (("00", "--retry", "all"), "--retry failed"),
    ],
)
def test_mistakes_stop_before_anything_starts(clone, arguments, says):
    result = invoke(*arguments)
    assert result.exit_code == 2 and says in result.output
    assert not (clone / "sweeps").exists()


def row(key: str, status: str = "ok", **more) -> dict:
    """A row of the journal."""
    return {"key": key, "notebook": "00_orientation", "status": status, "seconds": 1.0,
            "peak_mb": 50.0, "tries": 1, "parameters": {}, "figures": {}, "tables": {},
            "output": f"runs/{key}.ipynb", "provenance": {}, **more}  # fmt: skip


def test_a_line_that_a_crash_cut_off_is_no_line(tmp_path):
    folder = SweepFolder(tmp_path / "a")
    with folder.held():
        folder.begin("notebooks: ['00']\n")
        folder.add(row("one"), b"{}")
    with open(folder.journal, "ab") as file:
        file.write(b'{"key": "two", "sta')
    assert folder.statuses() == {"one": ("ok", 1)}
    with folder.held():
        folder.add(row("three"), b"{}")
    assert [found["key"] for _, found in folder.lines()] == ["one", "three"]


def test_the_last_row_of_a_run_holds(tmp_path):
    folder = SweepFolder(tmp_path / "a")
    with folder.held():
        folder.begin("")
        for status in ("failed", "ok"):
            folder.add(row("one", status), b"{}")
    assert folder.statuses() == {"one": ("ok", 1)}
    assert [found and found["status"] for found in folder.rows(["two", "one"])] == [None, "ok"]


def test_a_folder_is_one_sweeps_at_a_time(tmp_path):
    folder = SweepFolder(tmp_path / "a")
    with folder.held():
        note = json.loads((folder.path / "running.json").read_text())
        with pytest.raises(SweepInUse, match=f"process {note['process']} on"):
            with SweepFolder(folder.path).held():
                pass
    with folder.held():
        pass


ROOT = Path(__file__).resolve().parents[2]


PLANS = sorted((ROOT / "lab" / "plans").glob("*.yaml"))


@pytest.mark.parametrize("plan", PLANS, ids=lambda path: path.stem)
def test_plans_of_the_laboratory_can_be_carried_out(plan):
    runs = Runs(*read_plan(plan))
    assert 2 <= runs.check() <= 200 and not runs.repeated


def test_the_plan_that_the_page_explains_is_one(tmp_path):
    page = (ROOT / "docs" / "many-runs.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert runs_of(tmp_path, block).check() == 2 * (2 * 2 * 5) - 2 * 5


def test_the_schema_is_of_the_plan_and_fits_the_plans(tmp_path):
    assert plan_schema.PAGE.read_text(encoding="utf-8") == plan_schema.schema(), (
        "run `python -m lab.upkeep.plan_schema`"
    )
    bad = tmp_path / "bad.yaml"
    bad.write_text("notebooks: ['00']\ngird: {steps: [1]}\n")
    check = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(plan_schema.PAGE)]
    good = [str(plan) for plan in PLANS]
    assert subprocess.run([*check, *good], capture_output=True).returncode == 0
    assert subprocess.run([*check, str(bad)], capture_output=True).returncode == 1


def test_what_belongs_no_more_is_kept_aside(clone):
    runs = runs_of(clone, "notebooks: ['00']\ngrid: {steps: [1, 2]}")
    folder = SweepFolder(clone / "sweeps" / "a")
    with folder.held():
        folder.begin(runs.plan.text())
        for run in runs:
            folder.add(row(run.key, parameters=run.values), b"{}")
        fewer = runs_of(clone, "notebooks: ['00']\ngrid: {steps: [2, 3]}")
        folder.begin(fewer.plan.text())
        folder.write_tables(fewer)
    table = (folder.path / "runs.csv").read_text().splitlines()
    assert [line.split(",")[2] for line in table[1:]] == ["ok", "to do"]
    assert len((folder.path / "aside.csv").read_text().splitlines()) == 2
    assert len(list(folder.notebooks.iterdir())) == 0 + 2
    assert len(list(folder.path.glob("plan.until-*.yaml"))) == 1
