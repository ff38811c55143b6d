"""Log-SNR and the weights that turn sums into integrals."""

import math

import pytest
import torch

from dsd_tutorial.information import Levels, level_grid, log_snr, trapezoid


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


def test_levels_say_what_they_are():
    levels = Levels(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.5]))
    assert repr(levels) == "Levels(2 levels, log-SNR 1.00 to 2.00)" and len(levels) == 2
