"""Noise levels as log signal-to-noise ratios, and the weights that turn sums into integrals.

    z_a = sqrt(sigmoid(a)) x + sqrt(sigmoid(-a)) e,   a_t = log(abar_t / (1 - abar_t))

An estimate of information is an integral over a (Kong et al., arXiv 2310.07972). It becomes a sum
over a few levels in two ways: a grid with trapezoid weights, which repeats itself, or levels drawn
at random with weights 1 / density, which are right in the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Levels:
    """Levels a_i and weights w_i: the integral of f over a is about sum w_i f(a_i).

    Attributes:
        log_snr: a, float64; high is little noise.
        weights: Of the sum, in units of a.
        steps: The model's time steps with these a, or None where there is no model.
    """

    log_snr: Float[Tensor, " levels"]
    weights: Float[Tensor, " levels"]
    steps: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.log_snr)

    def between(self, low: float = -math.inf, high: float = math.inf) -> Levels:
        """Return the levels with low <= a <= high, under trapezoid weights of their own.

        Raises:
            ValueError: fewer than two are left.
        """
        inside = (self.log_snr >= low - 1e-9) & (self.log_snr <= high + 1e-9)
        a, kept = self.log_snr[inside], inside.nonzero()[:, 0].tolist()
        steps = None if self.steps is None else tuple(self.steps[i] for i in kept)
        return Levels(a, trapezoid(a), steps)

    def __repr__(self) -> str:
        low, high = float(self.log_snr.min()), float(self.log_snr.max())
        what = "time steps" if self.steps is not None else "levels"
        return f"Levels({len(self)} {what}, log-SNR {low:.2f} to {high:.2f})"


def log_snr(model: Any) -> Float[Tensor, " steps"]:
    """Return a_t = log(abar_t / (1 - abar_t)) of every time step, float64.

    A schedule that ends in pure noise has a = -inf at its last step.
    """
    abar = model.scheduler.alphas_cumprod.double().cpu()
    return torch.logit(abar)


def trapezoid(log_snr: Float[Tensor, " levels"]) -> Float[Tensor, " levels"]:
    """Return the trapezoid rule's weights of levels in any order: half the way to each neighbour.

    Raises:
        ValueError: fewer than two levels, equal ones, or one that is not finite.
    """
    a = log_snr.double()
    if len(a) < 2 or not bool(a.isfinite().all()) or len(a.unique()) < len(a):
        raise ValueError(
            f"log-SNR {[round(x, 2) for x in a.tolist()]}: the trapezoid rule needs two or more "
            "levels, finite and all different (leave out the time step of pure noise)"
        )
    order = a.argsort()
    half = a[order].diff() / 2
    weights = torch.zeros_like(a)
    weights[order[:-1]] += half
    weights[order[1:]] += half
    return weights


def level_grid(
    model: Any,
    levels: int | Sequence[int] = 12,
    *,
    low: float = -9.0,
    high: float = 7.5,
) -> Levels:
    """Return time steps with trapezoid weights: as listed, or n about equally far apart in a.

    Only steps that the model was trained on are used: of each wanted a the nearest a_t. The steps
    come with rising t, that is from little noise to much.

    Args:
        model: A `StableDiffusion`.
        levels: A number, or time steps.
        low: The least log-SNR of a grid given by a number.
        high: The greatest.

    Raises:
        ValueError: fewer than two levels, or a step that is pure noise.
    """
    a = log_snr(model)
    if isinstance(levels, int):
        if levels < 2:
            raise ValueError(f"levels={levels}: an integral over log-SNR needs 2 or more")
        finite = a[a.isfinite()]
        wanted = torch.linspace(
            max(low, float(finite.min())), min(high, float(finite.max())), levels
        ).double()
        nearest = (a[None] - wanted[:, None]).abs().argmin(1)
        steps = tuple(nearest.unique().tolist())
    else:
        steps = tuple(levels)
        if wrong := [t for t in steps if not 0 <= t < len(a)]:
            raise ValueError(f"time steps {wrong} must be of 0..{len(a) - 1}")
    chosen = a[list(steps)]
    return Levels(chosen, trapezoid(chosen), steps)


def logistic_levels(
    n: int,
    *,
    model: Any = None,
    location: float = 1.0,
    scale: float = 2.0,
    cut: float = 3.0,
    seed: int = 0,
) -> Levels:
    """Return n levels drawn from a logistic distribution that is cut, weighted by 1 / density.

    The sum over them is right in the mean for the integral over [location - cut scale, location +
    cut scale]. One is drawn in each n-th part of the distribution (stratified), which is right in
    the mean too and spreads less. With a model they are time steps t, drawn with probability p_t
    proportional to density times trapezoid weight; then the sum is right in the mean for the
    trapezoid sum over *all* steps of that range, and no a lies between those the model knows.

    Args:
        n: Levels.
        model: A `StableDiffusion`, or None for any real a.
        location: Where levels lie densest: 1 in the released code.
        scale: Of the logistic distribution: 2 in the released code.
        cut: Half width of the range in scales.
        seed: Of the draw.

    Raises:
        ValueError: n, scale or cut that are not positive, or a range without time steps.
    """
    if n < 1 or scale <= 0 or cut <= 0:
        raise ValueError(f"n={n}, scale={scale}, cut={cut}: all must be positive")
    numbers = torch.Generator().manual_seed(seed)
    quantile = (torch.arange(n) + torch.rand(n, generator=numbers)).double() / n  # in [0, 1)
    if model is None:
        least = 1 / (1 + math.exp(cut))  # the mass below the cut, as much as above it
        mass = 1 - 2 * least
        a = location + scale * torch.logit(least + mass * quantile)
        return Levels(a, 1 / (n * _logistic(a, location, scale) / mass))
    a = log_snr(model)
    inside = ((a - location).abs() <= cut * scale).nonzero()[:, 0]
    if len(inside) < 2:
        raise ValueError(
            f"location={location}, scale={scale}, cut={cut}: fewer than two time steps of "
            f"{model.name} lie there; its finite log-SNR are {a[a.isfinite()].min():.1f} to "
            f"{a[a.isfinite()].max():.1f}"
        )
    cell = trapezoid(a[inside])
    share = cell * _logistic(a[inside], location, scale)
    share = share / share.sum()
    drawn = torch.searchsorted(share.cumsum(0), quantile).clamp(max=len(inside) - 1)
    steps = inside[drawn]
    return Levels(a[steps], cell[drawn] / (n * share[drawn]), tuple(steps.tolist()))


def _logistic(a: Tensor, location: float, scale: float) -> Tensor:
    """Return the density of the logistic distribution."""
    x = (a - location) / scale
    return torch.sigmoid(x) * torch.sigmoid(-x) / scale
