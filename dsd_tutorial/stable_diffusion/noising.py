"""Time steps and noises that all candidates share.

A difference between two candidates is far smaller than the difference between two noises, so every
candidate must be seen under the same (t, e): He et al., arXiv 2305.10722, and Li et al., arXiv
2303.16203. The noise here depends on nothing but the seed and the place of the time step in the
list, never on an item's place in its batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

TRAINING_STEPS = 1000


def time_grid(steps: int | Sequence[int], training_steps: int = TRAINING_STEPS) -> tuple[int, ...]:
    """Return time steps in [0, training_steps): a list as it is, or n of them from an int.

    An int n cuts the range into n equal cells and takes the middle of each: 1 -> (500,),
    2 -> (250, 750). Another grid is another score; more noises on one grid only steady it.

    Raises:
        ValueError: For an empty grid or a step outside the range.
    """
    if isinstance(steps, int):
        if not 1 <= steps <= training_steps:
            raise ValueError(f"steps={steps}: as a number it must be 1 to {training_steps}")
        return tuple(int((i + 0.5) * training_steps / steps) for i in range(steps))
    grid = tuple(int(t) for t in steps)
    wrong = [t for t in grid if not 0 <= t < training_steps]
    if wrong or not grid:
        raise ValueError(
            f"time steps {wrong or grid} must be one or more of 0..{training_steps - 1}"
        )
    return grid


def shared_noise(
    shape: Sequence[int], seed: int, step: int, noise: int = 0
) -> Float[Tensor, "1 channels height width"]:
    """Return standard normal noise, float32 on the CPU, the same on every machine.

    `step` is the index of the time step in its list, `noise` counts the noises of one time step.
    """
    if seed < 0:
        raise ValueError(f"seed must be >= 0, not {seed}")
    mixed = np.random.SeedSequence([seed, step, noise]).generate_state(1, np.uint64)
    numbers = torch.Generator().manual_seed(int(mixed[0] >> np.uint64(1)))
    return torch.randn(1, *shape, generator=numbers)
