"""The tables of readings: where and when they are read, and what they reach on test items."""

import pandas as pd
import pytest

from dsd_tutorial.attention import READINGS, cross_attention_layers
from dsd_tutorial.prompt_learning.reading_weights import STEPS
from dsd_tutorial.shapes import TASKS
from lab.measuring import readings


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("readings")
    how = {
        "n_items": 2, "validation": 2, "shots": (1,), "seeds": 2, "progress": False,
        "cache": folder / "cache", "output": folder / "readings.csv",
    }  # fmt: skip
    return readings.evaluate_readings(tiny, **how), how


def test_every_cell_has_its_row(tiny, measured):
    table = pd.read_csv(measured[0])
    assert len(table) == len(TASKS) * len(READINGS) * len(cross_attention_layers(tiny)) * len(STEPS)
    assert not table.duplicated(list(readings.KEYS)).any()
    assert table.accuracy.between(0, 1).all() and (table.n == 2).all()
    assert (table.low <= table.accuracy).all() and (table.accuracy <= table.high).all()


def test_every_method_is_tested_and_says_what_it_read(measured):
    table = pd.read_csv(measured[0].with_name("readings_test.csv"))
    assert len(table) == len(TASKS) * len(readings.METHODS)
    assert dict(zip(table.method, table.reads, strict=True)) == readings.METHODS
    labels = table.groupby("method").labels.agg(set).to_dict()
    assert labels["readings"] == labels["readings_error"] == {1 + 2} and labels["error"] == {0}
    assert labels["structure"] == labels["log_sum_exp"] == {2}
    assert (table[table.method == "readings"].seeds == 2).all()


def test_what_was_computed_is_not_computed_again(tiny, measured, monkeypatch):
    path, how = measured
    before = path.read_text()
    path.unlink()

    def again(*args, **how):
        raise AssertionError("computed again")

    monkeypatch.setattr(readings, "reading_components", again)
    monkeypatch.setattr(readings, "item_hits", again)
    readings.evaluate_readings(tiny, **how)
    assert path.read_text() == before
