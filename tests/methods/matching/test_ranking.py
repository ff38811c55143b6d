"""The best candidate at fewer passes: exact at risk 0, and who leaves is known to lose."""

import numpy as np
import pytest
import torch

from dsd_tutorial.matching import (
    Spreads,
    components,
    item_scores,
    learn_spreads,
    rank,
    score,
)
from dsd_tutorial.matching.cost import measure
from dsd_tutorial.matching.ranking import Race
from dsd_tutorial.prompt_learning import SoftPrompt

TEXTS = ["a red circle", "a blue square above a green star", "a pink heart", "a cross", "a ring"]
HOW = {"steps": 4, "layers": ["mid", "up.2"], "progress": False}


@pytest.fixture(scope="module")
def images():
    return torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def spreads(tiny, images):
    parts = components(tiny, images[:4], TEXTS, errors=True, **HOW)
    return learn_spreads(item_scores(parts, len(TEXTS), error_weight=1.0), parts.steps)


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (1.0, 0.5)])
def test_without_risk_it_is_score(tiny, images, weights):
    attention, error = weights
    how = HOW | {"attention_weight": attention, "error_weight": error}
    table = score(tiny, images[:2], TEXTS, **how)
    found = rank(tiny, images[:2], TEXTS, risk=0, **how)
    assert torch.equal(found.winner, table.argmax(1)) and found.complete
    assert torch.equal(found.order, table.argsort(1, descending=True))
    assert torch.equal(found.behind, table - table.amax(1, keepdim=True))
    with measure(tiny) as meter:
        score(tiny, images[:2], TEXTS, **how)
    assert found.passes == found.full_passes == meter.unet_passes


def test_a_small_risk_gives_the_winner_of_score_at_fewer_passes(tiny, images, spreads):
    how = HOW | {"error_weight": 1.0}
    table = score(tiny, images, TEXTS, **how)
    with measure(tiny) as meter:
        found = rank(tiny, images, TEXTS, spreads=spreads, risk=1e-9, **how)
    assert torch.equal(found.winner, table.argmax(1))
    assert found.passes == meter.unet_passes < found.full_passes
    assert found.full_passes == 6 * (5 + 1) * 4  # with the empty prompt, which cancels in `rank`
    bold = rank(tiny, images, TEXTS, spreads=spreads, risk=0.4, **how)
    assert bold.passes < found.passes
    for ranking in (found, bold):
        assert torch.equal(ranking.order[:, 0], ranking.winner)
        assert (ranking.behind.gather(1, ranking.winner[:, None]) == 0).all()
        left = ranking.seen.gather(1, ranking.order)
        assert (left.diff(dim=1) <= 0).all()  # who left later stands before who left earlier


def test_scores_seen_are_those_of_score(tiny, images, spreads):
    """Time steps keep the noise of their place, in whatever order and company they are run."""
    how = {"attention_weight": 1.0, "error_weight": 1.0, "weights": None}
    every = torch.cartesian_prod(torch.arange(6), torch.arange(5)).view(6, 5, 2)
    race = Race(tiny, images, TEXTS, every, 0.3, spreads, how, **HOW)
    race.run()
    want, got = components(tiny, images, TEXTS, errors=True, **HOW), race.tally.parts()
    known = got.errors.isfinite()
    assert 0 < known.float().mean() < 1
    torch.testing.assert_close(got.scores[known], want.scores[known], atol=3e-5, rtol=0)
    gaps = (want.errors - got.errors).view(6, 5, 4)  # an image's own base, whatever the text
    wide = gaps.nan_to_num(-1e9).amax(1) - gaps.nan_to_num(1e9).amin(1)
    assert wide[known.view(6, 5, 4).any(1)].max() < 1e-4


def test_images_for_one_text(tiny, images):
    parts = components(tiny, images, TEXTS[:1], errors=True, **HOW)
    spreads = learn_spreads(item_scores(parts, 6, error_weight=1.0), parts.steps)
    table = score(tiny, images, TEXTS[:1], error_weight=1.0, **HOW)[:, 0]
    with measure(tiny) as meter:
        found = rank(tiny, images, TEXTS[:1], spreads=spreads, risk=1e-6, error_weight=1.0, **HOW)
    assert found.winner.tolist() == [table.argmax()] and found.passes == meter.unet_passes
    assert found.full_passes == 6 * 2 * 4


