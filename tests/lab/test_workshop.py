"""docs/workshop.md: its timetables are those of the notebooks, and its commands are real."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dsd_tutorial.cli import app
from dsd_tutorial.course.notebooks import Notebook
from lab.upkeep import workshop
from lab.upkeep.blocks import with_blocks

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / workshop.PAGE).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def known():
    return workshop.lessons()


def test_the_page_is_what_the_notebooks_say():
    made = with_blocks(TEXT, workshop.COMMAND, workshop.blocks())
    assert made == TEXT, f"run `{workshop.COMMAND}`"


def test_every_exercise_is_counted(known):
    for one in known.values():
        text = one.notebook.path.read_text(encoding="utf-8")
        assert len(one.exercises) == len(re.findall(r"### ✏ Exercise", text))
    assert sum(len(one.exercises) for one in known.values()) >= 13


@pytest.mark.parametrize("title", workshop.PLANS)
def test_a_plan_ends_on_time_and_leaves_room_for_questions(known, title):
    total, plan = workshop.PLANS[title]
    table = workshop.plan_table(known, total, plan)
    minutes = [int(m or 0) for m in re.findall(r"^\| \d+:\d\d \| (\d*) \|", table, re.M)]
    assert sum(minutes) == total and minutes[-1] >= workshop.LEAST_QUESTIONS


def test_a_notebook_has_run_when_its_exercise_begins(known):
    """Between the start of a run and the next exercise you talk at least as long as it takes."""
    for _, plan in workshop.PLANS.values():
        waiting = 0
        for entry in plan:
            if entry[0] == "run":
                waiting = known[entry[1]].run
            elif entry[0] == "do":
                assert waiting <= 0, f"{entry}: {waiting} more minutes to talk"
            else:
                waiting -= entry[0]


def test_an_overfull_plan_is_refused(known):
    with pytest.raises(ValueError, match="only 3 of 13"):
        workshop.plan_table(known, 13, [(10, "talk")])


def test_an_unmeasured_notebook_counts_what_it_may_take(known):
    one = next(iter(known.values()))
    bare = Notebook(one.notebook.path, "title")
    assert workshop.lesson(bare).run == workshop.UNMEASURED
    assert f"≤ {workshop.UNMEASURED}" in workshop.minutes_table({"00": workshop.lesson(bare)})


@pytest.mark.parametrize("page", ["workshop.md", "further-reading.md", "errors.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (ROOT / "docs" / target).exists(), f"{page} links to {target}"


def test_modules_named_in_further_reading_exist():
    import importlib

    text = (ROOT / "docs" / "further-reading.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`(dsd_tutorial[\w.]+)`", text))
    assert len(names) >= 5
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name


def test_commands_on_the_page_are_real():
    blocks = "\n".join(re.findall(r"```\n(.*?)```", TEXT, re.S))
    shown = set(re.findall(r"^dsd-tutorial (\w+)(.*)$", blocks, re.M))
    assert {command for command, _ in shown} >= {"doctor", "export", "grade", "run"}
    for command, rest in shown:
        done = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
        assert done.exit_code == 0
        for option in re.findall(r"--[a-z]+", rest.split("#")[0]):
            assert option in done.output, f"dsd-tutorial {command} has no {option}"
