"""An inverse of a text projection as a small frozen object: image embedding -> text state.

All methods are one affine map of CLIP's answer, then the calibrated length (METHODS.md B.2):

    h = c u / |u|,    u = matrix @ x + offset,    x = f_i, or W_i f_i at a fixed length

The length is set *after* the inverse. Ding et al., arXiv 2305.12716, normalise there too;
normalise-then-invert is a mistake that circulates (B.8). On disk an inverse is one safetensors
file with its settings in the header.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.projection.matrices import check_orientation
from dsd_tutorial.saving import save_tensors
from dsd_tutorial.stable_diffusion import ClipImage, StableDiffusion

# methods whose matrix approximates W_t^+, up to a scale
INVERTS = ("truncated", "ridge", "gaussian", "mean_shift", "centered", "refined")
TENSORS = ("matrix", "offset", "weight")
FORMAT = "dsd_tutorial.projection.Inverse 1"


class WrongClipError(ValueError):
    """The inverse was made for another CLIP."""


@dataclass(frozen=True, eq=False)
class Inverse:
    """Text states from image embeddings; made by `fit_inverse`.

    `reads` says what it takes: "embedding" is W_i f_i, "pooled" is f_i. `input_length` is the
    length that x is brought to first: |v| = k |W_i f_i| for the embedding (B.2), 1 where unit
    lengths are compared, None where x stays as it is. `copies` is how many positions of a prompt
    the state fills unless told otherwise.

    Raises `OrientationError` when built with a transposed matrix, ValueError for other misfits.
    """

    method: str
    matrix: Float[Tensor, "states inputs"]  # float64, CPU
    length: float  # c
    offset: Float[Tensor, " states"] | None = None  # float64
    reads: str = "embedding"
    input_length: float | None = None
    copies: int = 1
    weight: Float[Tensor, "projected states"] | None = None  # W_t, for round trips and refinement
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

    def __call__(
        self, images: Float[Tensor, "batch ..."] | ClipImage
    ) -> Float[Tensor, "batch states"]:
        """Return text states h_img, float32, each of length `length`.

        Computed in float64 on the CPU; differentiable.

        Args:
            images: What `model.encode_clip_image` returned, or the one of its two parts that
                `reads` names, *not* normalised by you.

        Raises:
            ValueError: Another shape.
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
        if self.steps and self.weight is not None:
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
    states: Float[Tensor, "batch states"],
    targets: Float[Tensor, "batch projected"],
    weight: Float[Tensor, "projected states"],
    steps: int,
    rate: float = 1.0,
) -> Float[Tensor, "batch states"]:
    """Return states after gradient steps on 1 - cos(W_t h, v), at their own lengths.

    A step that does not lower a row's objective is not taken, and the row's rate halved; so no row
    ends above its start. `rate` is in units of directions: 1 moves a unit vector by its gradient.
    """
    if steps == 0:
        return states
    length = states.norm(dim=-1, keepdim=True)
    h, v = F.normalize(states, dim=-1), F.normalize(targets, dim=-1)
    pace = torch.full_like(length, rate)
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


def clip_digest(model: StableDiffusion) -> str:
    """Return 16 hexadecimal digits that name the CLIP of a model: its two projections' bytes.

    An inverse belongs to a CLIP, not to a U-Net; hashing a whole model would take seconds.
    """
    digest = hashlib.sha256()
    clip = model._clip()
    for layer in (clip.text_projection, clip.visual_projection):
        digest.update(layer.weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_inverse(inverse: Inverse, path: Path | str) -> None:
    """Write an inverse as a safetensors file, in float64, with its settings as metadata."""
    values = vars(inverse)
    tensors = {name: values[name] for name in TENSORS if values[name] is not None}
    header = {name: value for name, value in values.items() if name not in TENSORS}
    save_tensors(tensors, path, metadata={"format": FORMAT, "inverse": json.dumps(header)})


def load_inverse(path: Path | str, model: StableDiffusion | None = None) -> Inverse:
    """Return the inverse that `save_inverse` wrote; it gives the same states to the last bit.

    With `model`, make sure that it was made for this model's CLIP.

    Raises:
        FileNotFoundError: No such file.
        WrongClipError: Made for another CLIP.
        ValueError: Not a file of an inverse.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"no inverse at {path}; save_inverse(inverse, path) writes one")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if header.get("format") != FORMAT:
        raise ValueError(f"{path} holds no inverse (format {header.get('format')!r})")
    inverse = Inverse(**json.loads(header["inverse"]), **tensors)
    if model is not None and inverse.clip != clip_digest(model):
        raise WrongClipError(
            f"{path} was made for the CLIP {inverse.clip}, and {model.name} has "
            f"{clip_digest(model)}: fit it again with fit_inverse(model, {inverse.method!r})"
        )
    return inverse