def test_without_spreads_it_learns_from_the_first_items_and_says_so(tiny, images):
    many = torch.cat([images, images.flip(2), images.flip(3), images.flip(2, 3)])  # 24 items
    with pytest.warns(UserWarning, match="first 16 items are scored in full"):
        found = rank(tiny, many, TEXTS[:3], **HOW)
    full = rank(tiny, many, TEXTS[:3], risk=0, **HOW)
    assert torch.equal(found.winner[:16], full.winner[:16]) and found.spreads.items == 16
    assert 16 * 3 * 4 < found.passes < full.passes and bool((found.seen[:16] == 4).all())


def test_an_adapter_that_is_active_counts(tiny, images):
    adapter = SoftPrompt(tiny, n=2)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    with adapter.active(tiny):
        table = score(tiny, images[:2], TEXTS, **HOW)
        found = rank(tiny, images[:2], TEXTS, risk=0, **HOW)
    assert torch.equal(found.behind, table - table.amax(1, keepdim=True))


def test_an_interrupt_leaves_who_leads(tiny, images, spreads, press):
    press(2)
    how = HOW | {"spreads": spreads, "error_weight": 1.0, "risk": 1e-9}
    with pytest.warns(UserWarning, match="interrupted"):
        found = rank(tiny, images, TEXTS, partial=True, **how)
    assert not found.complete and (found.winner >= 0).all() and found.seen.max() < 4
    press(2)
    with pytest.raises(KeyboardInterrupt):
        rank(tiny, images, TEXTS, **how)


def test_spreads_forecast_what_a_gaussian_would_do():
    """On draws from a known Gaussian: the forecast is unbiased and as wide as it says."""
    numbers = np.random.default_rng(0)
    root = numbers.normal(size=(5, 5))
    scores = torch.from_numpy(numbers.normal(size=(4000, 3, 5)) @ root)
    spreads = learn_spreads(scores, range(5))
    torch.testing.assert_close(
        spreads.covariance, torch.from_numpy(2 * root.T @ root), atol=1.0, rtol=0.1
    )
    seen = spreads.order()[:2]
    weights, left = spreads.forecast(seen)
    gap = scores[:, 0] - scores[:, 1]
    miss = gap.sum(1) - gap[:, seen] @ weights
    assert abs(miss.mean()) < 4 * left / 4000**0.5 and abs(miss.std() / left - 1) < 0.05
    assert spreads.forecast(range(5))[1] == 0
    others = [spreads.forecast([i])[1] for i in range(5)]
    assert others[spreads.order()[0]] == min(others)


def test_the_chance_is_the_share_of_races_that_are_turned(tiny):
    """Who is dropped at risk r would have won in about a share r of the cases, at most."""
    numbers = np.random.default_rng(1)
    common = numbers.normal(size=(3000, 2, 1))
    scores = torch.from_numpy(common + 1.5 * numbers.normal(size=(3000, 2, 6)))
    spreads = learn_spreads(scores, range(6))
    weights, left = spreads.forecast([0, 3])
    gap = (scores[:, 0] - scores[:, 1])[:, [0, 3]] @ weights
    chance = torch.special.ndtr(-gap.abs() / left)
    turned = (gap * (scores[:, 0] - scores[:, 1]).sum(1)) < 0
    assert abs(turned.double().mean() - chance.mean()) < 0.02
    sure = chance < 0.05
    assert turned[sure].double().mean() < 0.05


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"risk": 1.0}, "risk=1.0"),
        ({"risk": -0.1}, "risk=-0.1"),
        ({"prior": "validation"}, "no prior"),
        ({"spreads": Spreads((1, 2), torch.eye(2, dtype=torch.float64), 5)}, "learn them anew"),
        ({"candidates": torch.zeros(2, 3, dtype=torch.long)}, "candidates must be"),
        ({"candidates": torch.full((1, 2, 2), 9)}, "text index < 5"),
        ({"token_mask": "nouns"}, "token_mask"),
        ({"pooling": "median"}, "pooling"),
    ],
)
def test_settings_out_of_range_are_refused(tiny, images, spreads, unchecked, bad, match):
    with pytest.raises(ValueError, match=match):
        rank(tiny, images, TEXTS, **HOW | {"spreads": spreads} | bad)
    with pytest.raises(ValueError, match="at least 4 items"):
        learn_spreads(torch.zeros(2, 2, 4), range(4))
