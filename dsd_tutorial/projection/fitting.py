"""Closed-form inverses by name: Ding et al.'s, and the alternatives of METHODS.md B.5 *(ours)*."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.linalg import orthogonal_procrustes
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
from dsd_tutorial.stable_diffusion import StableDiffusion

METHODS = {
    "truncated": "pseudo-inverse of W_t without the directions below the threshold (the paper's)",
    "ridge": "(W_t^T W_t + lam I)^-1 W_t^T: small directions are turned down, none is cut",
    "gaussian": "the likeliest state, given how real EOS states are spread",
    "mean_shift": "unit embedding moved over the modality gap, then the truncated inverse",
    "centered": "the truncated inverse of what differs from the mean image, added to the mean "
    "EOS state",
    "procrustes": "embedding rotated onto those of captions, then the truncated inverse",
    "direct": "ridge regression from f_i to h on pairs; W_t plays no part",
    "refined": "the truncated inverse, then gradient steps on 1 - cos(W_t h, W_i f_i)",
}
USES_LAM = ("ridge", "gaussian", "direct")
USES_THRESHOLD = ("truncated", "mean_shift", "centered", "procrustes", "refined")
Threshold = float | str | None  # a number, "auto", or None for no cut
# 6, 12, 18 and 24 were tried on 64 validation images with three inverses: all the same for
# "truncated", where every copy repeats the same error; "centered" and "direct" were best with 18
EMBEDDED_COPIES = 18


@dataclass
class _Recipes:
    """Method -> arguments of `Inverse`; pairs are collected when a method needs them."""

    model: StableDiffusion
    weight: Float[Tensor, "projected states"]
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
            return matrices.automatic_threshold(matrices.singular_values(self.weight))
        return self.threshold  # pyright: ignore[reportReturnType]  (other words were refused)

    @cached_property
    def inverted(self) -> Float[Tensor, "states projected"]:
        return matrices.truncated_pseudo_inverse(self.weight, self.cut)

    def unit_pairs(self) -> tuple[Float[Tensor, "pairs d"], Float[Tensor, "pairs d"]]:
        """Unit-length W_i f_i and W_t h, float64."""
        image, text = self.pairs.embedding, self.pairs.projected
        return F.normalize(image.cpu().double(), dim=-1), F.normalize(text.cpu().double(), dim=-1)

    def scaled_images(self) -> Float[Tensor, "pairs projected"]:
        """The embeddings at the length of captions, v = k W_i f_i, float64."""
        image = F.normalize(self.pairs.embedding.cpu().double(), dim=-1)
        return self.calibration.projected_length * image

    def truncated(self) -> dict[str, Any]:
        return {"matrix": self.inverted, "settings": {"threshold": self.cut}}

    refined = truncated  # gradient steps follow when it is called

    def ridge(self) -> dict[str, Any]:
        lam = self.lam
        if lam == "auto":
            # where the truncated inverse has its threshold, this filter has its half
            lam = matrices.automatic_threshold(matrices.singular_values(self.weight)) ** 2
        matrix = matrices.ridge_inverse(self.weight, float(lam))
        return {"matrix": matrix, "settings": {"lam": float(lam)}}

    def gaussian(self) -> dict[str, Any]:
        known, lam = self.calibration, self.lam
        if lam == "auto":
            # mean square of v - W_t h on pairs, per direction: what the prior calls noise
            missed = self.scaled_images() - self.pairs.projected.cpu().double()
            lam = float(missed.square().mean())
        found = matrices.gaussian_inverse(self.weight, known.mean, known.covariance, float(lam))
        return {**found._asdict(), "settings": {"lam": float(lam)}}

    def mean_shift(self) -> dict[str, Any]:
        image, text = self.unit_pairs()
        offset = self.inverted @ (text.mean(0) - image.mean(0))
        return {**self.truncated(), "offset": offset, "input_length": 1.0}

    def centered(self) -> dict[str, Any]:
        """T (v - mean v), brought to the length of a state, plus mean h.

        Means alone are read from the pairs, so that images and captions need not belong together.
        Other than `mean_shift` it also gives back what W_t deletes of the mean EOS state.
        """
        known, v = self.calibration, self.scaled_images()
        typical = float((v @ self.inverted.T).norm(dim=-1).mean())
        matrix = self.inverted * (known.length / typical)
        return {**self.truncated(), "matrix": matrix, "offset": known.mean - matrix @ v.mean(0)}

    def procrustes(self) -> dict[str, Any]:
        image, text = self.unit_pairs()
        mean_image, mean_text = image.mean(0), text.mean(0)
        turn, _ = orthogonal_procrustes(image - mean_image, text - mean_text)  # of rows
        rotation = torch.from_numpy(turn.T)
        return {
            **self.truncated(),
            "matrix": self.inverted @ rotation,
            "offset": self.inverted @ (mean_text - rotation @ mean_image),
            "input_length": 1.0,
        }

    def direct(self) -> dict[str, Any]:
        from sklearn.linear_model import Ridge

        source, lam = self.pairs.pooled.cpu().double(), self.lam
        if lam == "auto":
            lam = 0.01 * float((source - source.mean(0)).square().mean())
        ridge = Ridge(alpha=len(source) * float(lam), solver="cholesky")  # lam is of the mean error
        found = ridge.fit(source.numpy(), self.pairs.state.cpu().double().numpy())
        return {
            "matrix": torch.from_numpy(found.coef_),
            "offset": torch.from_numpy(found.intercept_),
            "reads": "pooled",
            "input_length": None,
            "settings": {"lam": float(lam), "pairs": len(self.pairs)},
        }


def fit_inverse(
    model: StableDiffusion,
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

    Args:
        model: A Stable Diffusion 1.x, or the embedded one, with CLIP.
        method: One of `METHODS`.
        threshold: Singular values below it are cut: a number (0.3 in the paper, for ViT-L/14),
            "auto" (`automatic_threshold`), or None for no cut.
        lam: Ridge penalty, or noise variance of the Gaussian prior; "auto" chooses it.
        length: Of the answer; None is the encoder's own, mean |h| over captions.
        copies: Of the state in a prompt; None is `usual_copies`.
        steps: Of the gradient refinement.
        rate: Of the gradient refinement.
        calibration: Measured before, to save its time; None measures it on the shapes world.
        pairs: Collected before, to save their time; None collects them in the shapes world.
        progress: Show progress bars.

    Raises:
        PenultimateLayerError: SD 2.x.
        ValueError: Unknown method, or an argument out of range or of another method.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    _check_arguments(method, threshold, lam)
    weight = text_weight(model)
    known = calibration or calibrate(model, progress=progress)
    recipes = _Recipes(model, weight, known, pairs, threshold, lam, progress)
    parts: dict[str, Any] = {"input_length": known.projected_length, **getattr(recipes, method)()}
    if method == "refined":
        parts |= {"steps": steps, "rate": rate}
        parts["settings"] = {**parts["settings"], "steps": steps, "rate": rate}
    return Inverse(
        method=method,
        length=known.length if length is None else float(length),
        copies=usual_copies(model) if copies is None else copies,
        weight=weight,
        clip=clip_digest(model),
        **parts,
    )


def usual_copies(model: StableDiffusion) -> int:
    """Return how many copies of a state a prompt gets: the paper's L - 1, in its models.

    In the embedded model it is `EMBEDDED_COPIES`; its U-Net saw 4 to L - 1 in training.
    """
    return EMBEDDED_COPIES if model.is_embedded else model.context_length - 1


def _check_arguments(method: str, threshold: Threshold, lam: float | str) -> None:
    for name, value, users in (("threshold", threshold, USES_THRESHOLD), ("lam", lam, USES_LAM)):
        if value != "auto" and method not in users:
            raise ValueError(
                f"{name}={value} has no part in {method!r}; these use it: {', '.join(users)}"
            )
        if isinstance(value, str) and value != "auto":
            raise ValueError(f"{name} {value!r}: give a number or 'auto', or threshold None")


def fit_random(
    model: StableDiffusion, seed: int = 0, calibration: Calibration | None = None
) -> Inverse:
    """Return the truncated inverse of a random matrix of W_t's shape and size: an untrained CLIP.

    The control of every figure: it knows length and copies, and nothing else.
    """
    weight = text_weight(model)
    numbers = torch.Generator().manual_seed(seed)
    noise = torch.randn(weight.shape, generator=numbers, dtype=torch.float64)
    noise *= weight.norm() / noise.norm()
    known = calibration or calibrate(model, progress=False)
    cut = matrices.automatic_threshold(matrices.singular_values(noise))
    return Inverse(
        method="untrained",
        matrix=matrices.truncated_pseudo_inverse(noise, cut),
        length=known.length,
        input_length=known.projected_length,
        copies=usual_copies(model),
        clip=clip_digest(model),
    )
