"""Closed-form inverses of a text projection, as functions of matrices alone; all in float64.

A linear layer stores its weight (out, in): W_t is (projected, states) and sends a text state h to
W_t h. What goes the other way is a matrix (states, projected) that multiplies *columns*: h = P v,
or for a batch of rows `h = v @ P.T`. A transposed P runs without an error and gives noise;
`check_orientation` finds out. Symbols and the plain formula follow Ding et al., arXiv 2305.12716
(METHODS.md B.2); the alternatives are ours (B.5). Write W = U S V^T.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

VIT_L_14 = Path(__file__).resolve().parents[1] / "data" / "vit_l_14_singular_values.csv"
Weight = Float[Tensor, "projected states"]  # of a linear layer: (out, in)


class OrientationError(ValueError):
    """An inverse multiplies from the wrong side: it is transposed."""


class Affine(NamedTuple):
    """The map x -> matrix @ x + offset."""

    matrix: Float[Tensor, "outputs inputs"]
    offset: Float[Tensor, " outputs"]


def as_matrix(
    values: Float[Tensor, "*axes"], name: str = "weight"
) -> Float[Tensor, "rows columns"]:
    """Return `values` as a float64 matrix on the CPU (some devices have no float64).

    Raises ValueError for another number of axes, or for numbers that are not finite.
    """
    matrix = values.detach().to("cpu", torch.float64)
    if matrix.ndim != 2 or not matrix.numel():
        raise ValueError(f"{name} has shape {tuple(matrix.shape)}; need a matrix (rows, columns)")
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError(f"{name} holds infinite numbers or NaN: load the model again")
    return matrix


# -- singular values, and where to cut them -----------------------------------------------------


def singular_values(weight: Weight) -> Float[Tensor, " values"]:
    """Return the singular values of a weight, float64, largest first."""
    return torch.linalg.svdvals(as_matrix(weight))


def automatic_threshold(values: Float[Tensor, " values"]) -> float:
    """Return the threshold below which directions are cut: median(s) / sqrt(2).

    The half-power point *(ours)*: a direction is cut where inverting it would amplify power
    (length squared) more than twice as much as inverting the typical one. The rule scales with the
    weight, has nothing to tune, and the median does not feel how deep the useless tail goes. For
    ViT-L/14 it gives 0.30. That is no confirmation of the paper's 0.3: the rule was picked, among
    several that could be argued for, because it meets it.

    Raises ValueError for no values, for negative ones, or where half of them are zero.
    """
    values = values.double().flatten()
    if not len(values) or bool((values < 0).any()):
        raise ValueError("need singular values: one or more numbers, none below zero")
    middle = float(values.quantile(0.5))
    if middle <= 1e-12 * float(values.max()):
        raise ValueError(
            "half of the singular values are zero, so their median says nothing: give a threshold"
        )
    return middle / 2**0.5


def vit_l_14_singular_values() -> Float[Tensor, " values"]:
    """Return the 768 singular values of the real ViT-L/14 text projection, float64, descending."""
    with open(VIT_L_14, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return torch.tensor([float(row["singular_value"]) for row in rows], dtype=torch.float64)


# -- inverses -----------------------------------------------------------------------------------


def truncated_pseudo_inverse(
    weight: Weight, threshold: float | None = None
) -> Float[Tensor, "states projected"]:
    """Return V S^+ U^T, with 1/s replaced by 0 where s < `threshold`.

    A hard filter: B.2's inverse, threshold 0.3 for ViT-L/14. None cuts only what is zero in float64
    (numpy's rule for the rank), so that W W^+ W = W. Raises ValueError for a threshold below zero,
    or above every singular value.
    """
    u, s, vh = torch.linalg.svd(as_matrix(weight), full_matrices=False)
    zero = float(s[0]) * max(weight.shape) * torch.finfo(torch.float64).eps
    if threshold is not None and not 0 <= threshold <= float(s[0]):
        raise ValueError(
            f"threshold {threshold}: need 0 to {float(s[0]):.4g}, the largest singular value; a "
            "higher one would cut everything away"
        )
    keep = (s > zero) & (s >= (threshold or 0.0))
    return (vh[keep].T / s[keep]) @ u[:, keep].T


def ridge_inverse(weight: Weight, lam: float) -> Float[Tensor, "states projected"]:
    """Return (W^T W + lam I)^-1 W^T: the soft filter s / (s^2 + lam).

    It minimises |W h - v|^2 + lam |h|^2; lam -> 0 is the pseudo-inverse. At lam = threshold^2 a
    direction at the threshold counts half. Raises ValueError for lam < 0.
    """
    if not lam >= 0:
        raise ValueError(f"lam {lam}: need 0 or more (0 is the pseudo-inverse)")
    if lam == 0:
        return truncated_pseudo_inverse(weight)
    u, s, vh = torch.linalg.svd(as_matrix(weight), full_matrices=False)
    return (vh.T * (s / (s**2 + lam))) @ u.T


def gaussian_inverse(
    weight: Weight,
    mean: Float[Tensor, " states"],
    covariance: Float[Tensor, "states states"],
    lam: float,
) -> Affine:
    """Return v -> m + K W^T (W K W^T + lam I)^-1 (v - W m).

    The mean of h given v = W h + noise, where h ~ N(m, K) as real EOS states are and the noise has
    variance `lam` in each direction. With m = 0 and K = I it is `ridge_inverse`. Raises ValueError
    for lam <= 0, or for a mean or covariance of another size.
    """
    w, k = as_matrix(weight), as_matrix(covariance, "covariance")
    m = mean.detach().to("cpu", torch.float64)
    width = w.shape[1]
    if m.shape != (width,) or k.shape != (width, width):
        raise ValueError(
            f"mean {tuple(m.shape)} and covariance {tuple(k.shape)} must be ({width},) and "
            f"({width}, {width}): those of text states before the projection"
        )
    if not lam > 0:
        raise ValueError(f"lam {lam}: the variance of the noise must be above 0")
    inner = w @ k @ w.T + lam * torch.eye(len(w), dtype=torch.float64)
    gain = torch.linalg.solve(inner, w @ k).T  # K and inner are symmetric
    return Affine(gain, m - gain @ (w @ m))


# -- which way round ----------------------------------------------------------------------------


def round_trip_error(weight: Weight, inverse: Float[Tensor, "rows columns"]) -> float:
    """Return |W P W - a W| / |a W| (Frobenius) at the best scale a: 0 for a pseudo-inverse.

    A threshold or a ridge makes it greater than 0, yet below 1; a random P comes near 1. Raises
    `OrientationError` where the shapes cannot be multiplied.
    """
    w, p = as_matrix(weight), as_matrix(inverse, "inverse")
    if p.shape != (w.shape[1], w.shape[0]):
        raise OrientationError(
            f"an inverse of a weight {tuple(w.shape)} has shape ({w.shape[1]}, {w.shape[0]}), not "
            f"{tuple(p.shape)}: " + ("transpose it" if p.shape == w.shape else "it is another's")
        )
    again = w @ p @ w
    length = float(again.norm() * w.norm())
    cosine = float((again * w).sum()) / length if length else 0.0
    return max(0.0, 1 - min(1.0, max(0.0, cosine)) ** 2) ** 0.5


def check_orientation(weight: Weight, inverse: Float[Tensor, "rows columns"]) -> float:
    """Return `round_trip_error` after making sure that `inverse` is not transposed.

    For a square W both P and P^T have the right shape, so it is the round trip that tells.

    Raises:
        OrientationError: wrong shape, or the transpose inverts better.
    """
    error = round_trip_error(weight, inverse)
    if weight.shape[0] != weight.shape[1]:
        return error
    other = round_trip_error(weight, inverse.T)
    if other < error - 1e-9:
        raise OrientationError(
            f"this inverse is transposed: W P W misses W by {error:.0%}, W P^T W by {other:.0%}. "
            "For rows v use `v @ P.T` with P (d, d_proj); a layer stores its weight (out, in)."
        )
    return error
