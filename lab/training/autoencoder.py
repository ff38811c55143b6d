"""Trains the autoencoder: 64 x 64 pictures to 16 x 16 latents of four channels and back.

Loss: L1 + L2 on pixels and a small Kullback-Leibler term on the latents. The scaling factor is
measured afterwards, as one over the standard deviation of the latents, so that they have unit
variance as the noise schedule expects (as in latent diffusion).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.training.artifacts import ENCODER, load_part, write_autoencoder
from lab.training.augment import widen
from lab.training.data import make_pool
from lab.training.loop import Loop, Options, make_accelerator

KL_WEIGHT = 1e-3


def build_autoencoder():
    """An untrained AutoencoderKL with two halvings: a pixel block of 4 x 4 per latent."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.0,
    )


def train_autoencoder(options: Options) -> dict[str, float]:
    """Trains and writes <output>/vae; returns the last losses and the latents' scale.

    `options.init` is a model folder whose decoder alone is refined, so that its latents, and a
    U-Net trained on them, stay as they are.
    """
    accelerator = make_accelerator(options.device)
    torch.manual_seed(options.seed)
    refine = options.init is not None
    vae = load_part(options.init, "vae") if refine else build_autoencoder()
    vae.train().requires_grad_(True).to(accelerator.device)
    if refine:
        for name, parameter in vae.named_parameters():
            parameter.requires_grad_(not name.startswith(ENCODER))
    pool = make_pool(options.pool, options.seed, device=accelerator.device)
    loop = Loop("decoder" if refine else "autoencoder", vae, options, accelerator)

    def step_loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        index = torch.randint(len(pool), (options.batch,), generator=loop.generator)
        images = pool.batch_images(index.to(pool.images.device))
        images = widen(images, loop.generator) * 2 - 1
        posterior = vae.encode(images).latent_dist
        latents = posterior.mode() if refine else posterior.sample()
        decoded = vae.decode(latents).sample.float()
        l1, l2 = F.l1_loss(decoded, images), F.mse_loss(decoded, images)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return l1 + l2 + KL_WEIGHT * kl, {"mse": l2.detach() / 4, "kl": kl.detach()}

    trained = loop.run(step_loss)
    scale = vae.config.scaling_factor
    if not refine:
        scale = latent_scale(trained, pool.batch_images(torch.arange(min(2048, len(pool)))))
    trained.register_to_config(scaling_factor=scale)
    if accelerator.is_main_process:
        write_autoencoder(trained, options.output)
    return {"scaling_factor": scale, **(loop.history[-1] if loop.history else {})}


@torch.no_grad()
def latent_scale(vae, images: Tensor) -> float:
    """1 / standard deviation of the mean latents of `images` (n, 3, size, size) in [0, 1]."""
    images = images.to(next(vae.parameters()).device)
    means = [vae.encode(part * 2 - 1).latent_dist.mean for part in images.split(128)]
    return round(1.0 / torch.cat(means).float().std().item(), 5)
