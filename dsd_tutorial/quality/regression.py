"""From features to a strength, and how well the order is found; the plain features, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from dsd_tutorial.matching import Interval
from dsd_tutorial.shapes.scene import ALL_COLORS, BACKGROUNDS

PENALTIES = np.logspace(-1, 5, 13)
Numbers = Float[np.ndarray, "*_ images"] | Float[Tensor, "*_ images"]


def regression(
    penalties: Sequence[float] | np.ndarray = PENALTIES, *, unsigned: bool = False
) -> Any:
    """Return an unfitted ridge regression of scikit-learn on standardised features.

    Args:
        penalties: One of them is chosen by leaving one fitted image out at a time.
        unsigned: Whether each feature's distance from its mean enters beside it. Blur lowers a
            gradient and noise raises it, so that signed features that rank the one rank the other
            the wrong way round.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    beside = [FunctionTransformer(_with_distance), StandardScaler()] if unsigned else []
    return make_pipeline(StandardScaler(), *beside, RidgeCV(alphas=penalties))


def _with_distance(
    x: Float[np.ndarray, "images features"],
) -> Float[np.ndarray, "images features_twice"]:
    return np.concatenate([x, np.abs(x)], axis=1)


def rank_correlation(
    predicted: Numbers,
    strengths: Numbers,
    kinds: Sequence[str],
    against: Numbers | None = None,
    *,
    seed: int = 0,
    draws: int = 1000,
) -> Interval:
    """Return Spearman's rank correlation within each kind, averaged over kinds.

    The 95 % interval comes from images resampled within each kind. Within a kind, since how strong
    a blur is as bad as how much noise is a matter of definition.

    Args:
        predicted: One number per image, or a row of them per seed: correlations are averaged over
            seeds, and images are resampled for all seeds at once.
        strengths: The true ones.
        kinds: Of each image.
        against: What another method predicted of the same images: the difference of both is
            returned, and images are resampled as pairs.
        seed: Of the bootstrap.
        draws: Of the bootstrap.

    Raises:
        ValueError: Unequal lengths, or fewer than three images of a kind.
    """
    given = [strengths, predicted] + ([] if against is None else [against])
    tables = [np.atleast_2d(np.asarray(x, dtype=float)) for x in given]
    if wrong := [table.shape for table in tables if table.shape[1:] != (len(kinds),)]:
        raise ValueError(f"numbers of shape {wrong[0]} and {len(kinds)} kinds: give one each")
    groups = [np.flatnonzero(np.asarray(kinds) == kind) for kind in dict.fromkeys(kinds)]
    if min(map(len, groups), default=0) < 3:
        raise ValueError("a rank correlation needs three images of each kind at least")
    numbers = np.random.default_rng(seed)
    value = np.mean([_correlation(tables, rows[None]) for rows in groups])
    found = np.mean(
        [
            _correlation(tables, rows[numbers.integers(len(rows), size=(draws, len(rows)))])
            for rows in groups
        ],
        axis=0,
    )
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(float(value), float(low), float(high), len(kinds))


def _correlation(
    tables: Sequence[np.ndarray], rows: Int[np.ndarray, "draws images"]
) -> Float[np.ndarray, " draws"]:
    """Return Spearman's correlation of each draw of images, averaged over seeds.

    Less that of the second predictions, where there are some. A constant has none: 0.
    """
    unit = []
    for table in tables:
        ranks = stats.rankdata(table[:, rows], axis=-1)  # (seeds, draws, images)
        ranks -= ranks.mean(-1, keepdims=True)
        unit.append(ranks / np.maximum(np.linalg.norm(ranks, axis=-1, keepdims=True), 1e-12))
    true, *others = unit
    own = [(x * true).sum(-1).mean(0) for x in others]
    return own[0] - sum(own[1:])


def pixel_statistics(
    images: Float[Tensor, "images 3 height width"],
) -> Float[Tensor, "images features"]:
    """Return plain statistics of pixels, the baseline without any model.

    Energy, size and kurtosis of the gradient; of the Laplacian energy and median size (a noise
    estimate); the gradient across the borders of blocks of eight pixels relative to elsewhere; the
    distance to the nearest colour of the world's palette, its mean, median and 90 % quantile; mean
    saturation; mean and spread of each channel.
    """
    images = images.float().cpu()
    dx, dy = images.diff(dim=-1), images.diff(dim=-2)
    flat = torch.cat([dx.flatten(1), dy.flatten(1)], dim=1)
    energy = flat.square().mean(1)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    second = F.conv2d(images.flatten(0, 1)[:, None], kernel).view(len(images), -1)
    border = torch.arange(dx.shape[-1]) % 8 == 7
    across = dx.abs()[..., border].flatten(1).mean(1) + dy.abs()[..., border, :].flatten(1).mean(1)
    inside = dx.abs()[..., ~border].flatten(1).mean(1) + (
        dy.abs()[..., ~border, :].flatten(1).mean(1)
    )
    palette = torch.tensor([*ALL_COLORS.values(), *BACKGROUNDS.values()])  # (colors, 3)
    pixels = images.flatten(2).transpose(1, 2)  # (images, pixels, 3)
    off = torch.cdist(pixels, palette.expand(len(images), -1, -1)).amin(-1)
    columns = [
        (energy + 1e-6).log(), flat.abs().mean(1),
        flat.pow(4).mean(1) / (energy.square() + 1e-9),
        (second.square().mean(1) + 1e-6).log(), second.abs().median(1).values,
        across / (inside + 1e-3), off.mean(1), off.median(1).values, off.quantile(0.9, dim=1),
        (pixels.amax(-1) - pixels.amin(-1)).mean(1), *pixels.mean(1).T, *pixels.std(1).T,
    ]  # fmt: skip
    return torch.stack(columns, dim=1)
