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
from torch import Tensor

Normalise = Literal["auto", "sum", "mean"]
PIXEL_POOLINGS = ("mean", "max", "lse")


def log_sum_exp(
    logits: Tensor,
    lam: float = 1.0,
    mask: Tensor | None = None,
    *,
    normalise: Normalise = "auto",
    extra: Tensor | None = None,
    gate: Tensor | None = None,
) -> Tensor:
    """Return the soft maximum over the last dimension, float32: (..., n) -> (...).

    `mask` (broadcastable to `logits`, bool) keeps positions. `normalise`: "sum", "mean", or "auto":
    the sum (log-partition) without a mask at lambda = 1, the mean form otherwise. `lam` = 0 is the
    plain mean and `lam` = infinity the maximum. `extra` (..., m) are further logits that enter as
    gate * exp(extra); they never count in the mean's denominator, so that a gate of zero changes
    nothing. Raises ValueError for a negative `lam` or an unknown `normalise`.
    """
    form = _form(normalise, lam, mask)
    precise = lam < 0.05 and logits.device.type != "mps"  # log(n) / lambda cancels badly in float32
    logits = logits.double() if precise else logits.float()
    count = torch.as_tensor(float(logits.shape[-1]), device=logits.device)
    if mask is not None:
        count = mask.sum(-1).to(logits.dtype)
    if lam == 0:
        kept = logits if mask is None else logits.masked_fill(~mask, 0.0)
        return (kept.sum(-1) / count).float()
    if mask is not None:
        logits = logits.masked_fill(~mask, -math.inf)
    if math.isinf(lam):
        return _hard_maximum(logits, extra, gate)
    total = torch.logsumexp(lam * logits, dim=-1)
    if extra is not None:
        total = add_gated(total, lam * extra.to(logits.dtype), gate)
    if form == "mean":
        total = total - count.log()
    return (total / lam).float()


def _form(normalise: Normalise, lam: float, mask: Tensor | None) -> Normalise:
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
    if extra is not None:
        open_gates = extra.masked_fill(gate <= 0, -math.inf)
        top = torch.maximum(top, open_gates.amax(-1).to(top.dtype))
    return top.float()


def add_gated(total: Tensor, extra: Tensor, gate: Tensor) -> Tensor:
    """Return log(exp(total) + sum gate * exp(extra)): (...), (..., m), gate (m,)-like -> (...).

    Finite in value and gradient at gate = 0, where log(gate) would not be.
    """
    gain = (gate * torch.exp((extra - total[..., None]).clamp(max=80.0))).sum(-1)
    return total + torch.log1p(gain)


def pool_pixels(scores: Tensor, how: str = "mean", lam: float = 1.0) -> Tensor:
    """Return one number per head from its pixels: (..., pixels) -> (...).

    `how`: "mean" (the released DSD code), "max", or "lse" (mean form with `lam`).
    Raises ValueError for another word.
    """
    if how == "mean":
        return scores.mean(-1)
    if how == "max":
        return scores.amax(-1)
    if how == "lse":
        return log_sum_exp(scores, lam, normalise="mean")
    raise ValueError(f"unknown pooling {how!r}; choose one of {', '.join(PIXEL_POOLINGS)}")
