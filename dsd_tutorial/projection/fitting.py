"""Closed-form inverses by name: Ding et al.'s, and the alternatives of METHODS.md B.5 *(ours)*."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dsd_tutorial.projection import matrices
from dsd_tutorial.projection.calibration import (
    Calibration,
    Pairs,
    calibrate,
    collect_pairs,
    text_weight,
)
from dsd_tutorial.projection.inverse import Inverse, clip_digest
from dsd_tutorial.projection.spectrum import automatic_threshold, singular_values

METHODS = {
    "truncated": "pseudo-inverse of W_t without the directions below the threshold (the paper's)",
    "ridge": "(W_t^T W_t + lam I)^-1 W_t^T: small directions are turned down, none is cut",
    "gaussian": "the likeliest state, given how real end states are spread",
    "mean_shift": "unit embedding moved over the modality gap, then the truncated inverse",
    "centered": "the truncated inverse of what differs from the mean picture, added to the mean "
    "end state",
    "procrustes": "embedding rotated onto those of captions, then the truncated inverse",
    "direct": "ridge regression from f_i to h on pairs; W_t plays no part",
    "refined": "the truncated inverse, then gradient steps on 1 - cos(W_t h, W_i f_i)",
}
USES_LAM = ("ridge", "gaussian", "direct")
USES_THRESHOLD = ("truncated", "mean_shift", "centered", "procrustes", "refined")
Threshold = float | str | None
# 6, 12, 18 and 24 were tried on 64 validation pictures with three inverses: all the same for
# "truncated", where every copy repeats the same error; "centered" and "direct" were best with 18
EMBEDDED_COPIES = 18


@dataclass
class _Fit:
    """What the recipes below work from; pairs are collected when one of them asks."""

    model: Any
    weight: Tensor
    calibration: Calibration
    given_pairs: Pairs | None
    threshold: Threshold
    lam: float | str
    progress: bool

    @cached_property
    def pairs(self) -> Pairs:
        if self.given_pairs is not None:
            return self.given_pairs
        return collect_pairs(self.model, progress=self.progress)

    @cached_property
    def cut(self) -> float | None:
        """The threshold as a number; None cuts nothing."""
        if self.threshold == "auto":
            return automatic_threshold(singular_values(self.weight))
        return self.threshold

    @cached_property
    def truncated(self) -> Tensor:
        return matrices.truncated_pseudo_inverse(self.weight, self.cut)

    def or_auto(self, automatic: Callable[[], float]) -> float:
        return automatic() if self.lam == "auto" else float(self.lam)

    def unit_pairs(self) -> tuple[Tensor, Tensor]:
        """Unit-length W_i f_i and W_t h, each (pairs, d_proj), float64."""
        both = (self.pairs.embedding, self.pairs.projected)
        return tuple(F.normalize(x.cpu().double(), dim=-1) for x in both)


def _truncated(fit: _Fit) -> dict[str, Any]:
    return {"matrix": fit.truncated, "settings": {"threshold": fit.cut}}


def _ridge(fit: _Fit) -> dict[str, Any]:
    # where the truncated inverse has its threshold, this filter has its half
    lam = fit.or_auto(lambda: automatic_threshold(singular_values(fit.weight)) ** 2)
    return {"matrix": matrices.ridge_inverse(fit.weight, lam), "settings": {"lam": lam}}


def _gaussian(fit: _Fit) -> dict[str, Any]:
    known = fit.calibration
    lam = fit.or_auto(lambda: _noise_variance(fit))
    found = matrices.gaussian_inverse(fit.weight, known.mean, known.covariance, lam)
    return {"matrix": found.matrix, "offset": found.offset, "settings": {"lam": lam}}


def _noise_variance(fit: _Fit) -> float:
    """Mean square of v - W_t h on pairs, per direction: what the Gaussian prior calls noise."""
    image = F.normalize(fit.pairs.embedding.cpu().double(), dim=-1)
    v = fit.calibration.projected_length * image
    return float((v - fit.pairs.projected.cpu().double()).square().mean())


def _mean_shift(fit: _Fit) -> dict[str, Any]:
    image, text = fit.unit_pairs()
    matrix = fit.truncated
    offset = matrix @ (text.mean(0) - image.mean(0))
    settings = {"threshold": fit.cut}
    return {"matrix": matrix, "offset": offset, "input_length": 1.0, "settings": settings}


def _centered(fit: _Fit) -> dict[str, Any]:
    """T (v - mean v), brought to the length of a state, plus mean h.

    Means alone are read from the pairs, so that pictures and captions need not belong together.
    Other than `mean_shift` it also gives back what W_t deletes of the mean end state.
    """
    known = fit.calibration
    v = known.projected_length * F.normalize(fit.pairs.embedding.cpu().double(), dim=-1)
    inverted = v @ fit.truncated.T
    matrix = fit.truncated * (known.length / float(inverted.norm(dim=-1).mean()))
    offset = known.mean - matrix @ v.mean(0)
    return {"matrix": matrix, "offset": offset, "settings": {"threshold": fit.cut}}


def _procrustes(fit: _Fit) -> dict[str, Any]:
    image, text = fit.unit_pairs()
    middle_i, middle_t = image.mean(0), text.mean(0)
    rotation = matrices.procrustes(image - middle_i, text - middle_t)
    return {
        "matrix": fit.truncated @ rotation,
        "offset": fit.truncated @ (middle_t - rotation @ middle_i),
        "input_length": 1.0,
        "settings": {"threshold": fit.cut},
    }


def _direct(fit: _Fit) -> dict[str, Any]:
    source = fit.pairs.pooled.cpu().double()
    variance = float((source - source.mean(0)).square().mean())
    lam = fit.or_auto(lambda: 0.01 * variance)
    found = matrices.ridge_map(source, fit.pairs.state, lam)
    return {
        "matrix": found.matrix,
        "offset": found.offset,
        "reads": "pooled",
        "input_length": None,
        "settings": {"lam": lam, "pairs": len(fit.pairs)},
    }


_RECIPES: dict[str, Callable[[_Fit], dict[str, Any]]] = {
    "truncated": _truncated,
    "ridge": _ridge,
    "gaussian": _gaussian,
    "mean_shift": _mean_shift,
    "centered": _centered,
    "procrustes": _procrustes,
    "direct": _direct,
    "refined": _truncated,
}


def fit_inverse(
    model: Any,
    method: str = "truncated",
    *,
    threshold: Threshold = "auto",
    lam: float | str = "auto",
    length: float | None = None,
    copies: int | None = None,
    steps: int = 10,
    rate: float = 1.0,
    calibration: Calibration | None = None,
    pairs: Pairs | None = None,
    progress: bool = True,
) -> Inverse:
    """Return the `Inverse` of a model's text projection by one of `METHODS`.

    threshold    singular values below it are cut: a number (0.3 in the paper, for ViT-L/14), "auto"
                 (`automatic_threshold`), or None for no cut
    lam          ridge penalty, or noise variance of the Gaussian prior; "auto" chooses it
    length       of the answer; None is the encoder's own, mean |h| over captions
    copies       of the state in a prompt; None is `usual_copies`
    steps, rate  of the gradient refinement
    calibration, pairs   measured before, to save their time; by default on the shapes world

    Raises:
        PenultimateLayerError: SD 2.x. ValueError: unknown method, or an argument out of range or
            of another method.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    _check_arguments(method, threshold, lam)
    weight = text_weight(model)
    if calibration is None:
        calibration = calibrate(model, progress=progress)
    fit = _Fit(model, weight, calibration, pairs, threshold, lam, progress)
    parts = {"input_length": calibration.projected_length, **_RECIPES[method](fit)}
    if method == "refined":
        parts |= {"steps": steps, "rate": rate}
        parts["settings"] = {**parts["settings"], "steps": steps, "rate": rate}
    return Inverse(
        method=method,
        length=calibration.length if length is None else float(length),
        copies=usual_copies(model) if copies is None else copies,
        weight=weight,
        clip=clip_digest(model),
        **parts,
    )


