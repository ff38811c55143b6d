"""The exercises on closed-form projection (notebook 03): the inverse and its length."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dsd_tutorial.course.checks.exercise import Exercise, normal
from dsd_tutorial.projection.matrices import truncated_pseudo_inverse

Filter = Callable[[Tensor], Tensor]

# -- cut_inverse(weight, threshold): (d_proj, d), float -> (d, d_proj) ----------------------------


def _filtered(weight: Tensor, keep: Filter, filtered: Filter) -> Tensor:
    """V f(s) U^T over the directions that `keep` chooses."""
    u, s, vh = torch.linalg.svd(weight.double(), full_matrices=False)
    kept = keep(s)
    return (vh[kept].T * filtered(s[kept])) @ u[:, kept].T


def _weight(rows: int, columns: int, seed: int) -> Tensor:
    """A weight whose singular values fall from 2 to 0.01."""
    u, _ = torch.linalg.qr(normal(rows, rows, seed=seed).double())
    v, _ = torch.linalg.qr(normal(columns, columns, seed=seed + 1).double())
    n = min(rows, columns)
    s = torch.logspace(math.log10(2.0), -2, n, dtype=torch.float64)
    return (u[:, :n] * s) @ v[:, :n].T


cut_inverse = Exercise(
    name="cut_inverse",
    hint="Try a diagonal weight by hand: what becomes of the entries 2, 0.5 and 0.1 at a "
    "threshold of 0.3?",
    solution=truncated_pseudo_inverse,
    cases=[
        (torch.diag(torch.tensor([2.0, 0.5, 0.1])), 0.3),
        (_weight(6, 6, seed=0), 0.3),
        (_weight(5, 7, seed=2), 0.05),
    ],
    mistakes={
        "no threshold": (
            "Directions with small s are multiplied by 1 / s: mostly noise comes back, amplified.",
            "Leave out the directions with s < threshold: keep = s >= threshold.",
            lambda w, t: torch.linalg.pinv(w.double()),
        ),
        "transposed inverse": (
            "A layer stores (out, in), so its inverse is (in, out); a square weight conceals that.",
            "Write (vh[keep].T / s[keep]) @ u[:, keep].T.",
            lambda w, t: truncated_pseudo_inverse(w, t).T,
            lambda w, t: torch.linalg.pinv(w.double()).T,
        ),
        "multiplied by s instead of 1 / s": (
            "That is the weight's transpose with a few directions cut: it does not undo s.",
            "Divide by the singular values that are kept.",
            lambda w, t: _filtered(w, lambda s: s >= t, lambda s: s),
        ),
        "kept the small directions": (
            "The small singular values are the ones to lose.",
            "Turn the comparison round: keep = s >= threshold.",
            lambda w, t: _filtered(w, lambda s: s < t, lambda s: 1 / s),
            lambda w, t: _filtered(w, lambda s: s <= t, lambda s: 1 / s),
        ),
        "threshold relative to the largest": (
            "The threshold is absolute here; a relative one (as `rcond` of pinv) is another cut.",
            "Compare s itself with the threshold, not s / s[0].",
            lambda w, t: _filtered(w, lambda s: s >= t * s[0], lambda s: 1 / s),
            lambda w, t: torch.linalg.pinv(w.double(), rtol=t),
        ),
        "raised small values to the threshold": (
            "1 / threshold instead of 1 / s still lets through what is mostly noise.",
            "A direction below the threshold counts 0, not 1 / threshold.",
            lambda w, t: _filtered(w, lambda s: s > 0, lambda s: 1 / s.clamp(min=t)),
        ),
    },
)


# -- to_states(embeddings, inverse, length): (n, d_proj), (d, d_proj), float -> (n, d) ------------


_INVERSE = normal(4, 4, seed=3)

to_states = Exercise(
    name="to_states",
    hint="How long must every row be, and after which operation can you still promise that?",
    solution=lambda x, inverse, length: length * F.normalize(x @ inverse.T, dim=-1),
    cases=[
        (torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 2.0]]), 10.0),
        (normal(3, 4, scale=5.0), _INVERSE, 11.0),
        (normal(6, 4, seed=1), _INVERSE.T.contiguous(), 27.5),
        (normal(1, 4, seed=2), _INVERSE, 11.0),
    ],
    mistakes={
        "normalised, then inverted": (
            "The inverse changes lengths, and each row by another factor.",
            "Normalise the result of the product, then multiply by the length.",
            lambda x, p, c: c * F.normalize(x, dim=-1) @ p.T,
            lambda x, p, c: F.normalize(c * x, dim=-1) @ p.T,
        ),
        "unit length": (
            "Text states are about sqrt(d) long; the U-Net has never read one of length 1.",
            "Multiply by the calibrated length at the end.",
            lambda x, p, c: F.normalize(x @ p.T, dim=-1),
            lambda x, p, c: F.normalize(c * (x @ p.T), dim=-1),
        ),
        "transposed inverse": (
            "For rows v the product is v @ P.T; where P is square, v @ P runs too and gives noise.",
            "Write embeddings @ inverse.T.",
            lambda x, p, c: c * F.normalize(x @ p, dim=-1),
            lambda x, p, c: c * F.normalize(x, dim=-1) @ p,
            lambda x, p, c: F.normalize(x @ p, dim=-1),
        ),
        "no length at all": (
            "The product's length says how unusual the embedding is; the U-Net expects one length.",
            "Bring every row to the calibrated length.",
            lambda x, p, c: x @ p.T,
            lambda x, p, c: c * (x @ p.T),
        ),
        "one length for the whole batch": (
            "Normalised as one large vector, each row gets only its share of the length.",
            "Normalise along the last dimension: dim=-1.",
            lambda x, p, c: c * (x @ p.T) / (x @ p.T).norm(),
            lambda x, p, c: c * F.normalize(x @ p.T, dim=0),
            lambda x, p, c: c * (x @ p.T) / (x @ p.T).norm(dim=-1).mean(),
        ),
    },
)
