"""Captions: every wording reads back exactly, is true of its scene, and errors are clear."""

import random

import pytest

from dsd_tutorial.shapes.captions import (
    Description,
    Phrase,
    caption,
    describe,
    full_description,
    parse,
)
from dsd_tutorial.shapes.scene import (
    ALL_COLORS,
    ALL_SHAPES,
    ALL_TEXTURES,
    INVERSE,
    RELATIONS,
    Scene,
    Thing,
    random_scenes,
)

NAMES = [(color, shape) for color in ALL_COLORS for shape in ALL_SHAPES]
SCENES = random_scenes(800, 2) + random_scenes(800, 3, names=NAMES, textures=ALL_TEXTURES)


def test_every_wording_of_full_descriptions_reads_back():
    for scene in SCENES:
        for background in (True, False):
            for details in (True, False):
                said = full_description(scene, background, details)
                wordings = said.phrasings()
                assert len(set(wordings)) == len(wordings) >= 3
                for i, text in enumerate(wordings):
                    assert parse(text) == said, text
                    assert said.text(i) == said.text(i + len(wordings)) == text
                assert said.true_of(scene)


def test_every_wording_of_partial_descriptions_reads_back_and_is_true():
    rng = random.Random(0)
    for scene in SCENES:
        said = describe(scene, rng, partial=0.5)
        assert said.true_of(scene)
        for text in said.phrasings():
            assert parse(text) == said, text


def test_captions_differ_and_leave_things_unsaid():
    rng = random.Random(1)
    said = [parse(caption(scene, rng)) for scene in SCENES]
    assert 0.35 < sum(d.background is not None for d in said) / len(said) < 0.65
    two = [d for d in said if len(d.things) == 2]
    assert 0.05 < sum(d.relation is None for d in two) / len(two) < 0.3
    lone = [d.things[0] for d in said if len(d.things) == 1]
    assert any(p.size for p in lone) and any(p.position for p in lone)
    assert sum(p.size is None for p in lone) > len(lone) / 2
    assert all(p.shape or p.color for d in said for p in d.things)


def test_reading_ignores_case_spaces_and_a_full_stop():
    plain = parse("a red circle above a blue square")
    assert parse(" A red  circle above a Blue square. ") == plain


def test_synonyms_mean_the_same():
    plain = parse("a red circle left of an orange ring on a gray background")
    assert parse("on a gray background, a red circle to the left of an orange ring") == plain
    assert parse("the red circle is left of the orange ring on a gray background") == plain
    assert parse("a star over a ring") == parse("the star is above the ring")
    for text in ("the circle is red", "the red object is a circle", "there is a red circle"):
        assert parse(text) == parse("a red circle")
    assert parse("the background is pink") == parse("a picture with a pink background")


def test_truth():
    red = Thing("circle", "red", 0.25, 0.5, 0.2)
    blue = Thing("square", "blue", 0.75, 0.5, 0.2)
    scene = Scene((red, blue), "gray")
    for text in (
        "a red circle left of a blue square", "a blue square right of a red circle",
        "a circle and an object", "a blue object", "the square is blue", "the background is gray",
    ):  # fmt: skip
        assert parse(text).true_of(scene), text
    for text in (
        "a red circle right of a blue square", "a red circle above a blue square",
        "a blue circle left of a red square", "a red circle and a red circle", "the square is red",
        "a red circle on a white background", "a green circle", "the background is white",
        "a large red circle", "a striped red circle", "a red circle on the right",
    ):  # fmt: skip
        assert not parse(text).true_of(scene), text
    lone = Scene((red,), "gray")
    assert not parse("a red circle and an object").true_of(lone)
    assert parse("a red circle on the left").true_of(lone)


def test_one_relation_is_true_whichever_thing_comes_first():
    for scene in SCENES:
        if len(scene.things) == 1:
            continue
        said = full_description(scene)
        for relation in RELATIONS:
            straight = Description(said.things, relation)
            turned = Description(said.things[::-1], INVERSE[relation])
            assert straight.true_of(scene) == turned.true_of(scene) == (relation == said.relation)


@pytest.mark.parametrize(
    "text, named",
    [
        ("a red blob", "red blob"),
        ("a mauve circle", "mauve circle"),
        ("a red circle near a blue square", "red circle near a blue square"),
        ("", "''"),
        ("hello world", "hello world"),
        ("a circle red", "circle red"),
    ],
)
def test_text_outside_the_grammar_is_refused_by_name(text, named):
    with pytest.raises(ValueError, match="cannot read") as error:
        parse(text)
    assert named in str(error.value) and "circle" in str(error.value)


def test_saying_nothing_is_an_error():
    with pytest.raises(ValueError, match="must say something"):
        Description(()).text()
    assert Phrase().noun() == "object"