def usual_copies(model: Any) -> int:
    """Return how many copies of a state a prompt gets: the paper's L - 1, in its models.

    In the embedded model it is `EMBEDDED_COPIES`; its U-Net saw 4 to L - 1 in training.
    """
    return EMBEDDED_COPIES if model.is_embedded else model.context_length - 1


def own_inverse(
    model: Any, matrix: Tensor, *, calibration: Calibration | None = None, progress: bool = True
) -> Inverse:
    """Return an `Inverse` around a matrix (d, d_proj) of your own, with the encoder's length.

    Raises `OrientationError` for a transposed one.
    """
    weight = text_weight(model)
    matrix = matrices.as_matrix(matrix, "matrix")
    known = calibration or calibrate(model, progress=progress)
    return Inverse(
        method="own",
        matrix=matrix,
        length=known.length,
        input_length=known.projected_length,
        copies=usual_copies(model),
        weight=weight,
        clip=clip_digest(model),
    )


def _check_arguments(method: str, threshold: Threshold, lam: float | str) -> None:
    if threshold != "auto" and method not in USES_THRESHOLD:
        raise ValueError(
            f"threshold={threshold} has no part in {method!r}; these use it: "
            f"{', '.join(USES_THRESHOLD)}"
        )
    if lam != "auto" and method not in USES_LAM:
        raise ValueError(
            f"lam={lam} has no part in {method!r}; these use it: {', '.join(USES_LAM)}"
        )
    if isinstance(threshold, str) and threshold != "auto":
        raise ValueError(f"threshold {threshold!r}: give a number, 'auto', or None for no cut")
    if isinstance(lam, str) and lam != "auto":
        raise ValueError(f"lam {lam!r}: give a number or 'auto'")


def fit_random(model: Any, seed: int = 0, calibration: Calibration | None = None) -> Inverse:
    """Return the truncated inverse of a random matrix of W_t's shape and size: an untrained CLIP.

    The control of every picture: it knows length and copies, and nothing else.
    """
    weight = text_weight(model)
    numbers = torch.Generator().manual_seed(seed)
    noise = torch.randn(weight.shape, generator=numbers, dtype=torch.float64)
    noise *= weight.norm() / noise.norm()
    known = calibration or calibrate(model, progress=False)
    matrix = matrices.truncated_pseudo_inverse(noise, automatic_threshold(singular_values(noise)))
    return Inverse(
        method="untrained",
        matrix=matrix,
        length=known.length,
        input_length=known.projected_length,
        copies=usual_copies(model),
        clip=clip_digest(model),
    )
