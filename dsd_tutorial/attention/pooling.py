"""Soft maxima: the log-sum-exp that turns attention logits into a score.

LSE_lambda(x) = (1 / lambda) log mean exp(lambda x) runs from the mean (lambda -> 0) to the maximum
(lambda -> infinity) and never falls as lambda grows. With a sum in place of the mean, n equal
values x give x + log(n) / lambda, so that a longer caption would win by its length alone: wherever
the number of tokens depends on the caption, use the mean form. At lambda = 1 the sum form is the
log-partition of the softmax, the quantity that He et al., arXiv 2305.10722, score by.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Normalise = Literal["auto", "sum", "mean"]
PIXEL_POOLINGS = ("mean", "max", "lse")


def log_sum_exp(
    logits: Float[Tensor, "*batch tokens"],
    lam: float = 1.0,
    mask: Bool[Tensor, "*#batch #tokens"] | None = None,
    *,
    normalise: Normalise = "auto",
    extra: Float[Tensor, "*#batch m"] | None = None,
    gate: Float[Tensor, "*#batch #m"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Return the soft maximum over the last dimension, float32.

    Args:
        logits: Raw logits, or any numbers.
        lam: lambda; 0 is the plain mean, infinity the maximum.
        mask: The positions that count, broadcastable to `logits`.
        normalise: "sum", "mean", or "auto": the sum (log-partition) without a mask at lambda = 1,
            otherwise the mean form, in which a caption gains nothing by its length.
        extra: Further logits (..., m) that enter as gate * exp(extra). They never count in the
            mean's denominator, so that a gate of zero changes nothing.
        gate: Their weights, broadcastable to `extra`.

    Raises:
        ValueError: A negative `lam`, an unknown `normalise`, `extra` without `gate` or reversed.
    """
    form = check_form(normalise, lam, mask)
    if (extra is None) != (gate is None):
        raise ValueError("further logits (extra) and their weights (gate) are given together")
    logits = logits.float()
    count = torch.as_tensor(float(logits.shape[-1]), device=logits.device)
    if mask is not None:
        count = mask.sum(-1).to(logits.dtype)
    if lam == 0:
        kept = logits if mask is None else logits.masked_fill(~mask, 0.0)
        return kept.sum(-1) / count
    if mask is not None:
        logits = logits.masked_fill(~mask, -math.inf)
    if math.isinf(lam):
        return _hard_maximum(logits, extra, gate)
    top = logits.detach().amax(-1)
    below = lam * (logits - top[..., None])  # from the largest one: exact where it counts
    if form == "mean":
        value = _log_mean(below, mask, count) / lam + top
    elif lam == 1:
        value = torch.logsumexp(logits, dim=-1)  # the log-partition, bit for bit as torch has it
    else:
        value = torch.logsumexp(below, dim=-1) / lam + top
    if extra is not None and gate is not None:
        total = torch.logsumexp(below, dim=-1) + lam * top
        value = value + gated_gain(total, lam * extra.to(logits.dtype), gate) / lam
    return value


def _log_mean(below: Tensor, mask: Tensor | None, count: Tensor) -> Tensor:
    """Return log mean exp(below) over the last dimension, for numbers up to 0.

    Near 0 this is nearly log n - log n, and it is about to be divided by a small lambda. There the
    mean of exp(y) - 1 is taken, whose rounding error shrinks with y.
    """
    kept = below if mask is None else below.masked_fill(~mask, 0.0)
    rise = torch.expm1(kept).sum(-1) / count
    close = rise > -0.5
    near = torch.log1p(rise.masked_fill(~close, 0.0))
    return torch.where(close, near, torch.logsumexp(below, dim=-1) - count.log())


def check_form(
    normalise: Normalise, lam: float, mask: Tensor | None = None
) -> Literal["sum", "mean"]:
    """Return the form that `normalise` means; raises ValueError as `log_sum_exp` does."""
    if not lam >= 0:
        raise ValueError(f"lam must be >= 0 (0 is the mean, inf the maximum), not {lam!r}")
    if normalise not in ("auto", "sum", "mean"):
        raise ValueError(f"normalise must be 'auto', 'sum' or 'mean', not {normalise!r}")
    if normalise == "auto":
        return "sum" if mask is None and lam == 1 else "mean"
    if normalise == "sum" and lam == 0:
        raise ValueError("the sum form has no limit at lam = 0: use normalise='mean'")
    return normalise


def _hard_maximum(logits: Tensor, extra: Tensor | None, gate: Tensor | None) -> Tensor:
    top = logits.amax(-1)
    if extra is not None and gate is not None:
        open_gates = extra.masked_fill(gate <= 0, -math.inf)
        top = torch.maximum(top, open_gates.amax(-1).to(top.dtype))
    return top


def add_gated(
    total: Float[Tensor, "*batch"],
    extra: Float[Tensor, "*#batch m"],
    gate: Float[Tensor, "*#batch #m"],
) -> Float[Tensor, "*batch"]:
    """Return log(exp(total) + sum gate * exp(extra))."""
    return total + gated_gain(total, extra, gate)


def gated_gain(
    total: Float[Tensor, "*batch"],
    extra: Float[Tensor, "*#batch m"],
    gate: Float[Tensor, "*#batch #m"],
) -> Float[Tensor, "*batch"]:
    """Return what `add_gated` adds to `total`: log(1 + sum gate * exp(extra - total)).

    Finite in value and gradient at gate = 0, where log(gate) would not be.
    """
    gain = (gate * torch.exp((extra - total[..., None]).clamp(max=80.0))).sum(-1)
    return torch.log1p(gain)


def pool_pixels(
    scores: Float[Tensor, "*batch pixels"], how: str = "mean", lam: float = 1.0
) -> Float[Tensor, "*batch"]:
    """Return one number per head from its pixels.

    Args:
        scores: The scores of pixels.
        how: "mean" (the released DSD code), "max", or "lse" (mean form with `lam`).
        lam: lambda of "lse".

    Raises:
        ValueError: For another word.
    """
    if how == "mean":
        return scores.mean(-1)
    if how == "max":
        return scores.amax(-1)
    if how == "lse":
        return log_sum_exp(scores, lam, normalise="mean")
    raise ValueError(f"unknown pooling {how!r}; choose one of {', '.join(PIXEL_POOLINGS)}")
