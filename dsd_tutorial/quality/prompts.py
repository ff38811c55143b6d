"""Quality prompts, and what the cross-attention between an image and them reads.

After GenzIQA (De et al., arXiv 2406.04654): image quality from cross-attention between an image and
prompts of quality that are learned. The time step, and what is read of the map of log-sum-exps (its
mean, its spread, its roughness), are *ours*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from dsd_tutorial.attention import observe
from dsd_tutorial.stable_diffusion.noising import shared_noise, time_grid

WORDS = ("a sharp clean picture", "a blurred noisy picture")
STEPS = (150,)  # of 5 to 500, alone and together, the others were no better on validation images
BATCH = 64  # rows (an image at one time step) per U-Net pass

Prompts = Float[Tensor, "prompts tokens states"]


def encode_prompts(model: Any, texts: Sequence[str]) -> Prompts:
    """Return the states of texts without the start token, up to the longest one's end token.

    Raises:
        ValueError: No text.
    """
    if not len(texts):
        raise ValueError("texts is empty: give one quality prompt at least, such as WORDS")
    end = int(model.eos_positions(list(texts)).max())
    return model.encode_text(list(texts))[:, 1 : end + 1].detach()


def joint_context(
    model: Any, prompts: Prompts
) -> tuple[Float[Tensor, "1 positions states"], list[Bool[Tensor, " positions"]]]:
    """Return a context of the start token and all prompts side by side, and each one's mask.

    One pass then answers for all of them.
    """
    count, tokens, _ = prompts.shape
    start = model.encode_text([""])[:, :1]
    context = torch.cat([start, prompts.flatten(0, 1)[None].to(start)], dim=1)
    owner = torch.arange(context.shape[1]).sub(1).div(tokens, rounding_mode="floor")
    return context, [owner == i for i in range(count)]


def read_pass(
    model: Any,
    noisy: Float[Tensor, "batch channels height width"],
    timesteps: Any,
    prompts: Prompts,
    layers: Any = None,
    grad: bool = False,
) -> Float[Tensor, "batch readings"]:
    """Return what one U-Net pass reads of the log-sum-exps, by layer, prompt and head.

    The log-sum-exp of a pixel is over a prompt's tokens (mean form). Of its map over the pixels the
    mean is read, the standard deviation, and the mean absolute step from a pixel to the next.
    """
    context, masks = joint_context(model, prompts)
    with observe(model, layers, masks, grad=grad) as seen:
        model.predict_noise(noisy, timesteps, context)
    found = []
    for scores in seen.scores.values():  # (prompts, batch, heads, pixels)
        grid = scores.unflatten(-1, _grid(noisy.shape[-2:], scores.shape[-1]))
        across, down = (grid.diff(dim=d).abs().mean((-2, -1)) for d in (-1, -2))
        rough = (across + down) / 2
        pooled = torch.stack([scores.mean(-1), scores.std(-1), rough], dim=-1)
        pooled = pooled.nan_to_num()  # a layer of one pixel has no spread and no steps
        found.append(pooled.transpose(0, 1).flatten(1))
    return torch.cat(found, dim=1)


def _grid(size: Sequence[int], pixels: int) -> tuple[int, int]:
    """Return height and width of a layer's map, whose pixels are those of the latents or fewer."""
    height, width = size
    shrunk = max(1, round((height * width / pixels) ** 0.5))
    return -(-height // shrunk), -(-width // shrunk)


@torch.no_grad()
def quality_readings(
    model: Any,
    images: Float[Tensor, "images 3 height width"],
    prompts: Prompts | Sequence[str] = WORDS,
    *,
    steps: int | Sequence[int] = STEPS,
    layers: str | Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = BATCH,
    progress: bool = True,
) -> Float[Tensor, "images features"]:
    """Return what attention to the prompts says of each image, float32 on the CPU.

    Features go by time step, layer, prompt, head, then mean, spread and roughness of the map. Cost:
    one U-Net pass for each image and time step, whatever the number of prompts.

    Args:
        model: A `StableDiffusion`.
        images: In [0, 1].
        prompts: Texts, or states from `encode_prompts` or `fit_prompts`.
        steps: As in `time_grid`.
        layers: As in `choose_layers`; None is all.
        seed: Of the noises, which all images share.
        batch_size: Images per U-Net pass.
        progress: Whether to show a progress bar.
    """
    prompts = prompts if isinstance(prompts, Tensor) else encode_prompts(model, prompts)
    grid = time_grid(steps, model.scheduler.config.num_train_timesteps)
    latents, rows = model.encode_image(images), []
    total = len(grid) * -(-len(images) // batch_size)
    with tqdm(total=total, desc="U-Net passes", disable=not progress, leave=False) as bar:
        for part in latents.split(batch_size):
            read = []
            for s, t in enumerate(grid):
                noisy = noised(model, part, seed, s, t)
                read.append(read_pass(model, noisy, t, prompts, layers).float().cpu())
                bar.update()
            rows.append(torch.cat(read, dim=1))
    return torch.cat(rows)


def noised(
    model: Any, latents: Float[Tensor, "batch channels height width"], seed: int, place: int, t: int
) -> Float[Tensor, "batch channels height width"]:
    """Return z_t of each image under the one noise of this place in the list of time steps."""
    e = shared_noise(latents.shape[1:], seed, place).to(latents)
    return model.add_noise(latents, e.expand_as(latents), t)
