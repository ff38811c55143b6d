"""Scenes: one clear relation, margins, held-out values, splits that never move."""

import random
from collections import Counter

import pytest

from dsd_tutorial.shapes.scene import (
    COLORS,
    GAP,
    HELD_OUT_COLORS,
    HELD_OUT_PAIRS,
    HELD_OUT_SHAPES,
    INVERSE,
    OFF_AXIS,
    RADIUS,
    RELATIONS,
    SHAPES,
    SPLITS,
    Scene,
    Thing,
    iterate_scenes,
    place_pair,
    random_scenes,
    relation_of,
)

SCENES = random_scenes(4000, seed=1)
TWO = [s for s in SCENES if len(s.things) == 2]


def holding(first, second):
    """All relations that hold, tested one by one and without the code under test."""
    dx, dy = second.x - first.x, second.y - first.y
    apart = first.radius + second.radius
    return {
        name
        for name, along, across in (
            ("left of", dx, dy),
            ("right of", -dx, dy),
            ("above", dy, dx),
            ("below", -dy, dx),
        )  # fmt: skip
        if along > apart and abs(across) <= OFF_AXIS + 1e-6
    }


def test_exactly_one_relation_holds():
    assert len(TWO) > 1500
    for scene in TWO:
        assert holding(*scene.things) == {scene.relation}
        assert relation_of(*scene.things[::-1]) == INVERSE[scene.relation]
    assert set(Counter(s.relation for s in TWO)) == set(RELATIONS)
    assert min(Counter(s.relation for s in TWO).values()) > len(TWO) / 5


def test_objects_lie_on_the_canvas_apart_and_differ():
    for scene in SCENES:
        for t in scene.things:
            assert t.radius < t.x < 1 - t.radius and t.radius < t.y < 1 - t.radius
    for scene in TWO:
        a, b = scene.things
        gap = max(abs(a.x - b.x), abs(a.y - b.y)) - a.radius - b.radius
        assert gap >= GAP - 1e-6
        assert (a.color, a.shape) != (b.color, b.shape)


@pytest.mark.parametrize("relation", RELATIONS)
def test_place_pair_gives_the_relation_asked_for(relation):
    rng = random.Random(3)
    for _ in range(500):
        a, b = (Thing("circle", "red", *place) for place in place_pair(rng, relation))
        assert relation_of(a, b) == relation


def test_an_oblique_or_touching_pair_has_no_relation():
    a = Thing("circle", "red", 0.3, 0.3, 0.15)
    assert relation_of(a, Thing("square", "blue", 0.7, 0.5, 0.15)) is None
    assert relation_of(a, Thing("square", "blue", 0.6, 0.3, 0.15)) is None
    assert relation_of(a, Thing("square", "blue", 0.7, 0.3, 0.15)) == "left of"


def test_held_out_values_never_occur_in_trained_scenes():
    things = [t for s in SCENES for t in s.things]
    assert {t.shape for t in things} == set(SHAPES)
    assert {t.color for t in things} == set(COLORS)
    assert {t.texture for t in things} == {"plain"}
    assert not {(t.color, t.shape) for t in things} & set(HELD_OUT_PAIRS)
    assert len({(t.color, t.shape) for t in things}) == 36 - len(HELD_OUT_PAIRS)
    assert not set(SHAPES) & set(HELD_OUT_SHAPES) and not set(COLORS) & set(HELD_OUT_COLORS)


def test_sizes_and_positions():
    words = Counter((t.size, t.position) for s in SCENES if len(s.things) == 1 for t in s.things)
    sizes = Counter()
    for (size, _), n in words.items():
        sizes[size] += n
    assert set(sizes) == set(RADIUS) and min(sizes.values()) > 300
    assert len({position for _, position in words} - {None}) == 9
    corner = Thing("ring", "blue", 0.3, 0.8, 0.15)
    assert (corner.size, corner.position) == ("small", "in the bottom left")
    assert Thing("ring", "blue", 0.4, 0.5, 0.21).size is None
    assert Thing("ring", "blue", 0.4, 0.5, 0.21).position is None


def test_hash_and_splits_are_pinned():
    pair = Scene(
        (Thing("circle", "red", 0.25, 0.5, 0.2), Thing("square", "blue", 0.75, 0.5, 0.2)), "gray"
    )
    lone = Scene((Thing("star", "green", 0.5, 0.5, 0.28),), "white")
    assert pair.key() == "plain red circle left of plain blue square on gray"
    assert lone.key() == "plain green star large in the center on white"
    assert (pair.hash(), pair.split) == (13649851765756612561, "train")
    assert (lone.hash(), lone.split) == (12143915685447106035, "train")


def test_hash_knows_words_not_places_nor_order():
    a, b = TWO[0].things
    assert Scene((b, a), TWO[0].background).hash() == TWO[0].hash()
    keys = {}
    for scene in SCENES:
        keys.setdefault(scene.hash(), set()).add(scene.key())
    assert all(len(k) == 1 for k in keys.values())


def test_splits_are_disjoint_and_of_the_stated_size():
    share = Counter(s.split for s in TWO)
    assert 0.7 < share["train"] / len(TWO) < 0.9
    hashes = [{s.hash() for s in random_scenes(300, 5, split)} for split in SPLITS]
    assert not hashes[0] & hashes[1] and not hashes[0] & hashes[2] and not hashes[1] & hashes[2]
    for split in SPLITS:
        scenes = random_scenes(400, 6, split, one_object_share=0.5)
        assert all(s.split == split for s in scenes)
        assert 140 < sum(len(s.things) == 1 for s in scenes) < 260


def test_seeds():
    assert random_scenes(50, 7) == random_scenes(50, 7) != random_scenes(50, 8)
    assert random_scenes(80, 7)[:50] == random_scenes(50, 7)
    assert all(len(s.things) == 1 for s in random_scenes(50, 0, one_object_share=1.0))


def test_errors_name_the_value_and_the_choices():
    with pytest.raises(ValueError, match="unknown shape 'blob'.*circle"):
        Thing("blob", "red", 0.5, 0.5, 0.2)
    with pytest.raises(ValueError, match="unknown color 'mauve'.*red"):
        Thing("circle", "mauve", 0.5, 0.5, 0.2)
    with pytest.raises(ValueError, match="unknown background 'red'.*white"):
        Scene((Thing("circle", "red", 0.5, 0.5, 0.2),), "red")
    with pytest.raises(ValueError, match="1 to 4 things, not 0"):
        Scene((), "gray")
    with pytest.raises(ValueError, match="unknown split 'dev'.*validation"):
        next(iterate_scenes(0, "dev"))
