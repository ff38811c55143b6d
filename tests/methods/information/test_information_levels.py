"""Log-SNR and the weights that turn sums into integrals."""

import math

import pytest
import torch

from dsd_tutorial.information import Levels, level_grid, log_snr, logistic_levels, trapezoid


def test_log_snr_is_the_level_that_add_noise_uses(tiny):
    a = log_snr(tiny)
    signal, spread = tiny.noise_levels(torch.tensor([0, 300, 900]), 3)
    torch.testing.assert_close(a[[0, 300, 900]].sigmoid().sqrt().float(), signal.flatten())
    torch.testing.assert_close((-a[[0, 300, 900]]).sigmoid().sqrt().float(), spread.flatten())
    assert bool((a.diff() < 0).all())


def test_trapezoid_weights_are_exact_for_lines_in_any_order():
    a = torch.tensor([3.0, -2.0, 0.5, -7.0]).double()
    for line in (torch.ones_like(a), a):
        whole = (9 - 49) / 2 if line is a else 10.0
        assert trapezoid(a) @ line == pytest.approx(whole)


@pytest.mark.parametrize("bad", [[1.0], [1.0, 1.0], [0.0, -math.inf]])
def test_trapezoid_refuses_what_has_no_width(bad):
    with pytest.raises(ValueError, match="two or more levels, finite and all different"):
        trapezoid(torch.tensor(bad))


def test_a_grid_holds_steps_of_the_model_about_equally_far_apart(tiny):
    grid, a = level_grid(tiny, 9, low=-4.0, high=4.0), log_snr(tiny)
    assert torch.equal(grid.log_snr, a[list(grid.steps)])
    assert grid.log_snr.diff().abs().sub(1.0).abs().max() < 0.1
    assert float(grid.weights.sum()) == pytest.approx(
        float(grid.log_snr.max() - grid.log_snr.min())
    )


def test_a_listed_grid_is_taken_as_it_is(tiny):
    assert level_grid(tiny, [700, 100, 400]).steps == (700, 100, 400)
    assert level_grid(tiny, 5, low=-99, high=99).steps[0] == 0  # as far as the model goes


def test_a_part_of_a_grid_covers_its_own_range(tiny):
    grid = level_grid(tiny, 9, low=-4.0, high=4.0)
    a = grid.log_snr
    part = grid.between(high=float(a[3]))
    assert part.steps == grid.steps[3:] and torch.equal(part.log_snr, a[3:])
    assert float(part.weights.sum()) == pytest.approx(float(a[3] - a[-1]))
    with pytest.raises(ValueError, match="two or more levels"):
        grid.between(low=3.6)


def test_bad_grids_are_refused(tiny):
    with pytest.raises(ValueError, match="2 or more"):
        level_grid(tiny, 1)
    with pytest.raises(ValueError, match=r"time steps \[1000\] must be of 0..999"):
        level_grid(tiny, [10, 1000])


def test_the_step_of_pure_noise_cannot_be_used(shapes_sd):
    assert log_snr(shapes_sd)[-1] == -math.inf
    with pytest.raises(ValueError, match="leave out the time step of pure noise"):
        level_grid(shapes_sd, [500, 999])
    assert 999 not in level_grid(shapes_sd, 20, low=-99).steps


def bump(a):
    """A function with a known integral: the density of a normal distribution."""
    return torch.exp(-((a + 1) ** 2) / 2) / math.sqrt(2 * math.pi)


def test_logistic_levels_are_right_in_the_mean():
    found = [
        float(levels.weights @ bump(levels.log_snr))
        for levels in (
            logistic_levels(5, location=0.0, scale=1.0, cut=8, seed=s) for s in range(400)
        )
    ]
    found = torch.tensor(found)
    error = found.std() / len(found) ** 0.5
    assert abs(found.mean() - 1) < 4 * error and error < 0.01


def test_a_cut_leaves_out_what_lies_beyond_it():
    levels = logistic_levels(2000, location=1.0, scale=2.0, cut=3.0)
    assert float(levels.log_snr.min()) >= -5 and float(levels.log_snr.max()) <= 7
    assert float(levels.weights.sum()) == pytest.approx(12, rel=0.02)  # the width of the range


def test_drawn_steps_estimate_the_trapezoid_sum_over_all_steps(tiny):
    how = {"location": -1.0, "scale": 1.0, "cut": 4.0}
    a = log_snr(tiny)
    inside = a[(a + 1).abs() <= 4.0]
    whole = float(trapezoid(inside) @ bump(inside))
    found = torch.tensor(
        [
            float(levels.weights @ bump(levels.log_snr))
            for levels in (logistic_levels(6, model=tiny, seed=s, **how) for s in range(300))
        ]
    )
    assert abs(found.mean() - whole) < 4 * found.std() / 300**0.5
    levels = logistic_levels(6, model=tiny, **how)
    assert torch.equal(levels.log_snr, a[list(levels.steps)])


def test_stratified_draws_spread_less_than_independent_ones():
    how = {"location": 0.0, "scale": 1.0, "cut": 6.0}
    one = torch.stack(
        [logistic_levels(1, seed=s, **how).weights * bump(logistic_levels(1, seed=s, **how).log_snr)
         for s in range(400)]
    ).flatten()  # fmt: skip
    eight = torch.tensor(
        [
            float(levels.weights @ bump(levels.log_snr))
            for levels in (logistic_levels(8, seed=s, **how) for s in range(100))
        ]
    )
    assert eight.std() < 0.5 * one.std() / 8**0.5


@pytest.mark.parametrize("bad", [{"n": 0}, {"n": 3, "scale": 0.0}, {"n": 3, "cut": -1.0}])
def test_bad_draws_are_refused(bad):
    with pytest.raises(ValueError, match="all must be positive"):
        logistic_levels(**bad)


def test_a_range_without_steps_is_refused(tiny):
    with pytest.raises(ValueError, match="fewer than two time steps"):
        logistic_levels(3, model=tiny, location=90.0)


def test_levels_say_what_they_are():
    levels = Levels(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.5]))
    assert repr(levels) == "Levels(2 levels, log-SNR 1.00 to 2.00)" and len(levels) == 2
