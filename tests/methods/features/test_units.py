"""Labels of positions, and F1 of units against exact masks."""

import pytest
import torch
from sklearn.metrics import f1_score

from dsd_tutorial.features import VALUES, judge_units, label_positions, label_regions
from dsd_tutorial.features.rivals import BASES, neurons, principal_axes, random_axes
from dsd_tutorial.features.units import choose_units, f1, score_units
from dsd_tutorial.shapes import Scene, Thing, random_scenes

PAIR = Scene(
    (Thing("circle", "red", 0.25, 0.5, 0.2), Thing("square", "blue", 0.75, 0.5, 0.2)), "white"
)


def column(*value):
    return VALUES.index(value)


def test_positions_carry_what_lies_there():
    features = torch.arange(64.0)[None, :, None].expand(1, 64, 3)  # each position its own number
    places = label_positions([PAIR], features)
    at = dict(zip(places.features[:, 0].long().tolist(), places.labels, strict=True))
    left, right, corner = 4 * 8 + 2, 4 * 8 + 6, 0
    for where, true in (
        (left, {("shape", "circle"), ("color", "red"), ("relation", "left of")}),
        (right, {("shape", "square"), ("color", "blue"), ("relation", "right of")}),
        (corner, {("background", "white")}),
    ):
        assert {VALUES[i] for i in at[where].nonzero()[:, 0].tolist()} == true
    assert len(places.features) < 64  # positions on an edge belong to nobody
    assert (
        places.labels[:, column("background", "white")] + places.labels[:, :6].any(1) == 1
    ).all()


def test_a_lone_thing_has_no_relation_and_scenes_are_told_apart():
    scenes = random_scenes(6, 0, "train", one_object_share=1.0)
    places = label_positions(scenes, torch.zeros(6, 256, 2))
    assert not places.labels[:, [i for i, (a, _) in enumerate(VALUES) if a == "relation"]].any()
    for i, scene in enumerate(scenes):
        own = places.labels[places.scene == i].any(0)
        names = {VALUES[j] for j in own.nonzero()[:, 0].tolist()}
        thing = scene.things[0]
        want = {("shape", thing.shape), ("color", thing.color), ("background", scene.background)}
        assert names == want


def test_regions_are_things_and_then_the_background():
    lone = Scene((Thing("ring", "green", 0.5, 0.5, 0.2),), "pink")
    features = torch.arange(6.0).view(2, 3, 1)  # rows of two things and the background
    places = label_regions([PAIR, lone], features)
    assert places.features[:, 0].tolist() == [0, 1, 2, 3, 5]  # a second thing is not there
    assert places.scene.tolist() == [0, 0, 0, 1, 1]
    said = [{VALUES[i] for i in row.nonzero()[:, 0].tolist()} for row in places.labels]
    assert said == [
        {("shape", "circle"), ("color", "red"), ("relation", "left of")},
        {("shape", "square"), ("color", "blue"), ("relation", "right of")},
        {("background", "white")},
        {("shape", "ring"), ("color", "green")},
        {("background", "pink")},
    ]
    with pytest.raises(ValueError, match="a row for each"):
        label_regions([PAIR], features)


def test_positions_must_form_a_square_with_a_row_for_each_scene():
    with pytest.raises(ValueError, match="form no square"):
        label_positions([PAIR], torch.zeros(1, 60, 3))
    with pytest.raises(ValueError, match="for 1 scenes"):
        label_positions([PAIR], torch.zeros(2, 64, 3))


def test_f1_is_that_of_scikit_learn():
    numbers = torch.Generator().manual_seed(0)
    active = torch.rand(50, 4, generator=numbers) > 0.6
    labels = torch.rand(50, 3, generator=numbers) > 0.5
    table = f1(active, labels)
    for u in range(4):
        for v in range(3):
            assert table[u, v] == pytest.approx(f1_score(labels[:, v], active[:, u]))
    assert f1(torch.zeros(5, 1, dtype=torch.bool), labels[:5]).tolist() == [[0.0, 0.0, 0.0]]


@pytest.fixture
def planted():
    """Positions at which one number tells each value, at its own level, and the rest is noise."""
    scenes = random_scenes(40, 0, "train")
    empty = label_positions(scenes, torch.zeros(40, 64, 1))
    noise = torch.randn(*empty.labels.shape, generator=torch.Generator().manual_seed(1))
    level = torch.linspace(0.5, 5, len(VALUES))
    codes = 0.05 * noise + level + empty.labels.float()
    shuffled = torch.randperm(len(VALUES), generator=torch.Generator().manual_seed(2))
    return type(empty)(codes[:, shuffled], empty.labels, empty.scene), shuffled


