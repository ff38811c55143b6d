"""Reports: effects, paired differences and failures are those of the rows; pages can be read."""

import json
import re

import numpy as np
import pytest
from made_sweep import SEEDS, STEPS, a_sweep, value_of
from scipy import stats

from dsd_tutorial.course.sweeps import SweepError, read_sweep, write_report
from dsd_tutorial.course.sweeps.comparing import compare, write_comparison
from dsd_tutorial.course.sweeps.results import estimate
from lab.measuring.sweeps import table_of

pytest.importorskip("jinja2")


def test_an_effect_is_students_over_seeds(tmp_path):
    found = read_sweep(a_sweep(tmp_path / "a").path)
    assert found.varied == ["steps"] and found.figures == ["accuracy/a/x", "accuracy/b/x"]
    effect = found.effect("accuracy/a/x", "steps")
    assert list(effect) == list(STEPS) and [e.n for e in effect.values()] == [4, 4, 3]
    values = [value_of(10, seed) for seed in SEEDS]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert effect[10] == pytest.approx((np.mean(values), low, high, 4))
    assert np.isnan(estimate([1.0]).low)


def test_differences_are_paired_by_seed(tmp_path):
    found = read_sweep(a_sweep(tmp_path / "a").path)
    rows = found.differences("steps", ["accuracy/a/x"]).set_index("to")
    gaps = [value_of(10, seed) - value_of(5, seed) for seed in SEEDS]
    assert rows.difference[10] == pytest.approx(np.mean(gaps)) and rows.pairs[10] == 4
    low, _ = stats.t.interval(0.95, 3, np.mean(gaps), stats.sem(gaps))
    assert rows.low[10] == pytest.approx(low)
    assert rows.pairs[20] == 3  # one of them failed
    assert rows.low[20] > 0.14  # the seeds' own spread, which is larger, cancels


def test_the_page_says_it_all_and_lets_nothing_in(tmp_path):
    page = write_report(a_sweep(tmp_path / "a").path).read_text(encoding="utf-8")
    images = re.findall(r"<img [^>]*>", page)
    assert images and all(len(re.search(r'alt="([^"]*)"', x).group(1)) > 30 for x in images)
    for said in ("ValueError in 00_orientation, cell 3", "accuracy by steps", "4</dd>",
                 'href="runs/00_orientation-key-1.ipynb"', "Paired differences",
                 '<html lang="en">'):  # fmt: skip
        assert said in page, said
    assert "<b>no</b>" not in page and "http" not in re.sub(r"<img [^>]*>", "", page)


def test_tables_of_notebooks_are_one_table(tmp_path):
    lines = (a_sweep(tmp_path / "a").path / "records.csv").read_text().splitlines()
    assert lines[:2] == ["run,table,layer,share", "1,t,up,0.5"] and len(lines) == 13


def test_two_sweeps_agree_or_it_is_said_where_not(tmp_path):
    one = read_sweep(a_sweep(tmp_path / "a").path)
    same = read_sweep(a_sweep(tmp_path / "b").path)
    other = read_sweep(a_sweep(tmp_path / "c", change=0.5, failing=(5, 0)).path)
    _, unequal = compare(one, same)
    assert unequal.empty
    figures, unequal = compare(one, other)
    assert figures.difference.tolist() == pytest.approx([0.5, 0.5]) and set(figures.pairs) == {10}
    assert len(unequal) == 20 and set(unequal.provenance) == {"equal"}
    assert "agree" in write_comparison(one.path, same.path).read_text()


def test_a_table_of_results_has_a_row_for_each_figure_of_each_run(tmp_path):
    whole = a_sweep(tmp_path / "a", failing=None)
    rows = table_of(read_sweep(whole.path), "accuracy").set_index(["steps", "seed", "method"])
    assert len(rows) == 24 and rows.value[10, 2, "a"] == value_of(10, 2)
    with pytest.raises(SweepError, match="1 runs .* not ended well"):
        table_of(read_sweep(a_sweep(tmp_path / "b").path), "accuracy")


def test_where_there_is_no_sweep(tmp_path):
    with pytest.raises(SweepError, match="no runs.csv"):
        read_sweep(tmp_path)


def test_a_repeat_that_differs_is_told(tmp_path):
    folder = a_sweep(tmp_path / "a")
    said = {"run": 2, "differing": {"accuracy/a/x": [1, 2]}, "provenance": {}}
    (folder.path / "repeats.jsonl").write_text(json.dumps(said) + "\n")
    assert "Run 2 was not repeated in accuracy/a/x (equal provenance)" in write_report(
        folder.path
    ).read_text(encoding="utf-8")
