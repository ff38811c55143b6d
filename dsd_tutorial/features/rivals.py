"""What a sparse autoencoder has to beat: the features' own axes, PCA, a random rotation.

Each is a basis in which features are written down. An axis has two directions, and each counts as a
unit: what is active is what lies among the k largest, as in the autoencoder. So the sparsity is the
same, and nothing but the choice of directions differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.features.autoencoder import largest


@dataclass(frozen=True)
class Basis:
    """Axes in the space of features, around a center."""

    center: Float[Tensor, " width"]
    axes: Float[Tensor, "width axes"]

    def drive(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows units"]:
        """Return how far each row lies along each direction: all axes, then all reversed."""
        along = (x - self.center) @ self.axes
        return torch.cat([along, -along], dim=-1)

    def encode(self, x: Float[Tensor, "rows width"], k: int) -> Float[Tensor, "rows units"]:
        """Return the k largest of `drive`, zero elsewhere."""
        return largest(self.drive(x), k)


def neurons(x: Float[Tensor, "rows width"]) -> Basis:
    """Return the features' own axes, each in units of its spread."""
    return Basis(x.mean(0), torch.diag(1 / x.std(0).clamp(min=1e-6)))


def principal_axes(x: Float[Tensor, "rows width"]) -> Basis:
    """Return the principal axes of the features, each in units of its spread."""
    center = x.mean(0)
    _, spread, vh = torch.linalg.svd(x - center, full_matrices=False)
    spread = spread / len(x) ** 0.5
    kept = spread > 1e-6 * spread[0]
    return Basis(center, (vh[kept] / spread[kept, None]).T)


def random_axes(x: Float[Tensor, "rows width"], seed: int = 0) -> Basis:
    """Return the neurons' axes in units of their spread, rotated at random."""
    own = neurons(x)
    numbers = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(x.shape[1], x.shape[1], generator=numbers))
    return Basis(own.center, own.axes @ rotation)


BASES: dict[str, Callable[..., Basis]] = {
    "neurons": neurons, "pca": principal_axes, "rotation": random_axes,
}  # fmt: skip
