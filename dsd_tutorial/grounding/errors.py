"""The noise-prediction error of isolated images under a phrase (VGDiffZero, D.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.attention import shared_rows
from dsd_tutorial.matching.batches import Batches, BatchSize
from dsd_tutorial.stable_diffusion.noising import shared_noise, time_grid


@torch.no_grad()
def isolation_errors(
    model: Any,
    images: Float[Tensor, "images 3 height width"],
    texts: Sequence[str],
    *,
    steps: int | Sequence[int] = 10,
    seed: int = 0,
    own_noise: bool = False,
    batch_size: BatchSize = "auto",
) -> Float[Tensor, "images texts steps"]:
    """Return the mean squared error of the predicted noise, of each image under each text.

    Every image meets the same noise at a time step, and every text the same noisy image. With
    `own_noise` each image draws its own, as in the released code: then two images differ by their
    noises, too, and mostly by these. Images lie in [0, 1], "" is the empty prompt, `steps` are as
    in `time_grid`, and `batch_size` counts rows of a U-Net pass.

    Raises:
        ValueError: No text, or images that the model cannot encode.
    """
    if isinstance(texts, str) or not len(texts):
        raise ValueError(f"texts={texts!r}: give a list of at least one phrase")
    grid = time_grid(steps, model.scheduler.config.num_train_timesteps)
    latents, prompts = model.encode_image(images), model.encode_text(list(texts))
    draws = range(len(images)) if own_noise else (0,)
    noise = torch.stack(
        [
            torch.cat([shared_noise(latents.shape[1:], seed, s, i) for s in range(len(grid))])
            for i in draws
        ]
    ).to(latents)  # (images or 1, steps, channels, h, w)
    shape = len(images), len(grid), len(texts)
    rows = torch.cartesian_prod(*(torch.arange(number) for number in shape)).view(-1, 3)
    errors = torch.zeros(len(rows))
    timesteps = torch.tensor(grid)

    def one(part: slice) -> Tensor:
        image, step, text = rows[part].unbind(1)
        e = noise[image if own_noise else torch.zeros_like(image), step]
        noisy = model.add_noise(latents[image.to(latents.device)], e, timesteps[step])
        with shared_rows(model.unet, image * len(grid) + step, text):
            eps = model.predict_noise(noisy, timesteps[step], prompts[text.to(prompts.device)])
        return (e - eps).square().mean((1, 2, 3)).cpu()

    for part, found in Batches(model, batch_size, latents[0, 0].numel()).run(len(rows), one):
        errors[part] = found
    return errors.view(shape).transpose(1, 2).contiguous()
