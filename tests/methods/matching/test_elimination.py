"""Who leaves a race and when, by hand: no U-Net, or one with very few passes."""

from types import SimpleNamespace

import pytest
import torch
from scipy.stats import norm

from dsd_tutorial.matching import Spreads, learn_spreads, rank, score
from dsd_tutorial.matching import ranking as ranks
from dsd_tutorial.matching.cost import measure
from dsd_tutorial.matching.ranking import Elimination, Race, _candidates

COVARIANCE = torch.tensor([[2.0, 1.0, 0.5], [1.0, 3.0, 0.0], [0.5, 0.0, 1.0]]).double()
SPREADS = Spreads((100, 500, 900), COVARIANCE, 40)
SCORES = torch.tensor([[[1.0, 0.5, 0.2], [0.4, 0.1, 0.0], [-2.0, 0.3, -1.0]]])
HOW = {"layers": ["mid"], "progress": False}
TEXTS = ["a red circle", "a blue star", "a pink heart"]


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(5))


def judged(risk, seen, scores=SCORES, who=None):
    field = Elimination(scores.shape[:2], risk)
    field.judge(scores, seen, SPREADS, field.open() if who is None else who)
    return field


def chances(seen):
    """The chances of the rivals to overtake candidate 0, from the formula for Gaussians."""
    weights, spread = SPREADS.forecast(seen)
    gap = (SCORES[0, :1, seen].double() - SCORES[0, :, seen].double()) @ weights
    return gap, norm.cdf(-gap / spread)


@pytest.mark.parametrize("seen", [[0], [2, 0]])
def test_who_has_less_than_the_risk_leaves(seen):
    gap, chance = chances(seen)
    field = judged(0.0, seen)
    assert field.chance[0].tolist() == pytest.approx([1.0, *chance[1:]], abs=1e-6)
    assert field.behind[0].tolist() == pytest.approx((-gap / 3).tolist(), abs=1e-6)
    assert field.seen.tolist() == [[len(seen)] * 3] and field.alive.all()
    for risk, left in ((chance[2] * 0.99, 3), (chance[2] * 1.01, 2), (chance[1] * 1.01, 1)):
        assert judged(risk, seen).alive.sum() == left


def test_who_has_just_the_risk_stays():
    one = judged(0.0, [0]).chance[0, 2].double()
    weights, spread = SPREADS.forecast([0])
    exact = torch.special.ndtr(-(SCORES[0, 0, :1] - SCORES[0, 2, :1]).double() @ weights / spread)
    assert one == exact.float() and judged(float(exact), [0]).alive[0, 2]


def test_where_everything_is_seen_only_the_best_stay():
    tied = torch.cat([SCORES, SCORES[:, :1]], dim=1)
    field = judged(0.3, [0, 1, 2], tied)
    assert field.chance.tolist() == [[1, 0, 0, 1]] and field.alive.tolist() == [[1, 0, 0, 1]]
    means = tied[0].mean(1)  # over the time steps, which are not as many as the candidates
    assert field.behind[0].tolist() == pytest.approx((means - means.max()).tolist(), abs=1e-6)
    wide = torch.tensor([[[3.0, 0, 0], [2.0, 0, 0]]])  # a gap of one is a gap
    assert judged(0.3, [0, 1, 2], wide).chance.tolist() == [[1, 0]]


def test_only_those_who_are_asked_are_judged_and_a_winner_is_not_asked():
    some = torch.tensor([[False, True, True]])
    field = judged(0.4, [0], who=some)
    assert field.seen.tolist() == [[0, 1, 1]] and field.chance[0, :2].tolist() == [1, 1]
    field = Elimination((2, 3), 0.1)
    field.alive[0, 1:] = False
    field.alive[1, 0] = False
    assert field.open().tolist() == [[False] * 3, [False, True, True]]


def test_the_order_is_alive_then_seen_then_behind_then_as_given():
    field = Elimination((1, 6), 0.1)
    field.alive[0, [0, 4, 5]] = False
    field.seen[0] = torch.tensor([3, 2, 2, 2, 5, 5])
    field.behind[0] = torch.tensor([0.0, -2.0, -1.0, -2.0, -9.0, -3.0])
    assert field.order().tolist() == [[2, 1, 3, 5, 4, 0]]


@pytest.mark.parametrize(("steps", "candidates", "want"), [(10, 2, 20), (9, 1, 18), (25, 4, 17)])
def test_as_many_items_are_scored_in_full_as_spreads_need(steps, candidates, want, monkeypatch):
    race, taken = object.__new__(Race), []
    race.passes, race.pair = SimpleNamespace(grid=(*range(steps),)), torch.zeros(30, candidates)
    race.field, scores = Elimination((30, candidates), 0.01), torch.rand(30, candidates, steps)
    monkeypatch.setattr(race, "_take", lambda who, steps, bar: taken.append((who, [*steps])))
    monkeypatch.setattr(race, "_scores", lambda: scores)
    monkeypatch.setattr(ranks, "learn_spreads", lambda known, grid: Spreads(
        grid, torch.eye(steps, dtype=torch.float64), len(known)))  # fmt: skip
    with pytest.warns(UserWarning, match=f"first {want} items"):
        found = race._learn(None)
    ((who, grid),) = taken
    assert found.items == want and grid == [*range(steps)] and race.spreads is found
    assert who[:want].all() and not who[want:].any()
    assert (race.field.seen[:want] == steps).all() and (race.field.seen[want:] == 0).all()


