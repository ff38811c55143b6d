"""Trains the autoencoder: 64 x 64 images to 16 x 16 latents of four channels and back.

Loss: L1 + L2 on pixels and a small Kullback-Leibler term on the latents. The scaling factor is
measured afterwards, as one over the standard deviation of the latents, so that they have unit
variance as the noise schedule expects (as in latent diffusion).

Stable Diffusion's autoencoder was trained on images of everything and can code what its U-Net has
never seen. Ours gets the same breadth from arbitrary colours and from dots on the objects, long or
round (`widen`); no held-out shape is ever among its images, nor stripes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.training.artifacts import ENCODER, load_part, write_autoencoder
from lab.training.data import make_pool
from lab.training.loop import Loop, Options, make_accelerator

KL_WEIGHT = 1e-3
RECOLOR_SHARE = 0.35
PATTERN_SHARE = 0.25


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


def _uniform(shape: tuple[int, ...], low: float, high: float, generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def recolor(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (n, 3, h, w) whose channels are permuted, bent by a gamma, some turned over."""
    n, device = len(images), images.device
    order = torch.rand(n, 3, generator=generator).argsort(1).to(device)
    mixed = images.gather(1, order[:, :, None, None].expand_as(images))
    gamma = _uniform((n, 3, 1, 1), -0.7, 0.7, generator).exp().to(device)
    turned = (torch.rand(n, 3, 1, 1, generator=generator) < 0.3).to(device)
    bent = mixed.clamp(1e-4, 1).pow(gamma)
    return torch.where(turned, 1 - bent, bent)


def pattern(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (n, 3, h, w) whose objects carry darker dots: any size, stretch and direction."""
    n, _, height, width = images.shape
    device = images.device

    def draw(low: float, high: float) -> Tensor:
        return _uniform((n, 1, 1), low, high, generator).to(device)

    angle, depth = draw(0, math.pi), draw(0.3, 0.8)
    x = torch.arange(width, device=device).view(1, 1, -1)
    y = torch.arange(height, device=device).view(1, -1, 1)
    along = x * angle.cos() + y * angle.sin()
    across = y * angle.cos() - x * angle.sin()
    waves = torch.sin(2 * math.pi * along / draw(5, 14) + draw(0, 2 * math.pi))
    waves = waves * torch.sin(2 * math.pi * across / draw(5, 40) + draw(0, 2 * math.pi))
    dots = (0.5 + 2.5 * waves).clamp(0, 1)[:, None]  # (n, 1, h, w)
    ground = images[:, :, :1, :1]
    inside = ((images - ground).abs().sum(1, keepdim=True) * 2).clamp(0, 1)
    return images * (1 - depth[:, None] * dots * inside)


def widen(images: Tensor, generator: torch.Generator) -> Tensor:
    """`images` (n, 3, h, w) in [0, 1], a share of them patterned, a share of them recoloured."""
    n, device = len(images), images.device
    patterned = (torch.rand(n, 1, 1, 1, generator=generator) < PATTERN_SHARE).to(device)
    images = torch.where(patterned, pattern(images, generator), images)
    recolored = (torch.rand(n, 1, 1, 1, generator=generator) < RECOLOR_SHARE).to(device)
    return torch.where(recolored, recolor(images, generator), images)
