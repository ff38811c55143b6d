"""The table of information: its items, its known numbers, and that it can be measured."""

import math

import pandas as pd
import pytest
import torch

from dsd_tutorial.shapes import parse
from lab.measuring.information import evaluate_information
from lab.measuring.information_words import CLASSES, word_items


@pytest.fixture(scope="module")
def items():
    return word_items(12, "validation")


def test_items_are_distinct_scenes_of_the_split_and_words_name_one_thing(items):
    assert len({item.scene for item in items}) == 12
    for item in items:
        assert item.scene.split == "validation"
        assert all(item.caption.split().count(item.words[k]) == 1 for k in ("shape", "color"))
        assert item.scene.things[item.about].shape == item.words["shape"]


def test_captions_say_what_they_are_called(items):
    for item in items:
        assert parse(item.caption).true_of(item.scene)
        for text in item.same.values():
            assert parse(text) == parse(item.caption)
        assert not any(thing.color for thing in parse(item.unsaid["every color"]).things)
        assert not any(thing.shape for thing in parse(item.unsaid["every shape"]).things)
        for kind in CLASSES:
            assert parse(item.removed[kind]).true_of(item.scene), item.removed[kind]
            assert not parse(item.exchanged[kind]).true_of(item.scene), item.exchanged[kind]


def test_known_nats_are_counted_over_the_world(items):
    known = items[0].known
    assert known["relation"] == known["background"] == math.log(4)
    assert math.log(4) < known["color"] <= math.log(6) and known["all"] == pytest.approx(
        9.672, abs=1e-3
    )


def test_masks_are_the_things_and_the_rest(items):
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, 0], masks[1, 1] = True, True
    for item in items:
        assert torch.equal(item.mask("color", masks), masks[item.about])
        assert torch.equal(item.mask("background", masks), ~item.mask("relation", masks))


def test_the_table_is_measured_and_goes_on(tiny, tmp_path):
    plan = {"n": 3, "validation": 2, "levels": 3, "matching": 2}
    how = {"output": tmp_path / "information.csv", "cache": tmp_path / "cache", "progress": False}
    path = evaluate_information(tiny, tasks=("comvg",), **plan, **how)
    table = pd.read_csv(path)
    assert set(table.part) == {
        "nats",
        "agree",
        "levels",
        "below",
        "tail",
        "map",
        "gap",
        "matching",
    }
    assert not table.duplicated(["part", "what", "method", "metric"]).any()
    assert (table.low <= table.value + 1e-6).all() and (table.value <= table.high + 1e-6).all()
    agree = table[table.part == "agree"].set_index("what").value
    nats = table[table.part == "nats"].set_index(["what", "method"]).value
    for what in agree.index:
        gap = nats[what, "standard"] - nats[what, "orthogonal"]
        assert gap == pytest.approx(agree[what], rel=1e-3, abs=1e-3)
    before = path.read_text()
    evaluate_information(tiny, tasks=("comvg",), **plan, **how)
    assert path.read_text() == before
