"""The tool that plants faults: what it leaves alone, which tests it asks, what it concludes."""

import ast
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.upkeep import mutant_report, mutant_runs, mutant_sites, mutants

ROOT = Path(__file__).parents[2]
METHODS = ROOT / "tests" / "methods"
SOURCE = """
def f(a: int | None = 1, *, b=2) -> int | None:
    if a > b:
        raise ValueError(f"{a + 1} is too large")
    for x in tqdm(range(3 * b), total=3 * b):
        a = (
            a
            - x
        )
    return a
"""


def spans(source):
    lines = source.splitlines()
    rows = mutant_sites._silent(ast.parse(source))
    return sorted(lines[a[0] - 1][a[1] : b[1]] for a, b in rows if a[0] == b[0])


def test_annotations_messages_and_bars_are_left_alone():
    want = [
        'f"{a + 1} is too large"',
        "int | None",
        "int | None",
        "tqdm(range(3 * b), total=3 * b)",
    ]
    assert spans(SOURCE) == want


@pytest.mark.parametrize(
    ("line", "around"),
    [(2, (2, 2)), (3, (3, 3)), (4, (4, 4)), (5, (5, 5)), (8, (6, 9)), (10, (10, 10))],
)
def test_a_line_belongs_to_its_smallest_statement(line, around):
    assert mutant_sites._around(mutant_sites._statements(ast.parse(SOURCE)), line) == (around, "f")


def test_the_tests_of_a_line_come_quick_ones_first_and_slow_ones_not():
    reach = mutant_runs.Reach(
        seconds={"a::1": 0.3, "a::2": 0.1, "b::1": 0.2, "b::2": 9.0},
        lines={"f.py": {3: ["a::1", "b::2"], 4: ["a::2"], 9: []}},
        loaded={"f.py": [1]},
    )
    assert reach.tests("f.py", 3, 4) == ["a::2", "a::1"]
    assert reach.tests("f.py", 9, 9) == [] == reach.tests("g.py", 3, 3)
    assert reach.tests("f.py", 1, 2) == ["a::2", "b::1", "a::1"]  # runs on import: any may notice


