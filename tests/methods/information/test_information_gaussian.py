"""Estimates in a Gaussian world, where the information is a formula."""

import pytest
import torch

from dsd_tutorial.information import LinearGaussian, decompose, logistic_levels


def even(n, low=-16.0, high=16.0):
    return torch.linspace(low, high, n).double()


@pytest.fixture(scope="module")
def world():
    return LinearGaussian.random(size=6, seen=2, seed=3)


def estimates(world, n, levels, **how):
    x, y = world.sample(n, seed=1)
    found = decompose(world.denoiser(), world.denoiser(y), x[:, None], levels, **how)
    return x, y, found


def test_formulas_agree(world):
    """The mean of the pointwise information is the mutual information."""
    pointwise = world.pointwise(*world.sample(40_000))
    error = float(pointwise.std()) / 200
    assert abs(float(pointwise.mean()) - world.mutual_information()) < 4 * error


def test_the_denoiser_is_the_best_guess(world):
    """The residual noise is uncorrelated with what was seen, and smaller with the observation."""
    x, y = world.sample(20_000)
    e = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)[:, None]
    a = torch.tensor(0.3)
    z = a.sigmoid().sqrt() * x[:, None] + (-a).sigmoid().sqrt() * e
    without, under = world.denoiser()(z, 0.3), world.denoiser(y)(z, 0.3)
    for guess in (without, under):
        assert ((e - guess) * z).mean().abs() < 0.02
    assert (e - under).square().mean() < (e - without).square().mean()


def test_orthogonal_mean_is_within_two_percent(world):
    *_, found = estimates(world, 4000, even(65))
    mean = float(found.total("orthogonal").mean())
    assert mean == pytest.approx(world.mutual_information(), rel=0.02)
    assert bool((found.orthogonal >= 0).all())


def test_standard_is_unbiased_for_each_pair(world):
    """For one (x, y), over many noises: log p(x | y) - log p(x), which may be negative."""
    x, y = world.sample(100, seed=7)
    order = world.pointwise(x, y).argsort()[[0, 1, 50, 98, 99]]
    x, y, n = x[order], y[order], 2000
    truth = world.pointwise(x, y)
    assert truth[0] < -0.5 and truth[-1] > 1  # both signs are there
    many, seen = x.repeat_interleave(n, 0), y.repeat_interleave(n, 0)
    found = decompose(world.denoiser(), world.denoiser(seen), many[:, None], even(65))
    each = found.total("standard").view(len(x), n)
    assert bool(((each.mean(1) - truth).abs() < 4 * each.std(1) / n**0.5 + 0.01).all())


def test_drawn_levels_find_the_same(world):
    levels = [logistic_levels(16, location=0.0, scale=2.0, cut=8.0, seed=s) for s in range(40)]
    means = [float(estimates(world, 1000, x)[2].total().mean()) for x in levels]
    assert sum(means) / 40 == pytest.approx(world.mutual_information(), rel=0.03)


def test_orthogonal_spreads_less_than_standard(world):
    *_, found = estimates(world, 1000, even(33))
    assert found.total("orthogonal").std() < found.total("standard").std()


def test_the_two_differ_by_the_cross_term(world):
    """And its mean is zero, for pairs that belong together only."""
    x, y, found = estimates(world, 4000, even(65))
    gap = found.total("standard") - found.total("orthogonal")
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / 4000**0.5
    wrong = decompose(world.denoiser(), world.denoiser(y.roll(1, 0)), x[:, None], even(65))
    assert float(wrong.total("standard").mean()) < 0 < float(wrong.total("orthogonal").mean())


def test_tails_are_what_a_narrower_range_loses(world):
    *_, wide = estimates(world, 2000, even(129))
    for low, high, end in ((-4.0, 16.0, 0), (-16.0, 5.0, 1)):
        *_, part = estimates(world, 2000, even(129, low, high))
        lost = float(wide.total().mean() - part.total().mean())
        assert float(part.tails()[:, end].mean()) == pytest.approx(lost, rel=0.25)
        assert float(part.tails()[:, 1 - end].mean()) < 1e-3


def test_what_does_not_depend_on_the_data_says_nothing():
    world = LinearGaussian(torch.eye(3).double(), torch.zeros(1, 3).double(), torch.eye(1).double())
    assert world.mutual_information() == pytest.approx(0.0, abs=1e-12)
    *_, found = estimates(world, 10, even(9))
    assert float(found.total().abs().max()) == pytest.approx(0.0, abs=1e-12)


def test_independent_numbers_carry_their_own_information():
    """The map of a diagonal world: each number's formula, log(1 + S / R) / 2."""
    variance = torch.tensor([1.0, 4.0, 0.25]).double()
    world = LinearGaussian(variance.diag(), torch.eye(3).double(), torch.eye(3).double())
    *_, found = estimates(world, 4000, even(129))
    torch.testing.assert_close(
        found.map().mean(0).double(), (1 + variance).log() / 2, rtol=0.05, atol=0.0
    )
