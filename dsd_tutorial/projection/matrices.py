"""Closed-form inverses of a text projection, as functions of matrices alone; all in float64.

A linear layer stores its weight (out, in): W_t is (d_proj, d) and sends a text state h (d) to W_t h
(d_proj). Every function here returns what goes the other way, as a matrix (d, d_proj) that
multiplies *columns*: h = P v, or for a batch of rows `h = v @ P.T`. A transposed P runs without an
error and gives noise; `check_orientation` finds out. Symbols and the plain formula follow Ding et
al., arXiv 2305.12716 (METHODS.md B.2); the alternatives are ours (B.5). Write W = U S V^T.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class OrientationError(ValueError):
    """An inverse multiplies from the wrong side: it is transposed."""


class Affine(NamedTuple):
    """The map x -> matrix @ x + offset."""

    matrix: Tensor  # (d_out, d_in)
    offset: Tensor  # (d_out,)

    def __call__(self, rows: Tensor) -> Tensor:
        """Return (batch, d_out) from rows (batch, d_in)."""
        return rows @ self.matrix.T + self.offset


def as_matrix(values: Tensor, name: str = "weight") -> Tensor:
    """Return `values` as a float64 matrix on the CPU (some devices have no float64).

    Raises ValueError for another number of axes, or for numbers that are not finite.
    """
    matrix = torch.as_tensor(values).detach().to("cpu", torch.float64)
    if matrix.ndim != 2 or not matrix.numel():
        raise ValueError(f"{name} has shape {tuple(matrix.shape)}; need a matrix (rows, columns)")
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError(f"{name} holds infinite numbers or NaN: load the model again")
    return matrix


def truncated_pseudo_inverse(weight: Tensor, threshold: float | None = None) -> Tensor:
    """Return V S^+ U^T, (d, d_proj), with 1/s replaced by 0 where s < `threshold`.

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


def ridge_inverse(weight: Tensor, lam: float) -> Tensor:
    """Return (W^T W + lam I)^-1 W^T, (d, d_proj): the soft filter s / (s^2 + lam).

    It minimises |W h - v|^2 + lam |h|^2; lam -> 0 is the pseudo-inverse. At lam = threshold^2 a
    direction at the threshold counts half. Raises ValueError for lam < 0.
    """
    u, s, vh = torch.linalg.svd(as_matrix(weight), full_matrices=False)
    if not lam >= 0:
        raise ValueError(f"lam {lam}: need 0 or more (0 is the pseudo-inverse)")
    if lam == 0:
        return truncated_pseudo_inverse(weight)
    return (vh.T * (s / (s**2 + lam))) @ u.T


def gaussian_inverse(weight: Tensor, mean: Tensor, covariance: Tensor, lam: float) -> Affine:
    """Return v -> m + K W^T (W K W^T + lam I)^-1 (v - W m), an affine map from (d_proj) to (d).

    The mean of h given v = W h + noise, where h ~ N(m, K) as real end-token states are and the
    noise has variance `lam` in each direction. With m = 0 and K = I it is `ridge_inverse`.
    Raises ValueError for lam <= 0, or for a mean or covariance of another size.
    """
    w, k = as_matrix(weight), as_matrix(covariance, "covariance")
    m = torch.as_tensor(mean).detach().to("cpu", torch.float64)
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


def procrustes(source: Tensor, target: Tensor) -> Tensor:
    """Return the orthogonal matrix R (d, d) that minimises sum |R x_i - y_i|^2 over pairs.

    source, target (pairs, d), rows x_i and y_i. R = U V^T where target^T source = U S V^T
    (Schönemann 1966). Raises ValueError for unequal shapes.
    """
    x, y = as_matrix(source, "source"), as_matrix(target, "target")
    if x.shape != y.shape:
        raise ValueError(f"source {tuple(x.shape)} and target {tuple(y.shape)} must pair up")
    u, _, vh = torch.linalg.svd(y.T @ x)
    return u @ vh


def ridge_map(source: Tensor, target: Tensor, lam: float) -> Affine:
    """Return the affine map x -> B x + b that minimises mean |B x + b - y|^2 + lam |B|^2 on pairs.

    source (pairs, d_in), target (pairs, d_out). The offset is not penalised. Raises ValueError for
    unequal numbers of rows, or lam < 0.
    """
    x, y = as_matrix(source, "source"), as_matrix(target, "target")
    if len(x) != len(y):
        raise ValueError(f"{len(x)} sources and {len(y)} targets do not pair up")
    if not lam >= 0:
        raise ValueError(f"lam {lam}: need 0 or more")
    mean_x, mean_y = x.mean(0), y.mean(0)
    dx, dy = x - mean_x, y - mean_y
    square = dx.T @ dx / len(x) + lam * torch.eye(x.shape[1], dtype=torch.float64)
    matrix = torch.linalg.lstsq(square, dx.T @ dy / len(x), driver="gelsd").solution.T
    return Affine(matrix, mean_y - matrix @ mean_x)


def round_trip_error(weight: Tensor, inverse: Tensor) -> float:
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


def check_orientation(weight: Tensor, inverse: Tensor) -> float:
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
