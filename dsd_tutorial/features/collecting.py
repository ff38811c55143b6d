"""Features of many scenes: their images noised to chosen time steps, under the empty prompt.

Each scene has a noise of its own, drawn from its place in the list: with one noise for all, a probe
could learn to subtract it. A row depends on nothing else in the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from tqdm.auto import tqdm

from dsd_tutorial.features.capturing import Reduce, at_masks, capture, grid, pooled, positions
from dsd_tutorial.shapes import Scene, render
from dsd_tutorial.stable_diffusion.noising import time_grid
from dsd_tutorial.stable_diffusion.sampling import initial_noise

Kind = Literal["pooled", "grid", "regions", "positions"]
KINDS = get_args(Kind)
LATENTS = "latents"  # the block before the first: what the U-Net is given


class Cell(NamedTuple):
    """Where and when features were read, and how."""

    block: str
    step: int
    kind: str


@torch.no_grad()
def collect(
    model: Any,
    scenes: Sequence[Scene],
    blocks: str | Sequence[str] | None = None,
    steps: int | Sequence[int] = 6,
    kinds: Kind | Sequence[Kind] = "pooled",
    *,
    latents: bool = False,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> dict[Cell, Tensor]:
    """Return (block, time step, kind) -> features, one row for each scene.

    One U-Net pass for each scene and time step, whatever is kept. "pooled" (scenes, channels) is
    the mean over positions, "grid" (scenes, 4 channels) that of each quarter of the image,
    "regions" (scenes, things + 1, channels) that over the exact mask of each thing, the background
    being the last, and "positions" (scenes, places, channels) is everything.

    Args:
        model: A `StableDiffusion`.
        scenes: Rendered at the model's resolution.
        blocks: As in `choose_blocks`.
        steps: As in `time_grid`.
        kinds: One or several of `KINDS`.
        latents: Whether the noisy latents themselves are read too, as the block "latents": the
            control that tells what the U-Net adds to its input.
        seed: Of the noises, one for each scene, the same at each time step.
        batch_size: Scenes in one pass.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: For an unknown block, kind or time step, or no scene.
    """
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"unknown kind {unknown[0]!r}; choose of {', '.join(KINDS)}")
    if not scenes:
        raise ValueError("no scenes to collect features of: give at least one")
    times = time_grid(steps, model.scheduler.config.num_train_timesteps)
    empty, parts = model.encode_text([""]), {}
    with tqdm(total=len(scenes) * len(times), desc="features", disable=not progress) as bar:
        for start in range(0, len(scenes), batch_size):
            batch = scenes[start : start + batch_size]
            images, masks = render(batch, model.resolution)
            clean = model.encode_image(images)
            seeds = range(seed + start, seed + start + len(batch))
            noise = initial_noise(model.latent_shape, seeds).to(clean)
            ground = ~masks.any(1, keepdim=True)
            keep = _reductions(kinds, torch.cat([masks, ground], 1).to(clean.device))
            for t in times:
                noisy = model.add_noise(clean, noise, t)
                with capture(model, blocks, keep) as seen:
                    model.predict_noise(noisy, t, empty)
                found = {Cell(block, t, kind): seen[block, kind] for block, kind in seen.keys()}
                if latents:
                    own = {k: reduce(noisy).float().cpu() for k, reduce in keep.items()}
                    found = {Cell(LATENTS, t, k): rows for k, rows in own.items()} | found
                for cell, rows in found.items():
                    parts.setdefault(cell, []).append(rows)
                bar.update(len(batch))
    return {cell: torch.cat(rows) for cell, rows in parts.items()}


def _reductions(kinds: Sequence[str], masks: Tensor) -> Mapping[str, Reduce]:
    known: dict[str, Reduce] = {
        "pooled": pooled, "grid": grid, "regions": partial(at_masks, masks=masks),
        "positions": positions,
    }  # fmt: skip
    return {kind: known[kind] for kind in kinds}
