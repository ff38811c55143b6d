"""Recolours and patterns pictures, for the autoencoder alone.

Stable Diffusion's autoencoder was trained on pictures of everything and can code what its U-Net
has never seen. Ours gets the same breadth from arbitrary colours and from dots on the objects,
long or round; no held-out shape is ever among its pictures, nor stripes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

RECOLOR_SHARE = 0.35
PATTERN_SHARE = 0.25


def _uniform(shape: tuple[int, ...], low: float, high: float, generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def recolor(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (n, 3, h, w) whose channels are permuted, bent by a gamma, some turned over."""
    n, device = len(images), images.device
    order = torch.rand(n, 3, generator=generator).argsort(1).to(device)
    mixed = images.gather(1, order[:, :, None, None].expand_as(images))
    gamma = _uniform((n, 3, 1, 1), -0.7, 0.7, generator).exp().to(device)
    turned = (torch.rand(n, 3, 1, 1, generator=generator) < 0.3).to(device)
    bent = mixed.clamp(1e-4, 1).pow(gamma)
    return torch.where(turned, 1 - bent, bent)


def pattern(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (n, 3, h, w) whose objects carry darker dots: any size, stretch and direction."""
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
