"""Probes: what they are asked, that validation chooses, and that a mean cannot know places."""

import numpy as np
import pytest
import torch

from dsd_tutorial.features import answers, probe, probe_scenes
from dsd_tutorial.features.capturing import grid, pooled
from dsd_tutorial.shapes import BACKGROUNDS, COLORS, render


def picture(scenes, reduce):
    """Return the reduction of maps that show each colour and background: ideal features."""
    _, masks = render(scenes, 32)
    maps = torch.zeros(len(scenes), 10, 32, 32)
    for i, scene in enumerate(scenes):
        maps[i, 6 + list(BACKGROUNDS).index(scene.background)] = (~masks[i].any(0)).float()
        for thing, mask in zip(scene.things, masks[i], strict=False):
            maps[i, list(COLORS).index(thing.color)] += mask
    return reduce(maps)


@pytest.mark.parametrize("attribute", ["shape", "color", "background"])
def test_scenes_of_one_thing_are_asked_about_it(attribute):
    scenes = probe_scenes(attribute, 12, 0, "test")
    said = answers(attribute, scenes)
    assert len(said) == 12 and all(len(s.things) == 1 and s.split == "test" for s in scenes)
    if attribute == "background":
        assert said == [s.background for s in scenes]
    else:
        assert said == [getattr(s.things[0], attribute) for s in scenes]


def test_relations_are_those_of_the_first_colour():
    scenes = probe_scenes("relation", 40, 0, "validation")
    rank = list(COLORS)
    for scene, said in zip(scenes, answers("relation", scenes), strict=True):
        first, second = scene.things
        assert rank.index(first.color) < rank.index(second.color)
        assert said == scene.relation and scene.split == "validation"
        assert (said == "left of") == (first.x < second.x and abs(first.y - second.y) < 0.1)
    with pytest.raises(ValueError, match="unknown attribute 'size'"):
        probe_scenes("size", 1, 0, "test")


def split(attribute, reduce, n=250):
    made = [probe_scenes(attribute, n, seed, s) for seed, s in enumerate(("train", "validation"))]
    tests = probe_scenes(attribute, n, 2, "test")
    return [(picture(s, reduce), answers(attribute, s)) for s in (*made, tests)]


def test_a_mean_tells_backgrounds_and_no_relations_a_grid_more():
    """The order of two things is nowhere in a mean, and partly in quarters."""
    assert probe(*split("background", pooled)).accuracy.value > 0.9
    mean, quarters = (probe(*split("relation", reduce)) for reduce in (pooled, grid))
    assert mean.accuracy.low < 0.30  # four relations
    assert quarters.accuracy.low > mean.accuracy.high


def test_validation_chooses_the_penalty_and_test_rows_change_nothing():
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(60, 40, generator=numbers)
    y = ["a" if v > 0 else "b" for v in x[:, 0] + 0.5 * torch.randn(60, generator=numbers)]
    train, validation, test = ((x[i : i + 20], y[i : i + 20]) for i in (0, 20, 40))
    found = probe(train, validation, test, penalties=(1.0, 1e-4, 0.1))
    alone = [probe(train, validation, test, penalties=(c,)) for c in (1e-4, 0.1, 1.0)]
    assert found.validation == max(one.validation for one in alone)
    first = next(one for one in alone if one.validation == found.validation)
    assert found.penalty == first.penalty and found.accuracy.n == 20
    flipped = probe(train, validation, (test[0], test[1][::-1]), penalties=(1.0, 1e-4, 0.1))
    assert flipped.penalty == found.penalty
    np.testing.assert_array_equal(first.hits, found.hits)


def test_a_probe_needs_two_answers():
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="1 different answers"):
        probe((x, ["a"] * 3), (x, ["a"] * 3), (x, ["a"] * 3))
