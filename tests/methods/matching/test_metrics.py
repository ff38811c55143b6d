"""Accuracy, paired differences, recall and their intervals."""

import math

import numpy as np
import pytest
import torch

from dsd_tutorial.matching.metrics import (
    accuracy,
    paired_difference,
    paired_test,
    recall_at_k,
    seeds_difference,
)


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


def test_intervals_end_where_shares_do():
    for n in range(1, 200):
        none, all_of_it = accuracy(np.zeros(n)), accuracy(np.ones(n))
        assert 0.0 <= none.low < 1e-12 and none.high < 1.0
        assert all_of_it.low > 0.0 and 1 - 1e-12 < all_of_it.high <= 1.0


@pytest.mark.parametrize("seeds", [None, 1, 3])
def test_bootstrap_bounds_leave_out_a_fortieth_on_either_side(seeds):
    """Of a normal mean: 1.96 standard errors below and above it, each bound by itself."""
    a = np.random.default_rng(6).normal(size=100)
    if seeds is None:
        found = paired_difference(a, np.zeros(100), draws=8000)
    else:  # seeds that say the same add nothing
        found = seeds_difference(np.tile(a, (seeds, 1)), np.zeros((seeds, 100)), draws=8000)
    error = a.std() / 10
    assert (found.value - found.low) / error == pytest.approx(1.96, abs=0.1)
    assert (found.high - found.value) / error == pytest.approx(1.96, abs=0.1)


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


def test_recall_at_k():
    scores = torch.tensor([[3.0, 1.0, 2.0], [5.0, 4.0, 0.0], [9.0, 8.0, 7.0]])
    assert recall_at_k(scores, 1).value == pytest.approx(1 / 3)
    assert recall_at_k(scores, 2).value == pytest.approx(2 / 3)
    assert recall_at_k(scores, 3).value == 1.0
    best = torch.tensor([[1.0, 2.0, 3.0], [0.0, 4.0, 5.0], [-1.0, 0.0, 6.0]])  # of its column each
    assert recall_at_k(best.T).value == 1.0
    assert recall_at_k(best).value == pytest.approx(1 / 3)
    assert recall_at_k(torch.zeros(4, 4), 3).value == 0.0  # a constant score finds nothing
    for k in (0, 4):
        with pytest.raises(ValueError, match="k must be 1 to 3"):
            recall_at_k(scores, k)
    with pytest.raises(ValueError, match="diagonal"):
        recall_at_k(torch.zeros(2, 3))


@pytest.mark.parametrize("bad", [[], [math.nan, 1.0]])
def test_no_items_or_no_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="at least one item"):
        accuracy(bad)
    with pytest.raises(ValueError, match="unknown method"):
        accuracy([1], "normal")


def test_one_seed_is_the_paired_difference():
    rng = np.random.default_rng(2)
    a, b = rng.random(300) < 0.7, rng.random(300) < 0.6
    one, plain = seeds_difference(a[None], b[None], seed=1), paired_difference(a, b, seed=1)
    assert one.value == plain.value and one.n == 300
    assert one.high - one.low == pytest.approx(plain.high - plain.low, rel=0.1)
    assert one == seeds_difference(torch.tensor(a)[None], b[None].astype(float), seed=1)


def test_seeds_that_repeat_each_other_add_no_certainty():
    rng = np.random.default_rng(3)
    a, b = (np.tile(rng.random(300) < share, (4, 1)) for share in (0.7, 0.6))
    one, four = seeds_difference(a[:1], b[:1]), seeds_difference(a, b)
    assert four.high - four.low == pytest.approx(one.high - one.low, rel=0.1)
    assert four.n == 300


def test_what_differs_between_seeds_widens_the_interval():
    a = np.zeros((4, 200))
    a[:2] = 1  # two seeds win everything, two lose everything
    found = seeds_difference(a, 1 - a)
    assert found.value == 0.0 and found.low < -0.5 and found.high > 0.5
    for bad in ([1, 0], [[1, 0, 1]]):
        with pytest.raises(ValueError, match="seeds, items"):
            seeds_difference(bad, [[1, 0]])


def test_seeds_intervals_cover_the_truth_when_items_are_shared():
    rng = np.random.default_rng(4)
    covered = 0
    for run in range(120):
        hard, seeds = rng.random(150), rng.normal(0, 0.02, 8)[:, None]
        a = hard + seeds < 0.7 + 0.2 * rng.random((8, 150))  # truth: P(a) - P(b) = 0.1
        found = seeds_difference(a, hard + 0 * seeds < 0.7, seed=run, draws=200)
        covered += found.low <= 0.1 <= found.high
    assert covered / 120 >= 0.87


def test_the_paired_test_is_exact_mcnemar():
    a = np.array([1] * 10 + [0] * 2 + [1] * 5, dtype=bool)
    b = np.array([0] * 10 + [1] * 2 + [1] * 5, dtype=bool)
    found = paired_test(a, b)
    assert (found.wins, found.losses, found.ties) == (10, 2, 5)
    by_hand = 2 * sum(math.comb(12, k) for k in range(3)) / 2**12
    assert found.p_value == pytest.approx(by_hand) == paired_test(b, a).p_value
    assert paired_test(a, a).p_value == 1.0
    halves = paired_test([0.5, 1.0, 0.0], torch.tensor([0.0, 1.0, 0.5]))
    assert (halves.wins, halves.losses, halves.ties) == (1, 1, 1)
    with pytest.raises(ValueError, match="paired items"):
        paired_test([1, 0], [1])


def test_the_paired_test_seldom_cries_wolf():
    rng = np.random.default_rng(5)
    p = [paired_test(*(rng.random((2, 80)) < 0.6)).p_value for _ in range(400)]
    assert np.mean(np.array(p) < 0.05) <= 0.07
