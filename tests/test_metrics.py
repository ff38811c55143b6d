"""Accuracy, paired differences, Winoground, recall and their intervals."""

import math

import numpy as np
import pytest
import torch

from dsd_tutorial.metrics import (
    accuracy,
    hits,
    paired_difference,
    pointing_rate,
    recall_at_k,
    winoground,
)


def test_ties_count_as_a_fair_draw():
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    assert hits(scores, [0, 0, 1]).tolist() == [1.0, 0.0, 0.5]
    constant = hits(torch.zeros(50, 10), torch.arange(50) % 10)
    assert accuracy(constant).value == pytest.approx(0.1)
    with pytest.raises(ValueError, match="NaN"):
        hits(torch.tensor([[float("nan"), 1.0]]), [0])


def test_wilson_equals_the_known_interval():
    found = accuracy([1] * 8 + [0] * 2)
    assert found.value == 0.8 and found.n == 10
    assert (found.low, found.high) == (
        pytest.approx(0.4902, abs=1e-4),
        pytest.approx(0.9433, abs=1e-4),
    )
    perfect = accuracy(np.ones(20, dtype=bool))
    assert perfect.high == 1.0 and 0.83 < perfect.low < 0.85
    assert "n = 10" in str(found) and set(found.as_dict()) == {"value", "low", "high", "n"}


@pytest.mark.parametrize("method", ["wilson", "bootstrap"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_intervals_cover_the_truth_about_95_times_of_100(method, share):
    rng = np.random.default_rng(0)
    runs = [accuracy(rng.random(100) < share, method, draws=300, seed=i) for i in range(200)]
    covered = np.mean([run.low <= share <= run.high for run in runs])
    assert 0.89 <= covered <= 0.995


def test_a_paired_interval_is_tighter_than_an_unpaired_one():
    rng = np.random.default_rng(1)
    hard = rng.random(400)
    a, b = hard < 0.75, hard < 0.70  # same items, b fails on 5 % more
    found = paired_difference(a, b)
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert found.low > 0  # told apart, although the single intervals overlap
    assert accuracy(b).high > accuracy(a).low
    shuffled = paired_difference(a, rng.permutation(b))
    assert shuffled.high - shuffled.low > 1.5 * (found.high - found.low)
    assert paired_difference(a, a).low == paired_difference(a, a).high == 0.0
    assert paired_difference(a, b, seed=3) == paired_difference(a, b, seed=3)
    with pytest.raises(ValueError, match="paired"):
        paired_difference([1, 0], [1])


def test_winoground_scores():
    right = [[2.0, 1.0], [1.0, 2.0]]
    text_only = [[2.0, 1.0], [9.0, 10.0]]  # image 1 is liked by both texts
    image_only = [[2.0, 9.0], [1.0, 10.0]]  # text 1 is liked by both images
    wrong, tie = [[1.0, 2.0], [2.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]
    found = winoground(torch.tensor([right, text_only, image_only, wrong, tie]))
    assert {k: v.value for k, v in found.items()} == {"text": 0.4, "image": 0.4, "group": 0.2}
    chance = winoground(torch.rand(20000, 2, 2, generator=torch.Generator().manual_seed(0)))
    for key, want in (("text", 1 / 4), ("image", 1 / 4), ("group", 1 / 6)):
        assert chance[key].value == pytest.approx(want, abs=0.012)
    with pytest.raises(ValueError, match="2 images, 2 texts"):
        winoground(torch.zeros(3, 4))


def test_recall_at_k():
    scores = torch.tensor([[3.0, 1.0, 2.0], [5.0, 4.0, 0.0], [9.0, 8.0, 7.0]])
    assert recall_at_k(scores, 1).value == pytest.approx(1 / 3)
    assert recall_at_k(scores, 2).value == pytest.approx(2 / 3)
    assert recall_at_k(scores, 3).value == 1.0
    assert recall_at_k(scores, 1, "text_to_image").value == pytest.approx(1 / 3)
    assert recall_at_k(torch.zeros(4, 4), 3).value == 0.0  # a constant score finds nothing
    for bad in ({"k": 0}, {"k": 4}, {"direction": "both"}):
        with pytest.raises(ValueError, match="k must|direction"):
            recall_at_k(scores, **bad)
    with pytest.raises(ValueError, match="diagonal"):
        recall_at_k(torch.zeros(2, 3))


def test_pointing_rate_is_compared_with_the_mask_area():
    rate, gain = pointing_rate([1, 1, 0, 1], [0.1, 0.2, 0.1, 0.2])
    assert rate.value == 0.75 and gain.value == pytest.approx(0.6)


@pytest.mark.parametrize("bad", [[], [math.nan, 1.0]])
def test_no_items_or_no_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="at least one item"):
        accuracy(bad)
    with pytest.raises(ValueError, match="unknown method"):
        accuracy([1], "normal")