def test_the_unit_and_the_level_of_a_value_are_found(planted):
    places, shuffled = planted
    found = judge_units(lambda x: x, places, places, levels=True)
    assert torch.equal(shuffled[found.detectors.unit[0]], torch.arange(len(VALUES)))
    assert found.mean().value > 0.98
    without = judge_units(lambda x: x, places, places)  # all numbers are above zero everywhere
    assert without.mean().value < 0.5


def test_a_level_is_the_best_of_all_and_equal_codes_stay_together():
    numbers = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 6, (80, 3), generator=numbers).float()
    labels = torch.rand(80, 4, generator=numbers) > 0.6
    tried = torch.stack([f1(codes > level - 0.5, labels) for level in range(7)])
    chosen = choose_units(codes, labels, True)
    reached = f1(chosen.fire(codes), labels).diagonal()
    torch.testing.assert_close(reached, tried.amax((0, 1)))


def test_a_second_unit_covers_what_the_first_cannot():
    numbers = torch.Generator().manual_seed(0)
    label = torch.rand(200, 1, generator=numbers) > 0.8
    half = torch.rand(200, generator=numbers) > 0.4
    noise = torch.rand(200, 3, generator=numbers)
    marks = [label[:, 0] & half, label[:, 0] & ~half, label[:, 0] & ~half]
    codes = torch.stack(marks, 1) + 0.2 * noise
    alone, both = (choose_units(codes, label, True, count) for count in (1, 2))
    assert torch.equal(both.unit[:1], alone.unit) and torch.equal(both.level[:1], alone.level)
    assert f1(alone.fire(codes), label).item() < 0.9
    assert torch.equal(both.fire(codes), label)
    three = choose_units(codes, label, True, 3)  # nothing is left for a third
    assert three.level[2].item() == torch.inf and torch.equal(three.fire(codes), label)
    with pytest.raises(ValueError, match="several units need levels"):
        choose_units(codes, label, count=2)


def test_counts_by_scene_add_up_to_f1_of_all_rows(planted):
    places, _ = planted
    chosen = choose_units(places.features, places.labels, True)
    found = score_units(chosen, places.features, places)
    fires = chosen.fire(places.features)
    for i, value in enumerate(VALUES):
        assert found.by_value()[value] == pytest.approx(
            f1_score(places.labels[:, i], fires[:, i], zero_division=0), abs=1e-6
        )
    shape = found.mean("shape")
    assert shape.value == pytest.approx(sum(list(found.by_value().values())[:6]) / 6)
    assert shape.low <= shape.value <= shape.high and shape.n == 40


def test_a_paired_difference_is_zero_with_oneself_and_turns_with_the_order(planted):
    places, _ = planted
    good = judge_units(lambda x: x, places, places, levels=True)
    poor = judge_units(lambda x: x.flip(0), places, places, levels=True)
    same, gap = good.above(good), good.above(poor, "color")
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    assert 0 < gap.low <= gap.value <= gap.high
    assert poor.above(good, "color").value == pytest.approx(-gap.value)


def test_choices_never_see_test_rows(planted):
    """The unit comes from validation: where it tells nothing, a perfect test unit stays unused."""
    places, _ = planted
    blank = type(places)(torch.zeros_like(places.features), places.labels, places.scene)
    found = judge_units(lambda x: x, blank, places, levels=True)
    assert (found.detectors.unit == 0).all()


@pytest.mark.parametrize("name", list(BASES))
def test_bases_have_unit_spread_and_the_sparsity_that_is_requested(name):
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 7) + 3
    basis = BASES[name](x)
    drive, codes = basis.drive(x), basis.encode(x, 2)
    assert torch.equal(drive[:, :6], -drive[:, 6:])
    assert ((codes > 0).sum(1) == 2).all()
    assert torch.equal(codes[codes > 0], drive[codes > 0])
    if name != "rotation":
        torch.testing.assert_close(drive[:, :6].std(0), torch.ones(6), atol=0.01, rtol=0.01)
    else:
        own = neurons(x).drive(x)[:, :6]
        torch.testing.assert_close(drive[:, :6].norm(dim=1), own.norm(dim=1))


def test_principal_axes_are_uncorrelated_and_random_axes_follow_their_seed():
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)).cumsum(1)
    along = principal_axes(x).drive(x)[:, :4]
    torch.testing.assert_close(torch.corrcoef(along.T), torch.eye(4), atol=1e-4, rtol=0)
    assert torch.equal(random_axes(x, 1).axes, random_axes(x, 1).axes)
    assert not torch.equal(random_axes(x, 1).axes, random_axes(x, 2).axes)
