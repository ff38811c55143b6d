"""Hand-ins of a whole notebook: whose they are, what they get, what is written, what goes on."""

import csv
import io
import json

import pytest
import torch
from typer.testing import CliRunner

from dsd_tutorial.cli import app
from dsd_tutorial.course import checks
from dsd_tutorial.course.grading import Limits, grade, wire
from dsd_tutorial.course.grading.handins import Unreadable, lessons, person_of, read
from dsd_tutorial.course.grading.needed import needed
from dsd_tutorial.course.notebooks import find_notebook
from lab.upkeep.handins import hand_in, put, solutions

PATH = find_notebook("01")
KNOWN = lessons()
LIMITS = Limits(seconds=5)
SUM = "def soft_maximum(logits, lam):\n    return torch.logsumexp(lam * logits, -1) / lam\n"
TORCH = "def without_prior(scores, on):\n    return scores - torch.mean(on)\n"
SCRIPT = "def caption_scores(x, m):\n    raise ValueError('<script>`<script>`')\n"
MISTAKE = "sum instead of mean"


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Four hand-ins of notebook 01 and one file that is none, judged."""
    folder = tmp_path_factory.mktemp("hand-ins")
    put(folder, "ada", PATH, solutions(PATH))
    put(folder, "bob", PATH, {"soft_maximum": SUM, "without_prior": TORCH})
    cheat = put(folder, "cat", PATH, {"soft_maximum": SUM, "caption_scores": SCRIPT})
    _forge(cheat)
    ada = folder / "ada" / PATH.name
    reads = f"import json\ncells = json.load(open({str(ada)!r}))['cells']\n"
    reads += "exec(next(''.join(c['source']) for c in cells if 'def soft_maximum(' in "
    reads += "''.join(c['source'])))\nsoft_maximum = soft_maximum"
    put(folder, "dan", PATH, {"soft_maximum": reads})
    (folder / "eve").mkdir()
    (folder / "eve" / PATH.name).write_text("not a notebook")
    output = tmp_path_factory.mktemp("out") / "grades.csv"
    said = []
    grade(folder, output, LIMITS, jobs=2, tell=said.append)
    return folder, output, said


def _forge(path):
    """Change the check itself, the cell that imports it, and what the output says."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if "import Spent, apart, checks" in source:
            cell["source"] = source + "\nchecks.soft_maximum = lambda f: '✓ correct.'"
        if "checks.soft_maximum(" in source:
            tick = {"text/markdown": "✓ **soft_maximum**: correct."}
            about = {"text/markdown": {"attempts": 3}}
            cell["outputs"] = [
                {"output_type": "execute_result", "data": tick, "metadata": about},
            ]
    path.write_text(json.dumps(notebook), encoding="utf-8")


def rows(output):
    with open(output, newline="", encoding="utf-8") as file:
        return {(row["person"], row["exercise"]): row for row in csv.DictReader(file)}


def test_a_row_for_each_person_and_exercise(graded):
    found = rows(graded[1])
    names = ("soft_maximum", "caption_scores", "noise_average", "text_wins", "without_prior")
    for name in (*names, "nouns_apart"):
        assert found["ada", name]["right"] == "1" and found["ada", name]["mistake"] == ""
    assert found["bob", "soft_maximum"]["right"] == "0"
    assert found["bob", "soft_maximum"]["mistake"] == MISTAKE
    assert found["bob", "text_wins"]["mistake"] == "not attempted"
    assert found["bob", "without_prior"]["mistake"] == "mean over the wrong axis"
    assert float(found["bob", "soft_maximum"]["seconds"]) >= 0


def test_what_a_file_says_of_itself_counts_for_nothing_but_attempts(graded):
    found = rows(graded[1])["cat", "soft_maximum"]
    assert found["right"] == "0" and found["attempts"] == "3"
    assert rows(graded[1])["ada", "soft_maximum"]["attempts"] == ""


def test_nobody_reads_another_ones_work(graded):
    found = rows(graded[1])["dan", "soft_maximum"]
    if "no walls" in graded[2][0]:
        pytest.skip(graded[2][0])
    assert found["right"] == "0" and found["mistake"] == "an error inside your function"


def test_what_is_no_notebook_is_said_and_does_not_end_the_others(graded):
    found = rows(graded[1])["eve", ""]
    assert found["right"] == "0" and "cannot be read" in found["mistake"]


def test_pages_for_learners_and_for_the_instructor(graded):
    pages = graded[1].with_suffix("")
    summary = (pages / "summary.html").read_text(encoding="utf-8")
    for said in (MISTAKE, "6 of 6", "eve", "Exercise 1"):
        assert said in summary
    assert "an error inside the function" in summary and "For example: It stopped at" in summary
    (bob,) = pages.glob("bob-*.html")
    page = bob.read_text(encoding="utf-8")
    _, cure, *_ = checks.soft_maximum.mistakes[MISTAKE]
    assert cure in page and "not attempted" in page and bob.name in summary
    (cat,) = pages.glob("cat-*.html")
    assert "<script>" not in cat.read_text(encoding="utf-8")
    (ada,) = pages.glob("ada-*.html")
    assert "6 of 6 exercises are" in ada.read_text(encoding="utf-8")


def test_what_was_judged_is_not_judged_again(graded, monkeypatch):
    folder, output, _ = graded
    before = output.read_text(encoding="utf-8")
    said = []
    done = grade(folder, output, LIMITS, tell=said.append)
    assert all(each.again or each.problem for each in done)
    assert output.read_text(encoding="utf-8") == before
    put(folder, "bob", PATH, {"soft_maximum": SUM, "text_wins": solutions(PATH)["text_wins"]})
    done = grade(folder, output, LIMITS, tell=said.append)
    assert [each.person for each in done if not each.again and not each.problem] == ["bob"]
    assert rows(output)["bob", "text_wins"]["right"] == "1"


