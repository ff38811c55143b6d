"""From noise to images: classifier-free guidance along a scheduler's time steps.

One generator per image, on the CPU: image i depends on its seed and prompt alone, not on what
else is in the batch (up to rounding in batched kernels), nor on the device that draws it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Latents = Float[Tensor, "batch channels height width"]
Prompts = Float[Tensor, "batch _ states"]  # the negative ones may be of another length
Predict = Callable[[Tensor, Any, Tensor], Tensor]
# what a learner may watch: step index, time step, latents after the step, guided prediction
Callback = Callable[[int, int, Tensor, Tensor], Any]


def seed_list(seed: int | Sequence[int], count: int) -> tuple[int, ...]:
    """Return one seed per image: the given ones, or seed, seed + 1, ...

    Raises:
        ValueError: For a list of another length than `count`.
    """
    if isinstance(seed, int):
        return tuple(range(seed, seed + count))
    if len(seed) != count:
        raise ValueError(f"{len(seed)} seeds for {count} images: give one each, or a single int")
    return tuple(int(value) for value in seed)


def initial_noise(shape: tuple[int, int, int], seeds: Sequence[int]) -> Latents:
    """Return standard normal latents; row i is drawn from seeds[i] alone."""
    return torch.cat(
        [torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


def guided(
    predict: Predict,
    latents: Latents,
    timestep: Any,
    context: Prompts,
    negative: Prompts,
    guidance: float,
) -> Latents:
    """Return u + g (c - u) from predictions without (u) and with text (c).

    One pass on the stacked batch [negative, context]; two passes where they differ in length; a
    single one at guidance 1, where u cancels. Ho and Salimans, arXiv 2207.12598, eq. 6 with
    g = 1 + w.
    """
    if guidance == 1:
        return predict(latents, timestep, context)
    if negative.shape[1] == context.shape[1]:
        both = predict(torch.cat([latents] * 2), timestep, torch.cat([negative, context]))
        without, with_text = both.chunk(2)
    else:
        without = predict(latents, timestep, negative)
        with_text = predict(latents, timestep, context)
    return without + guidance * (with_text - without)


@torch.no_grad()
def denoise(
    predict: Predict,
    scheduler: Any,
    noise: Latents,
    context: Prompts,
    negative: Prompts,
    *,
    steps: int,
    guidance: float,
    seeds: Sequence[int],
    callback: Callback,
) -> Latents:
    """Return clean latents from the noise of one batch.

    `predict` is the raw U-Net: schedulers know its prediction type. A fresh scheduler serves each
    batch, since some remember their last steps.
    """
    own = type(scheduler).from_config(scheduler.config)
    own.set_timesteps(steps, device=noise.device)
    extra = _own_generators(own, seeds)
    latents = noise * own.init_noise_sigma
    for index, timestep in enumerate(own.timesteps):
        scaled = own.scale_model_input(latents, timestep)
        output = guided(predict, scaled, timestep, context, negative, guidance)
        latents = own.step(output, timestep, latents, **extra).prev_sample
        callback(index, int(timestep), latents, output)
    return latents


def _own_generators(scheduler: Any, seeds: Sequence[int]) -> dict[str, Any]:
    """Return one generator per image for schedulers that add noise on the way (ancestral ones).

    Seeds are shifted, so that this noise is not the initial noise again.
    """
    if "generator" not in inspect.signature(scheduler.step).parameters:
        return {}
    return {"generator": [torch.Generator().manual_seed(seed + 2**32) for seed in seeds]}
