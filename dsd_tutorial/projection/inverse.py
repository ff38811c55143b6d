"""An inverse of a text projection as a small frozen object: image embedding -> text state.

All methods are one affine map of CLIP's answer, then the calibrated length (METHODS.md B.2):

    h = c u / |u|,    u = matrix @ x + offset,    x = f_i, or W_i f_i at a fixed length

The length is set *after* the inverse. Ding et al., arXiv 2305.12716, normalise there too;
normalise-then-invert is a mistake that circulates (B.8).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dsd_tutorial.projection.matrices import check_orientation
from dsd_tutorial.stable_diffusion import ClipImage

# methods whose matrix approximates W_t^+, up to a scale
INVERTS = ("truncated", "ridge", "gaussian", "mean_shift", "centered", "refined", "own")


@dataclass(frozen=True, eq=False)
class Inverse:
    """Text states from image embeddings; made by `fit_inverse`, read and written by `files`.

    `reads` says what it takes: "embedding" is W_i f_i, (batch, d_proj), "pooled" is f_i,
    (batch, d_vision). `input_length` is the length that x is brought to first: |v| = k |W_i f_i|
    for the embedding (B.2), 1 where unit lengths are compared, None where x stays as it is.
    `copies` is how many positions of a prompt the state fills unless told otherwise.

    Raises `OrientationError` when built with a transposed matrix, ValueError for other misfits.
    """

    method: str
    matrix: Tensor  # (d, d_in) float64, CPU
    length: float  # c
    offset: Tensor | None = None  # (d,) float64
    reads: str = "embedding"
    input_length: float | None = None
    copies: int = 1
    weight: Tensor | None = None  # W_t (d_proj, d) float64, for round trips and refinement
    steps: int = 0  # of gradient refinement
    rate: float = 1.0
    settings: dict[str, Any] = field(default_factory=dict)
    clip: str = ""  # `clip_digest` of the CLIP it was made for

    def __post_init__(self) -> None:
        if not 0 < self.length < float("inf"):
            raise ValueError(
                f"length {self.length}: need a number above 0; calibrate(model).length"
            )
        if self.reads not in ("embedding", "pooled"):
            raise ValueError(
                f"reads {self.reads!r}: choose 'embedding' (W_i f_i) or 'pooled' (f_i)"
            )
        if self.steps < 0 or self.copies < 1:
            raise ValueError(f"steps {self.steps}, copies {self.copies}: need 0 and 1 or more")
        if self.weight is not None and self.method in INVERTS:
            check_orientation(self.weight, self.matrix)

    def __call__(self, images: Tensor | ClipImage) -> Tensor:
        """Return text states h_img, (batch, d), float32, each of length `length`.

        `images` is what `model.encode_clip_image` returned, or the one of its two parts that
        `reads` names, *not* normalised by you. Computed in float64 on the CPU; differentiable.
        Raises ValueError for another shape.
        """
        rows = getattr(images, self.reads) if isinstance(images, ClipImage) else images
        if rows.ndim != 2 or rows.shape[1] != self.matrix.shape[1]:
            symbol = {"embedding": "W_i f_i", "pooled": "f_i"}[self.reads]
            raise ValueError(
                f"this inverse ({self.method}) reads {self.reads} ({symbol}), of shape (batch, "
                f"{self.matrix.shape[1]}), not {tuple(rows.shape)}; encode_clip_image returns both"
            )
        x = rows.to("cpu", torch.float64)
        if self.input_length is not None:
            x = self.input_length * F.normalize(x, dim=-1)
        u = x @ self.matrix.T
        if self.offset is not None:
            u = u + self.offset
        if self.steps:
            u = refine(u, x, self.weight, self.steps, self.rate)
        return (self.length * F.normalize(u, dim=-1)).to(rows.device, torch.float32)

    def __repr__(self) -> str:
        chosen = ", ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in self.settings.items()
        )
        d, d_in = self.matrix.shape
        return (
            f"Inverse({self.method}: {self.reads} {d_in} -> text state {d}, length "
            f"{self.length:.4g}, {self.copies} copies{', ' + chosen if chosen else ''})"
        )


def refine(
    states: Tensor, targets: Tensor, weight: Tensor, steps: int, rate: float = 1.0
) -> Tensor:
    """Return states (batch, d) after gradient steps on 1 - cos(W_t h, v), at their own lengths.

    states (batch, d), targets v (batch, d_proj), weight (d_proj, d). A step that does not lower a
    row's objective is not taken, and the row's rate halved; so no row ends above its start, and 0
    steps are the start. `rate` is in units of directions: 1 moves a unit vector by its gradient.
    """
    length = states.norm(dim=-1, keepdim=True)
    h, v = F.normalize(states, dim=-1), F.normalize(targets, dim=-1)
    pace = torch.full_like(length, rate)
    if steps == 0:
        return states
    for _ in range(steps):
        p = h @ weight.T
        size = p.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        cosine = (p * v).sum(-1, keepdim=True) / size
        uphill = (v / size - cosine * p / size**2) @ weight  # gradient of the cosine, (batch, d)
        trial = F.normalize(h + pace * uphill, dim=-1)
        reached = F.cosine_similarity(trial @ weight.T, v, dim=-1)[:, None]
        better = reached > cosine
        h, pace = torch.where(better, trial, h), torch.where(better, pace, pace / 2)
    return length * h


def clip_digest(model: Any) -> str:
    """Return 16 hexadecimal digits that name the CLIP of a model: its two projections' bytes.

    An inverse belongs to a CLIP, not to a U-Net; hashing a whole model would take seconds.
    """
    digest = hashlib.sha256()
    for layer in (model.clip.text_projection, model.clip.visual_projection):
        digest.update(layer.weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