def test_a_module_is_imported_from_the_given_text(tmp_path, monkeypatch):
    (tmp_path / "pack").mkdir()
    for name in ("__init__", "inner"):
        (tmp_path / "pack" / f"{name}.py").write_text("VALUE = 1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, file in (("pack", "pack/__init__.py"), ("pack.inner", "pack/inner.py")):
        finder = mutant_runs.Mutated(Path(file), "VALUE = 2")
        monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
        for known in ("pack", "pack.inner"):
            monkeypatch.delitem(sys.modules, known, raising=False)
        __import__("pack.inner")
        assert {n: sys.modules[n].VALUE for n in ("pack", "pack.inner")} == {
            "pack": 2, "pack.inner": 1 + (name == "pack.inner")
        }  # fmt: skip


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A checkout of one room with one file and one test, and three mutants of it."""
    for name, text in (
        ("dsd_tutorial/matching/metrics.py", "def f(a):\n    return a + 1\n"),
        ("tests/methods/matching/test_metrics.py", ""),
        ("tests/methods/test_defaults.py", ""),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(mutant_report, "STATE", tmp_path)
    monkeypatch.setattr(mutant_report, "ROOT", tmp_path)
    monkeypatch.setattr(mutant_report, "REASONS", tmp_path / "mutants.md")
    mutant_sites.digest.cache_clear()
    found = [
        mutant_sites.Mutant(
            tmp_path, "metrics", "dsd_tutorial/matching/metrics.py", f"Op{i}", 0, (2, 2), 2, "f"
        )
        for i in range(20)
    ]
    monkeypatch.setattr(mutant_report, "mutants_of", lambda tree, room: iter(found))
    monkeypatch.setattr(
        mutant_sites.Mutant, "text", lambda self: f"def f(a):\n    return a - {self.operator}\n"
    )
    yield tmp_path, found
    mutant_sites.digest.cache_clear()


def test_a_survivor_needs_a_reason_and_a_room_its_share(tree, capsys):
    path, found = tree
    known = mutant_report.Known(path / "results.jsonl", path)
    for i, mutant in enumerate(found):
        known.add("metrics", mutant.key(), "survived" if i < 2 else "killed", 0.1, 3)
    assert mutant_report.report(["metrics"], known) == 1
    said = capsys.readouterr().out
    assert "18 of   20 killed =  90.0%" in said and "return a + 1 -> return a - Op1" in said
    rows = [mutant_report.row_of(m, "equal by construction") for m in found[:2]]
    mutant_report.REASONS.write_text("\n".join(rows), encoding="utf-8")
    assert mutant_report.report(["metrics"], known) == 0
    known.add("metrics", found[2].key(), "survived", 0.1, 3)
    mutant_report.REASONS.write_text(
        "\n".join([*rows, mutant_report.row_of(found[2], "so")]), encoding="utf-8"
    )
    assert mutant_report.report(["metrics"], known) == 1  # reasons for all, but 85 % killed
    known.add("metrics", found[2].key(), "timeout", 0.1, 3)
    assert mutant_report.report(["metrics"], known) == 0  # endless is noticed
    assert "no survivor any more: dsd_tutorial/matching/metrics.py f" in capsys.readouterr().out


def test_what_is_known_holds_while_source_and_tests_do(tree, capsys):
    path, found = tree
    file = path / "results.jsonl"
    known = mutant_report.Known(file, path)
    known.add("metrics", found[0].key(), "survived", 0.1, 3)
    known.add("metrics", found[1].key(), "killed", 0.1, 3)

    def outcomes():
        mutant_sites.digest.cache_clear()
        return [mutant_report.Known(file, path).outcome(m) for m in found[:3]]

    assert outcomes() == ["survived", "killed", None]
    assert all(json.loads(line)["tests"] == 3 for line in file.read_text().splitlines())
    (path / "tests/methods/matching/test_metrics.py").write_text("# another")
    assert outcomes() == [None, "killed", None]  # a new test may notice what none did
    mutant_report.report(["metrics"], mutant_report.Known(file, path))
    assert "19 of 20 not run" in capsys.readouterr().out
    (path / "dsd_tutorial/matching/metrics.py").write_text("# another")
    assert outcomes() == [None, None, None]


def test_every_written_reason_can_be_read():
    """A line that looks like a reason is one, so that no survivor goes without by a slip."""
    text = mutant_report.REASONS.read_text(encoding="utf-8")
    assert len(mutant_report.reasons()) == sum(line.startswith("- `") for line in text.splitlines())
    for (file, *_), reason in mutant_report.reasons().items():
        assert (mutant_report.ROOT / file).exists() and len(reason) > 20, file


def test_one_run_at_a_time_in_a_fresh_clone_too(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "STATE", tmp_path / "build" / "mutants")
    with mutants.alone(), pytest.raises(SystemExit, match="another run"), mutants.alone():
        pass
    with mutants.alone():
        pass


@pytest.mark.parametrize("room", mutant_sites.ROOMS)
def test_a_room_is_asked_by_all_tests_of_its_own(room):
    found = mutant_sites.tests_of(ROOT, room)
    own = {f"tests/methods/{room}/{p.name}" for p in (METHODS / room).glob("test_*.py")}
    assert own <= {*found} and len(found) == len({*found}) > 1
    assert found[0] == "tests/methods/test_defaults.py"


@pytest.mark.parametrize("word", [mutant_runs.KILLED, mutant_runs.SURVIVED])
def test_a_run_in_which_no_mutant_takes_effect_is_refused(word):
    reach = mutant_runs.Reach(seconds={"t.py::quick": 0.1, "t.py::slow": 99.0})

    class Warm:
        def outcome(self, file, text, tests, usual):
            with pytest.raises(RuntimeError):
                exec(text)
            assert tests == ["t.py::quick"]
            return word, 0.0

    refused = pytest.raises(RuntimeError, match="heat.py is imported past the mutants")
    with refused if word == mutant_runs.SURVIVED else nullcontext():
        mutants.require_effect(Warm(), reach, "attention/heat.py")


def test_a_test_that_noticed_a_mutant_of_a_file_is_asked_first_about_the_next(monkeypatch):
    warm, asked = object.__new__(mutant_runs.Warm), []
    warm.killed_by = mutant_runs.Counter()
    monkeypatch.setattr(warm, "_fork", lambda run, limit, log: run())

    def run(file, text, tests, told):
        asked.append(tests)
        monkeypatch.setattr(mutant_runs.os, "_exit", lambda status: None)
        for test in tests:
            mutant_runs.Chosen(tests, told).pytest_runtest_logreport(
                SimpleNamespace(failed=test == "c" and file == "f.py", nodeid=test)
            )
        return int(file == "f.py")

    monkeypatch.setattr(warm, "_test", run)
    for file, word in (("f.py", "killed"), ("f.py", "killed"), ("g.py", "survived")):
        assert warm.outcome(file, "a = 1", ["a", "b", "c"], 1.0)[0] == word
    assert asked == [["a", "b", "c"], ["c", "a", "b"], ["a", "b", "c"]]
