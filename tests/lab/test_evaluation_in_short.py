"""The tables of quality, of retrieval beside generation, and of the bridge."""

import pandas as pd
import pytest

from dsd_tutorial.matching.cost import measure
from dsd_tutorial.quality import (
    KINDS,
    degraded_scenes,
    pixel_statistics,
    rank_correlation,
    regression,
)
from lab.measuring.bridge import METHODS, evaluate_bridge
from lab.measuring.quality import FEATURES, TEST_SEED, evaluate_quality
from lab.measuring.retrieval import WAYS, evaluate_retrieval


def test_quality_has_every_row_and_goes_on(tiny, tmp_path):
    plan = {"n": 16, "train": 24, "seeds": 2, "time_steps": (20,), "updates": 1}
    how = {"output": tmp_path / "quality.csv", "cache": tmp_path, "progress": False}
    table = pd.read_csv(evaluate_quality(tiny, **plan, **how)).set_index(["features", "held_out"])
    assert len(table) == len(FEATURES) * (len(KINDS) + 3)
    assert (table.xs("pixels").gap == 0).all() and table.value.between(-1, 1).all()
    assert set(table.xs("each", level=1).n) == {16} and set(table.xs("blur", level=1).n) == {4}
    parts = [table.value["clip", kind] for kind in KINDS]
    assert table.value["clip", "each"] == pytest.approx(sum(parts) / 4, abs=1e-5)
    assert set(table.passes[["pixels", "clip"]]) == {0} and set(table.passes["learned"]) == {1}

    train, test = degraded_scenes(tiny, 24, 0), degraded_scenes(tiny, 16, TEST_SEED, "test")
    found = []
    for known in (train, degraded_scenes(tiny, 24, 1)):
        rest = known.select([kind for kind in KINDS if kind != "noise"])
        fitted = regression().fit(pixel_statistics(rest.images), rest.strengths)
        left = test.select(["noise"])
        predicted = fitted.predict(pixel_statistics(left.images))
        found.append(rank_correlation(predicted, left.strengths, left.kinds).value)
    assert table.value["pixels", "noise"] == pytest.approx(sum(found) / 2, abs=1e-5)
    with measure(tiny) as meter:
        evaluate_quality(tiny, **plan, **how)
    assert meter.unet_passes == 0


def test_retrieval_has_every_row_and_the_decision_is_one_of_two(tiny, tmp_path):
    plan = {"n": 6, "validation": 4, "texts": 4, "gallery": 8, "images": 2, "sampling_steps": 1,
            "steps": 2}  # fmt: skip
    how = {"output": tmp_path / "retrieval.csv", "cache": tmp_path, "progress": False}
    table = pd.read_csv(evaluate_retrieval(tiny, **plan, **how)).set_index(["answer", "texts"])
    assert len(table) == len(WAYS) * 3 and set(table.n["drawn"]) == {3, 6}
    assert table.value["found", "not_in_gallery"] == 0  # nothing there is right
    assert table.value["found", "in_gallery"] == pytest.approx(2 * table.value["found", "all"])
    assert (table.value["either"] >= table.value["decided"]).all()
    assert (table.gain["drawn"] == 0).all() and (table.drawn_share["drawn"] == 1).all()
    assert set(table.passes["first"]) == {2} and set(table.passes["drawn"]) == {2 * 2 + 2 * 2 * 2}
    with measure(tiny) as meter:
        evaluate_retrieval(tiny, **plan, **how)
    assert meter.unet_passes == 0


def test_the_bridge_has_every_row(tiny, tmp_path):
    plan = {"n": 10, "shots": (1, 2), "draws": 2}
    how = {"output": tmp_path / "bridge.csv", "cache": tmp_path, "progress": False}
    table = pd.read_csv(evaluate_bridge(tiny, **plan, **how)).set_index(["prototypes", "shots"])
    assert len(table) == 2 * (3 + 4 * len(METHODS)) and set(table.n) == {10}
    assert (table.gap["images"] == 0).all() and table.accuracy.between(0, 1).all()
