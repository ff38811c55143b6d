"""Degradations of known kind and strength, and rendered scenes that have suffered one each.

Ours: benchmarks of image quality have people's ratings; here the strength is known exactly.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from dsd_tutorial.shapes import random_scenes, render
from dsd_tutorial.shapes.scene import check_known

BLUR = 0.04  # standard deviation of the blur at strength 1, of the image's side (2.6 of 64 pixels)
GRAIN = 0.25  # standard deviation of the noise
BLOCK = 8  # pixels a side
STEP = 0.4  # of the quantiser of a block's mean frequency; it grows with the frequency
CAST = 0.5  # share of the tint

Picture = Float[np.ndarray, "3 height width"]


def _blur(image: Picture, strength: float, numbers: np.random.Generator) -> Picture:
    sigma = BLUR * strength * image.shape[-1]
    return ndimage.gaussian_filter(image, (0, sigma, sigma), mode="nearest")


def _noise(image: Picture, strength: float, numbers: np.random.Generator) -> Picture:
    return image + GRAIN * strength * numbers.standard_normal(image.shape, dtype=image.dtype)


def _blocks(image: Picture, strength: float, numbers: np.random.Generator) -> Picture:
    """Quantise the cosine transform of blocks of 8 x 8 pixels, as JPEG does, channel by channel."""
    channels, height, width = image.shape
    pad = [(0, 0), (0, -height % BLOCK), (0, -width % BLOCK)]
    whole = np.pad(image, pad, mode="edge")
    rows, columns = whole.shape[1] // BLOCK, whole.shape[2] // BLOCK
    cut = whole.reshape(channels, rows, BLOCK, columns, BLOCK)
    waves = np.asarray(scipy.fft.dctn(cut, axes=(2, 4), norm="ortho"))
    order = np.arange(BLOCK)
    step = STEP * strength * (1 + (order[:, None, None] + order) / 2)  # (rows, 1, columns)
    if strength > 0:
        waves = np.round(waves / step) * step
    back = np.asarray(scipy.fft.idctn(waves, axes=(2, 4), norm="ortho"))
    return back.reshape(whole.shape)[:, :height, :width]


def _colors(image: Picture, strength: float, numbers: np.random.Generator) -> Picture:
    """Blend with a tint of random hue: a cast that no scene has."""
    tint = np.array(colorsys.hsv_to_rgb(numbers.random(), 1.0, 1.0), dtype=image.dtype)
    share = CAST * strength
    return (1 - share) * image + share * tint[:, None, None]


MAKERS: dict[str, Callable[[Picture, float, np.random.Generator], Picture]] = {
    "blur": _blur, "noise": _noise, "blocks": _blocks, "colors": _colors
}  # fmt: skip
KINDS = tuple(MAKERS)


def degrade(
    images: Float[Tensor, "images 3 height width"],
    kinds: str | Sequence[str],
    strengths: Float[Tensor, " images"] | float,
    seed: int = 0,
) -> Float[Tensor, "images 3 height width"]:
    """Return the images, each degraded in its kind and strength, in [0, 1].

    Args:
        images: In [0, 1].
        kinds: Of `KINDS`: one for all, or one each.
        strengths: From 0 (the image itself) to 1.
        seed: Of noise and tints; an image's do not depend on the others.

    Raises:
        ValueError: An unknown kind, a strength outside [0, 1], or too few of either.
    """
    each = [kinds] * len(images) if isinstance(kinds, str) else list(kinds)
    strengths = torch.as_tensor(strengths, dtype=torch.float32).expand(len(images))
    for kind in each:
        check_known("kind", kind, KINDS)
    if len(each) != len(images):
        raise ValueError(f"{len(each)} kinds for {len(images)} images: give one for all, or each")
    if not bool(((strengths >= 0) & (strengths <= 1)).all()):
        worst = float(strengths[(strengths - 0.5).abs().argmax()])
        raise ValueError(f"strength {worst:g}: from 0, the image itself, to 1")
    made = [
        MAKERS[kind](image.numpy(), float(strength), np.random.default_rng([seed, i]))
        for i, (image, kind, strength) in enumerate(
            zip(images.detach().float().cpu(), each, strengths, strict=True)
        )
    ]
    return torch.from_numpy(np.stack(made)).to(images).clamp(0, 1)


@dataclass(frozen=True)
class Degraded:
    """Images with what was done to them.

    Attributes:
        images: In [0, 1].
        strengths: From 0 to 1.
        kinds: Of each image.
    """

    images: Float[Tensor, "images 3 height width"]
    strengths: Float[Tensor, " images"]
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.kinds)

    def select(self, kinds: Sequence[str]) -> Degraded:
        """Return the images of these kinds alone."""
        rows = [i for i, kind in enumerate(self.kinds) if kind in kinds]
        return Degraded(self.images[rows], self.strengths[rows], tuple(self.kinds[i] for i in rows))


def degraded_scenes(model: Any, n: int, seed: int = 0, split: str = "train") -> Degraded:
    """Return n rendered scenes of a split, each degraded in one kind, the kinds in turn.

    Strengths are uniform in [0, 1]. No scene of one split is in another.
    """
    images, _ = render(random_scenes(n, seed, split=split), model.resolution)
    numbers = torch.Generator().manual_seed(seed)
    strengths = torch.rand(n, generator=numbers)
    kinds = tuple(KINDS[i % len(KINDS)] for i in range(n))
    return Degraded(degrade(images, kinds, strengths, seed), strengths, kinds)