def test_the_table_may_not_lie_among_the_hand_ins(graded):
    folder, *_ = graded
    for wrong in (folder / "ada.csv", folder.with_suffix(".csv")):
        with pytest.raises(ValueError, match="elsewhere"):
            grade(folder, wrong, LIMITS)


def test_no_cell_of_the_table_is_a_formula(tmp_path):
    from dsd_tutorial.course.grading.grade import Graded, table

    text = table([Graded("f", "=HYPERLINK(1)", "n", [], "broken")])
    assert "'=HYPERLINK(1)" in text


def test_the_command_says_what_is_missing(tmp_path):
    done = CliRunner().invoke(app, ["grade", str(tmp_path), "--output", str(tmp_path / "g.csv")])
    assert done.exit_code == 2 and "no notebooks" in done.output


# -- files and their parts ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "person"),
    [
        ("ada/01_attention_scores.ipynb", "ada"),
        ("Ada L_1234_assignsubmission_file_/x.ipynb", "Ada L"),
        ("ada_01_attention_scores.ipynb", "ada"),
        ("ada.ipynb", "ada"),
        ("01_attention_scores.ipynb", "01_attention_scores"),
    ],
)
def test_whose_a_file_is(tmp_path, name, person):
    assert person_of(tmp_path / name, tmp_path, "01_attention_scores") == person


def test_a_notebook_is_known_by_its_cells_whatever_its_file_is_called(tmp_path):
    path = tmp_path / "my work.ipynb"
    notebook = hand_in(PATH, {})
    path.write_text(json.dumps(notebook))
    assert read(path, tmp_path, KNOWN).lesson.path == PATH
    for cell in notebook["cells"]:
        cell["id"] = "other"
    path.write_text(json.dumps(notebook))
    assert read(path, tmp_path, KNOWN).lesson.path == PATH
    (tmp_path / "link.ipynb").symlink_to(path)
    with pytest.raises(Unreadable, match="link"):
        read(tmp_path / "link.ipynb", tmp_path, KNOWN)
    path.write_text("[" * 100_000)
    with pytest.raises(Unreadable, match="cannot be read"):
        read(path, tmp_path, KNOWN)


def test_every_exercise_of_the_course_is_found_with_its_title_and_solution():
    found = [name for lesson in KNOWN for name in lesson.exercises]
    assert set(found) == {n for n in checks.__all__ if n not in ("Exercise", "Result")}
    for lesson in KNOWN:
        assert set(lesson.titles) == set(lesson.exercises) == set(solutions(lesson.path))
        assert all(title.startswith("Exercise ") for title in lesson.titles.values())


# -- what a function needs ------------------------------------------------------------------------


def names(cells, name="f"):
    return [label for label, _ in needed(list(enumerate(cells)), name)]


def test_only_what_the_function_uses_is_executed():
    cells = ["import math, os", "slow = os.sleep(9)", "k = math.pi", "print(slow)"]
    assert names([*cells, "def f(x):\n    slow = x\n    return slow * k"]) == [0, 2, 4]
    assert names([*cells, "def f(x):\n    return slow"]) == [0, 1, 4]


@pytest.mark.parametrize(
    "change",
    ["held.append(1)", "held[0] = 1", "held.x = 1", "for i in range(3):\n    held += [i]"],
)
def test_what_changes_a_value_is_executed_too(change):
    assert names(["held = []", change, "other = 1", "def f():\n    return held"]) == [0, 1, 3]


def test_calling_a_module_is_no_change_of_it_but_assigning_to_it_is():
    cells = ["import os", "os.call(1)", "os.name = 2", "def f():\n    return os"]
    assert names(cells) == [0, 2, 3]


def test_what_stands_for_a_solution_in_a_hand_out_is_not_executed(tmp_path):
    """The solution is not to be had while a hand-in is judged: asking for it would be an error."""
    path = tmp_path / "ada.ipynb"
    path.write_text(json.dumps(hand_in(PATH, solutions(PATH))))
    found = read(path, tmp_path, KNOWN)
    for name in found.lesson.exercises:
        assert not [source for _, source in found.cells_for(name) if "_solution" in source]


def test_lines_of_ipython_and_broken_cells_are_passed_over():
    assert names(["%matplotlib inline\nk = 1", "k = = 2", "!ls", "def f():\n    return k"]) == [
        0,
        3,
    ]
    with pytest.raises(SyntaxError):
        names(["def f(:"])


def test_of_an_import_only_the_wanted_names_are_taken():
    ((_, statement), _) = needed([("a", "from m import b, c as d"), ("b", "f = d")], "f")
    assert [alias.name for alias in statement.names] == ["c"]


# -- the wire -------------------------------------------------------------------------------------


def test_values_travel_whole():
    sent = {"a": [1, 2.5, None, True, "text"], "t": (torch.eye(2), torch.tensor([True]))}
    back = wire.decode(*wire.receive(io.BytesIO(wire.encode(sent))))
    assert back["a"] == sent["a"] and isinstance(back["t"], tuple)
    assert torch.equal(back["t"][0], sent["t"][0]) and torch.equal(back["t"][1], sent["t"][1])


@pytest.mark.parametrize("text", [b"{", b'{"tensor": "0"}', b'{"code": 1}', b"[" * 100_000])
def test_what_is_no_message_is_garbled(text):
    with pytest.raises(wire.Garbled):
        wire.decode(text, b"")