@pytest.mark.parametrize(
    ("held", "noises", "want"),
    [(4, 1, [2, 4]), (5, 1, [3, 4]), (1, 1, [1, 2, 3, 4]), (5, 2, [2, 4])],
)
def test_a_round_has_time_steps_enough_to_fill_a_batch(
    tiny, images, monkeypatch, held, noises, want
):
    monkeypatch.setattr(ranks, "ROWS", held)
    how = {"attention_weight": 1.0, "error_weight": 0.0, "weights": None}
    spreads = Spreads((125, 375, 625, 875), torch.eye(4, dtype=torch.float64), 9)
    pairs = torch.tensor([[[0, 0], [0, 1]]])
    race, rounds = Race(
        tiny, images, TEXTS, pairs, 0.1, spreads, how, steps=4, noises=noises, **HOW
    ), []  # fmt: skip
    monkeypatch.setattr(race, "_take", lambda who, steps, bar: rounds.append(len(steps)))
    monkeypatch.setattr(race, "_scores", lambda: torch.zeros(1, 2, 4))  # a tie: nobody leaves
    race.run()
    assert rounds == want and race.finished


@pytest.mark.parametrize("pairs", [None, torch.tensor([[[0, 0], [1, 0], [2, 1]]])])
def test_passes_are_counted_with_every_noise_and_empty_prompt(tiny, images, pairs):
    how = HOW | {"steps": 2, "noises": 2, "error_weight": 1.0, "candidates": pairs}
    spreads = Spreads((250, 750), torch.eye(2, dtype=torch.float64), 9)
    with measure(tiny) as meter:
        full = rank(tiny, images, TEXTS[:2], risk=0, **how)
    assert full.passes == full.full_passes == meter.unet_passes
    with measure(tiny) as meter:
        quick = rank(tiny, images, TEXTS[:2], risk=0.2, spreads=spreads, **how)
    # all in one round; texts that compete for one image share its empty prompt, which cancels
    spared = 3 * 2 * 2 if pairs is None else 0
    assert quick.passes == meter.unet_passes == full.passes - spared
    assert quick.full_passes == full.passes
    assert quick.complete and (quick.seen > 0).all()


def test_equal_candidates_keep_their_order(tiny, images):
    found = rank(tiny, images[:1], ["a ring", TEXTS[0], "a ring"], risk=0, steps=2, **HOW)
    table = score(tiny, images[:1], ["a ring", TEXTS[0]], steps=2, **HOW)[0]
    assert found.order.tolist() == [[0, 2, 1] if table[0] > table[1] else [1, 0, 2]]
    assert found.chance[0].tolist() == [float(table[0] > table[1]), float(table[1] > table[0])] + [
        float(table[0] > table[1])
    ]


def test_where_nothing_is_known_nobody_has_won(tiny, images, press):
    press(1)
    spreads = Spreads((250, 750), torch.eye(2, dtype=torch.float64), 9)
    how = HOW | {"steps": 2, "partial": True}
    with pytest.warns(UserWarning, match="interrupted"):
        found = rank(tiny, images, TEXTS[:2], spreads=spreads, **how)
    assert found.winner.tolist() == [-1] * 3 and not found.complete and found.passes == 0


def test_who_is_known_stands_before_who_is_not(tiny, images, press):
    press(2)
    how = HOW | {"steps": 1, "batch_size": 1, "partial": True, "risk": 0}
    with pytest.warns(UserWarning, match="interrupted"):
        found = rank(tiny, images[:1], TEXTS, **how)
    known = found.behind[0].isfinite()
    assert known.sum() == 1 and known[found.winner[0]] and not found.complete
    assert found.order[0, 0] == found.winner[0]


def test_candidates_lie_within_images_and_texts():
    assert _candidates([[[0, 0], [1, 2]]], 2, 3).tolist() == [[[0, 0], [1, 2]]]
    assert _candidates(None, 2, 3).shape == (2, 3, 2) and _candidates(None, 4, 1).shape == (1, 4, 2)
    for wrong in ([[0, 0]], [[[0, 0, 0]]], [[[0, 3]]], [[[2, 0]]], [[[-1, 0]]], [[[[0, 0]]]]):
        with pytest.raises(ValueError, match="candidates must be"):
            _candidates(wrong, 2, 3)


def test_spreads_of_just_enough_items_can_be_solved_at_any_scale():
    scores = torch.rand(4, 2, 4, generator=torch.Generator().manual_seed(2)).double()
    scores[..., 3] = scores[..., 0]  # a time step that says nothing new
    for scale in (1e-3, 1.0, 1e3):
        found = learn_spreads(scale * scores, range(4)).covariance
        assert torch.linalg.eigvalsh(found).min() > 1e-7 * scale**2
        torch.testing.assert_close(found / scale**2, learn_spreads(scores, range(4)).covariance)
    with pytest.raises(ValueError, match="at least 4 items"):
        learn_spreads(scores[:3], range(4))
