"""The loss of customisation: how well the U-Net predicts the noise on given images.

In the model's own target, as it was trained: e, or v = sqrt(abar) e - sqrt(1 - abar) z0 (Salimans
and Ho, arXiv 2202.00512). Images, time steps and noises depend on seed and step alone, so two
runs with one seed see the same ones and can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsd_tutorial.stable_diffusion import StableDiffusion
from dsd_tutorial.stable_diffusion.precision import pick_dtype

TRAINING, CHECKING = 0, 1  # streams of random numbers that never meet

Latents = Float[Tensor, "batch channels height width"]
Prompts = Float[Tensor, "prompts tokens states"]


@dataclass(frozen=True, eq=False)
class Draw:
    """Which images, at which time steps, under which noise."""

    index: Int[Tensor, "*batch"]
    t: Int[Tensor, "*batch"]
    e: Latents


class Denoising:
    """Noise-prediction errors on latents that stay the same.

    Args:
        model: whose U-Net predicts.
        latents: of the images.
        batch_size: draws in each step.
        time_steps: (first, end) of the range, from each of whose `batch_size` equal parts one step
            is drawn (less spread than free draws); None: `usual_time_steps`.
        seed: of all draws.
        dtype: bfloat16 or float16 for the U-Net passes (autocast); None: as the model was loaded.

    Raises:
        ValueError: a range that is empty or not within 0..1000, or a batch size below 1.
    """

    def __init__(
        self,
        model: StableDiffusion,
        latents: Latents,
        *,
        batch_size: int = 8,
        time_steps: tuple[int, int] | None = None,
        seed: int = 0,
        dtype: torch.dtype | str | None = None,
    ):
        self.model, self.latents, self.seed = model, latents.detach().float(), seed
        self.batch_size, self.range = batch_size, time_steps or usual_time_steps(model)
        last = model.scheduler.config.num_train_timesteps
        if not 0 <= self.range[0] < self.range[1] <= last:
            raise ValueError(
                f"time_steps {self.range}: need (first, end), 0 <= first < end <= {last}"
            )
        if batch_size < 1 or not len(latents):
            raise ValueError(f"batch_size={batch_size} of {len(latents)} images: need 1 or more")
        self.dtype = None if dtype is None else pick_dtype(dtype)

    def draw(self, step: int, stream: int = TRAINING, count: int | None = None) -> Draw:
        """Return the `Draw` of one step; images come round in shuffled order."""
        count, images = count or self.batch_size, len(self.latents)
        numbers = generator_of(self.seed, stream, step)
        first = step * count
        orders = {
            n: torch.randperm(images, generator=generator_of(self.seed, stream, n, 1))
            for n in range(first // images, (first + count - 1) // images + 1)
        }
        index = [int(orders[p // images][p % images]) for p in range(first, first + count)]
        low, high = self.range
        place = torch.randperm(count, generator=numbers) + torch.rand(count, generator=numbers)
        t = (low + (high - low) * place / count).long().clamp(max=high - 1)
        e = torch.randn(count, *self.latents.shape[1:], generator=numbers)
        device = self.latents.device
        return Draw(torch.tensor(index, device=device), t.to(device), e.to(device))

    def noisy(self, draw: Draw) -> Latents:
        """Return z_t."""
        return self.model.add_noise(self.latents[draw.index], draw.e, draw.t)

    def target(self, draw: Draw) -> Latents:
        """Return what the raw U-Net should answer: e or v."""
        if self.model.prediction_type == "epsilon":
            return draw.e
        signal, spread = self.model.noise_levels(draw.t, len(draw.t))
        return signal * draw.e - spread * self.latents[draw.index]

    def answer(self, noisy: Latents, t: Int[Tensor, "*batch"], prompts: Prompts) -> Latents:
        """Return the raw U-Net's answer, float32, in the chosen precision."""
        kind = self.latents.device.type
        with torch.autocast(kind, self.dtype) if self.dtype else nullcontext():
            return self.model._unet(noisy, t, prompts)

    def errors(self, prompts: Prompts, draw: Draw) -> Float[Tensor, "*batch"]:
        """Return mean squared errors under one prompt, or one for each draw; differentiable."""
        answer = self.answer(self.noisy(draw), draw.t, prompts)
        return (answer - self.target(draw)).square().flatten(1).mean(1)


def usual_time_steps(model: StableDiffusion) -> tuple[int, int]:
    """Return the range of time steps from which a prompt learns *(ours)*.

    At low noise the image itself says what it shows, and the prompt matters little. A model that
    predicts v has errors of equal size everywhere: there the noisy steps, which decide what is
    drawn, 400 to 999. One that predicts e hardly notices an error in the image at high noise:
    all steps, as in Textual Inversion (Gal et al., arXiv 2208.01618).
    """
    last = model.scheduler.config.num_train_timesteps
    return (0, last) if model.prediction_type == "epsilon" else (2 * last // 5, last)


@contextmanager
def training_pass(model: StableDiffusion, gradient_checkpointing: bool = False) -> Iterator[None]:
    """Yield; inside the block backward passes through the U-Net are fast on a CPU, or small.

    On a CPU attention is explicit there (the backward pass of fused attention is slow); with
    `gradient_checkpointing` activations are computed twice and not kept. Restored after errors too.
    """
    unet, before = model.unet, dict(model.unet.attn_processors)
    had = unet.is_gradient_checkpointing
    try:
        if model.device.type == "cpu":
            from diffusers.models.attention_processor import AttnProcessor

            unet.set_attn_processor({name: AttnProcessor() for name in before})
        if gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        yield
    finally:
        unet.set_attn_processor(dict(before))  # which empties the dict it is given
        if not had:
            unet.disable_gradient_checkpointing()


def generator_of(*numbers: int) -> torch.Generator:
    """Return the generator, on the CPU, that these numbers (0 or more) name."""
    mixed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0] >> np.uint64(1)))
