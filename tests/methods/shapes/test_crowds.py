"""Scenes of two to four things, and phrases that mean exactly one of them."""

from collections import Counter

import pytest
import torch

from dsd_tutorial.shapes import (
    EXPRESSIONS,
    HELD_OUT_PAIRS,
    Scene,
    Thing,
    boxes_of,
    parse,
    random_scenes,
    referring_expressions,
    render,
)
from dsd_tutorial.shapes.scene import GAP, MOST_THINGS, relation_of

MADE = referring_expressions(180, "test")


def meant(expression, scene=None):
    """Indices of the things that the phrase could mean, by brute force."""
    things = (scene or expression.scene).things
    first, *others = expression.said.things
    if not others:
        return [i for i, t in enumerate(things) if first.true_of(t)]
    return [
        i for i, a in enumerate(things) if first.true_of(a)
        and any(others[0].true_of(b) and relation_of(a, b) == expression.said.relation
                for b in things if b is not a)
    ]  # fmt: skip


def test_a_phrase_means_one_thing_and_something_comes_near():
    for e in MADE:
        assert meant(e) == [e.target]
        first = e.said.things[0]
        rivals = [t for i, t in enumerate(e.scene.things) if i != e.target]
        if e.kind == "relation":
            assert any(first.true_of(t) for t in rivals)
        else:
            assert all((first.color == t.color) != (first.shape == t.shape) for t in rivals)


def test_a_turned_phrase_says_the_same():
    for e in MADE:
        said = parse(e.text)
        assert said == e.said
        if e.said.relation:
            assert parse(e.turned.text()).things == said.things[::-1]
            assert e.turned.true_of(e.scene) and e.said.true_of(e.scene)


def test_kinds_splits_and_places_of_the_target():
    assert Counter(e.kind for e in MADE) == dict.fromkeys(EXPRESSIONS, 60)
    assert {len(e.scene.things) for e in MADE} == {2, 3, 4}
    assert min(Counter(e.target for e in MADE if len(e.scene.things) == 3).values()) > 10
    for e in MADE:
        assert e.scene.split == "test"
        first = e.said.things[0]
        assert ((first.color, first.shape) in HELD_OUT_PAIRS) == (e.kind == "held_out")
    assert not {e.scene.hash() for e in MADE} & {
        e.scene.hash() for e in referring_expressions(60, "validation")
    }


def test_things_of_a_crowd_lie_apart_on_the_canvas():
    for e in MADE:
        things = e.scene.things
        for i, a in enumerate(things):
            assert a.radius < min(a.x, a.y, 1 - a.x, 1 - a.y)
            for b in things[:i]:
                apart = max(abs(a.x - b.x), abs(a.y - b.y)) - a.radius - b.radius
                assert apart >= GAP - 1e-9


def test_seeds_and_prefixes():
    assert referring_expressions(9, "test") == MADE[:9]
    assert referring_expressions(9, "test", seed=1) != MADE[:9]
    only = referring_expressions(4, "validation", kinds=("relation",))
    assert {e.kind for e in only} == {"relation"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"split": "tset"}, "unknown split 'tset'"),
        ({"kinds": ("size",)}, "unknown kind of expression 'size'"),
        ({"kinds": ()}, "at least one"),
        ({"n": 0}, "n = 0"),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        referring_expressions(**({"n": 3} | values))


def test_a_scene_of_four_draws_four_masks_and_leaves_smaller_ones_alone():
    crowd = next(e.scene for e in MADE if len(e.scene.things) == MOST_THINGS)
    small = random_scenes(6, 3)
    images, masks = render([*small, crowd])
    alone, their_masks = render(small)
    assert masks.shape == (7, MOST_THINGS, 64, 64) and their_masks.shape == (6, 2, 64, 64)
    assert torch.equal(images[:6], alone) and torch.equal(masks[:6, :2], their_masks)
    assert not masks[:6, 2:].any() and masks[6].flatten(1).any(1).all()
    assert int(masks[6].sum(0).max()) == 1  # nothing hides anything


def test_a_scene_holds_at_most_four():
    thing = Thing("circle", "red", 0.5, 0.5, 0.1)
    with pytest.raises(ValueError, match="1 to 4 things, not 5"):
        Scene((thing,) * 5, "white")


def test_boxes_hold_every_pixel_of_a_mask_and_no_row_more():
    e = MADE[0]
    masks = render([e.scene])[1][0, : len(e.scene.things)]
    for mask, box in zip(masks, boxes_of(masks), strict=True):
        left, top, right, bottom = (box * 64).round().int().tolist()
        assert mask[top:bottom, left:right].sum() == mask.sum()
        assert mask[top].any() and mask[bottom - 1].any()
        assert mask[:, left].any() and mask[:, right - 1].any()
    with pytest.raises(ValueError, match="an empty mask has no box"):
        boxes_of(torch.zeros(1, 8, 8, dtype=torch.bool))
