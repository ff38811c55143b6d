"""Time steps: the edges of their range, and the order in which they are visited."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsd_tutorial.matching.baselines.diffusion_classifier import spread_order
from dsd_tutorial.prompt_learning.methods import DiffusionClassifier
from dsd_tutorial.shapes.tasks import make_task
from dsd_tutorial.stable_diffusion.noising import shared_noise, time_grid


@settings(deadline=None)
@given(st.integers(1, 2000))
def test_every_step_of_the_range_is_allowed_and_none_beside_it(length):
    first, last = (0,), (length - 1,)
    assert time_grid(first, length) == first and time_grid(last, length) == last
    assert time_grid(length, length) == tuple(range(length))  # as a number: all there are
    for beside in ([-1], [length], [0, length]):
        with pytest.raises(ValueError, match=rf"\[{beside[-1]}\] must be .* of 0\.\.{length - 1}$"):
            time_grid(beside, length)
    for number in (0, -1, length + 1):
        with pytest.raises(ValueError, match=f"must be 1 to {length}$"):
            time_grid(number, length)


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(0, 600))
def test_a_number_of_steps_is_the_middle_of_equal_cells(number, more):
    length = number + more
    grid = time_grid(number, length)
    assert len(grid) == number and len(set(grid)) == number
    for i, t in enumerate(grid):
        assert 0 <= (i + 0.5) * length / number - t < 1  # the whole number at or below the middle


@pytest.mark.parametrize("steps", [1, 2, 5, 8])
def test_the_diffusion_classifier_spreads_its_steps_from_the_start(tiny, monkeypatch, steps):
    """Every beginning of what it visits is spread over the range, each step with its own noise."""
    seen, task, seed = [], make_task("refcoco", 1), 3

    def add_noise(latents, noise, t):
        (one,) = t.unique().tolist()  # all candidates at once, under one noise
        assert torch.equal(noise, noise[:1].expand_as(noise))
        seen.append((one, noise[:1].clone()))
        return latents

    monkeypatch.setattr(tiny, "add_noise", add_noise)
    monkeypatch.setattr(tiny, "predict_noise", lambda noisy, t, states: torch.zeros_like(noisy))
    DiffusionClassifier(steps=steps).score(tiny, task, seed=seed, progress=False)
    grid, order = time_grid(steps), spread_order(steps)
    assert [t for t, _ in seen] == [grid[i] for i in order]
    assert steps < 5 or [t for t, _ in seen] != list(grid)
    for i, (_, noise) in zip(order, seen, strict=True):
        assert torch.equal(noise, shared_noise(noise.shape[1:], seed, i))
