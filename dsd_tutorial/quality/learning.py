"""Quality prompts that are learned: by gradient through the U-Net, on images of known strength.

The prompts are states that the U-Net reads, behind the text encoder. They start as given prompts,
and a linear head on their readings starts as the ridge regression of these, so that step 0 is the
regression on given prompts. Afterwards the head is thrown away: whoever uses the prompts regresses
on their readings anew, as on any others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from dsd_tutorial.quality.degrading import Degraded
from dsd_tutorial.quality.prompts import (
    STEPS,
    WORDS,
    Prompts,
    encode_prompts,
    noised,
    quality_readings,
    read_pass,
)
from dsd_tutorial.quality.regression import regression
from dsd_tutorial.stable_diffusion.noising import time_grid


def fit_prompts(
    model: Any,
    known: Degraded,
    prompts: Prompts | Sequence[str] = WORDS,
    *,
    updates: int = 40,
    batch_images: int = 16,
    lr: float = 0.05,
    steps: int | Sequence[int] = STEPS,
    layers: str | Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Prompts:
    """Return the prompts after gradient steps on the squared error of the strength.

    Args:
        model: A `StableDiffusion`; its weights stay as they are.
        known: Images of known strength.
        prompts: Where to start: texts, or states.
        updates: Steps of Adam, the learning rate falling to 0; 0 returns the prompts as they are.
        batch_images: Images per update; each costs a forward and a backward pass per time step.
        lr: Of the prompts' states, whose entries are about 1 large.
        steps: As in `quality_readings`, like `layers`.
        layers: None is all.
        seed: Of batches and noises.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: Fewer than 0 updates, or a learning rate that is not positive.
        RuntimeError: A loss that is not finite.
    """
    if updates < 0 or lr <= 0:
        raise ValueError(f"updates={updates}, lr={lr}: need updates >= 0 and lr > 0")
    start = prompts if isinstance(prompts, Tensor) else encode_prompts(model, prompts)
    learned = start.detach().clone()
    if not updates:
        return learned
    grid = time_grid(steps, model.scheduler.config.num_train_timesteps)
    how = {"steps": grid, "layers": layers, "seed": seed}
    center, scale, head, base = _head(quality_readings(
        model, known.images, learned, progress=progress, **how
    ), known.strengths, model.device)  # fmt: skip
    learned.requires_grad_()
    optimizer = torch.optim.Adam([{"params": [learned]}, {"params": [head, base], "lr": lr / 50}],
                                 lr=lr)  # fmt: skip
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    latents, target = model.encode_image(known.images), known.strengths.to(model.device)
    batches = _batches(len(known), batch_images, seed)
    for _ in (bar := tqdm(range(updates), "quality prompts", disable=not progress, leave=False)):
        rows = next(batches)
        with torch.enable_grad():
            read = torch.cat([
                read_pass(model, noised(model, latents[rows], seed, s, t), t, learned, layers, True)
                for s, t in enumerate(grid)
            ], dim=1)  # fmt: skip
            loss = F.mse_loss(((read - center) / scale) @ head + base, target[rows])
        if not bool(torch.isfinite(loss)):
            raise RuntimeError(f"the loss is {loss.item()}: take a smaller lr than {lr}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    return learned.detach()


def _head(
    read: Float[Tensor, "images features"], strengths: Float[Tensor, " images"], device: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (center, scale, weights, base) of the regression; the last two are to be learned."""
    scaler, ridge = (part for _, part in regression().fit(read.numpy(), strengths.numpy()).steps)
    made = (scaler.mean_, scaler.scale_, ridge.coef_, ridge.intercept_)
    center, scale, head, base = (
        torch.as_tensor(x, dtype=torch.float32, device=device) for x in made
    )
    return center, scale, head.requires_grad_(), base.requires_grad_()


def _batches(count: int, size: int, seed: int) -> Any:
    """Yield rows, every image once per round."""
    numbers = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=numbers).split(min(size, count))
