"""What notebooks say of their numbers: distance, verdict, table, costs; rows of stored tables."""

from types import SimpleNamespace

import pytest
import torch

from dsd_tutorial.course import (
    ResultsError,
    Spent,
    apart,
    print_table,
    read_results,
    row_of,
    rows_by,
    rows_of,
    verdict,
)
from dsd_tutorial.matching.metrics import Interval


def test_distance_is_relative_to_the_second():
    assert apart(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])) == 0.5
    assert apart(torch.zeros(2), torch.zeros(2)) == 0


def test_verdict_looks_at_the_whole_interval():
    gap = Interval(0.5, 0.4, 0.6, 9)
    said = [verdict(gap, reference) for reference in (0.3, 0.4, 0.7)]
    assert said == ["above", "not told apart from", "below"]


def test_table_shows_intervals_whole_numbers_and_gaps(capsys):
    print_table({"CLIP": {"a": Interval(0.5, 0.4, 0.6, 9), "n": 3000}, "DSD": {"a": 0.251}})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["a", "n"], ["CLIP", "0.50", "[0.40,", "0.60]", "3,000"], ["DSD", "0.25"]]


def test_spent_counts_passes_of_the_unet(tiny, capsys):
    spent = Spent(tiny)
    tiny.sample(["a"], steps=2, guidance=1.0, progress=False)
    spent.report()
    spent._counting.__exit__(None, None, None)
    assert capsys.readouterr().out.startswith("2 U-Net passes, ")


def test_rows_are_chosen_by_columns(capsys):
    other = SimpleNamespace(is_embedded=False, name="another")
    table = read_results("few_shot", other, task=["comvg", "vqa"], shots=0)
    assert "not on another" in capsys.readouterr().out
    assert set(table.task) == {"comvg", "vqa"} and set(table.shots) == {0}
    assert row_of(table, task="vqa", method="clip").accuracy == pytest.approx(
        rows_of(table, task="vqa", method="clip").accuracy.iloc[0]
    )
    with pytest.raises(ResultsError, match="no row with"):
        row_of(table, method="nothing")


def test_rows_make_a_tree_that_charts_take(capsys):
    other = SimpleNamespace(is_embedded=False, name="another")
    table = read_results("few_shot", other)
    tree = rows_by(table, "task", "method", shots=0, task=["comvg", "vqa"])
    assert list(tree) == ["comvg", "vqa"]
    assert tree["vqa"]["clip"] == row_of(table, task="vqa", method="clip", shots=0)
