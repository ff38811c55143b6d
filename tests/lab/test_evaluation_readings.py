"""The table of readings: where and when they are read."""

import pandas as pd
import pytest
import torch

from dsd_tutorial.attention import READINGS, cross_attention_layers
from dsd_tutorial.matching import components
from dsd_tutorial.matching.items import item_hits, item_pairs
from dsd_tutorial.shapes import TASKS
from dsd_tutorial.shapes.tasks import validation_set
from lab.measuring import pairs, readings


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("readings")
    how = {
        "validation": 2, "steps": 2, "progress": False, "cache": folder / "cache",
        "output": folder / "readings.csv",
    }  # fmt: skip
    return readings.evaluate_readings(tiny, **how), how


def test_every_cell_has_its_row(tiny, measured):
    table = pd.read_csv(measured[0], dtype={"head": str})
    whole, heads = table[table["head"] == "all"], table[table["head"] != "all"]
    steps = {"comvg": 2, "winoground": 2, "refcoco": 1, "vqa": 1}  # where the prior is known
    cells = len(READINGS) * len(cross_attention_layers(tiny))
    assert whole.groupby("task").size().to_dict() == {t: n * cells for t, n in steps.items()}
    assert set(steps) == set(TASKS)
    assert not table.duplicated(list(readings.KEYS)).any()
    assert table.accuracy.between(0, 1).all() and (table.n == 2).all()
    assert (table.low <= table.accuracy).all() and (table.accuracy <= table.high).all()
    assert set(heads.reading) == {"log_sum_exp"} and set(heads.task) == {"comvg", "winoground"}


@pytest.mark.parametrize("task", ["refcoco", "winoground"])
def test_a_cell_is_what_score_says(tiny, measured, task):
    """The prior off where one image chooses among texts, at the time step that the row names."""
    table = pd.read_csv(measured[0], dtype={"head": str})
    items, layer = validation_set(task, 2), cross_attention_layers(tiny)[-1]
    cache = pairs.PairCache(tiny, measured[1]["cache"], 2, progress=False)
    parts = cache.get(items, "validation").structure
    for reading in ("direction", "peak"):
        want = components(
            tiny, items.images(64), items.texts, pairs=item_pairs(items).flatten(0, 1), steps=2,
            layers=[layer], readings=[reading], token_mask=(), progress=False,
            prior="validation" if task == "refcoco" else None,
        ).select(steps=cache.inner).score()  # fmt: skip
        found = parts.select(reading, [layer], cache.inner).score()
        torch.testing.assert_close(found, want, atol=1e-4, rtol=1e-4)
        (step,) = cache.inner
        (row,) = table[
            (table.task == task) & (table.reading == reading) & (table.layer == layer)
            & (table.step == step) & (table["head"] == "all")
        ].itertuples()  # fmt: skip
        hits = item_hits(items, parts.select(reading, [layer], [step]).score())
        assert row.accuracy == pytest.approx(hits.mean())


def test_what_was_computed_is_not_computed_again(tiny, measured, monkeypatch):
    path, how = measured
    before = path.read_text()
    path.unlink()

    def again(*args, **how):
        raise AssertionError("computed again")

    monkeypatch.setattr(pairs, "measure_pairs", again)
    monkeypatch.setattr(readings, "item_hits", again)
    readings.evaluate_readings(tiny, **how)
    assert path.read_text() == before
