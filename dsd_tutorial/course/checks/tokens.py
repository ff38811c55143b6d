"""The exercises on pooling over tokens (notebook 01): any lambda, and a mask per caption."""

from __future__ import annotations

import torch
from torch import Tensor

from dsd_tutorial.attention.pooling import log_sum_exp
from dsd_tutorial.course.checks.exercise import Exercise, normal

# -- soft_maximum(logits, lam): (..., n) -> (...) ------------------------------------------------


def _soft_maximum(logits: Tensor, lam: float) -> Tensor:
    return log_sum_exp(logits, lam, normalise="mean")


soft_maximum = Exercise(
    name="soft_maximum",
    hint="Three equal logits of 2 must give 2, whatever lambda is; try that by hand.",
    solution=_soft_maximum,
    cases=[
        (torch.tensor([2.0, 2.0, 2.0]), 3.0),
        (torch.tensor([[0.0, 1.0], [2.0, 5.0]]), 0.5),
        (normal(2, 3, 5, 7, scale=3.0), 2.0),
        (normal(2, 3, 5, 7, seed=1, scale=300.0), 1.5),
    ],
    mistakes={
        "sum instead of mean": (
            "With a sum, n equal logits x give x + log(n) / lambda: more tokens, higher score.",
            "Subtract log(n), n = logits.shape[-1], from the log-sum-exp before dividing.",
            lambda x, lam: torch.logsumexp(lam * x, -1) / lam,
        ),
        "lambda not divided out": (
            "lambda stretches the logits inside the exponential and is never taken back.",
            "Divide by lam at the very end, after the logarithm.",
            lambda x, lam: lam * _soft_maximum(x, lam),
            lambda x, lam: torch.logsumexp(lam * x, -1),
        ),
        "lambda outside the exponential only": (
            "lambda decides how sharp the maximum is, so it must multiply the logits first.",
            "Write lam * logits inside the log-sum-exp.",
            lambda x, lam: _soft_maximum(x, 1.0) / lam,
            lambda x, lam: torch.logsumexp(x, -1) / lam,
            lambda x, lam: _soft_maximum(x, 1.0),
        ),
        "softmax before the log-sum-exp": (
            "Probabilities of a row always sum to 1, so their log-sum-exp is nearly a constant.",
            "Use the logits as they come; no softmax anywhere.",
            lambda x, lam: _soft_maximum(x.softmax(-1), lam),
            lambda x, lam: torch.logsumexp(lam * x.softmax(-1), -1) / lam,
        ),
        "overflow of exp": (
            "The formula is right, but exp of a large logit is infinite in float32.",
            "Use torch.logsumexp, which takes the largest logit out first.",
            lambda x, lam: (lam * x).exp().mean(-1).log() / lam,
            lambda x, lam: ((lam * x).exp().sum(-1) / x.shape[-1]).log() / lam,
        ),
        "hard maximum": (
            "The maximum is the limit for a large lambda only.",
            "Put log mean exp(lam * x) / lam in place of the maximum.",
            lambda x, lam: x.amax(-1),
        ),
        "wrong axis": (
            "The last dimension holds the tokens; the others must come back unchanged.",
            "Reduce over dim=-1.",
            lambda x, lam: _soft_maximum(x.transpose(0, -1), lam),
            lambda x, lam: _soft_maximum(x.flatten(), lam),
            lambda x, lam: _soft_maximum(x.transpose(-2, -1) if x.ndim > 1 else x, lam),
        ),
    },
)


# -- caption_scores(logits, mask): (batch, heads, pixels, tokens), (batch, tokens)
#    -> (batch, heads, pixels) -------------------------------------------------------------------


def _wide(mask: Tensor) -> Tensor:
    return mask[:, None, None, :]


def _partition(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.masked_fill(~_wide(mask), -torch.inf).logsumexp(-1)


def _caption_scores(logits: Tensor, mask: Tensor) -> Tensor:
    return _partition(logits, mask) - _wide(mask).sum(-1).log()


_MASK = torch.tensor([[0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 0], [0, 1, 0, 0, 0, 0]]).bool()

caption_scores = Exercise(
    name="caption_scores",
    hint="Make all logits equal: then captions of every length must get that very value.",
    solution=_caption_scores,
    cases=[
        (torch.full((1, 1, 1, 4), 2.0), torch.tensor([[False, True, True, False]])),
        (normal(3, 2, 4, 6, scale=2.0), _MASK),
        (normal(3, 2, 4, 6, seed=1) - 3.0, _MASK.flip(0)),
    ],
    mistakes={
        "masked with zeros instead of minus infinity": (
            "A logit of 0 is a logit like any other: exp(0) = 1 still counts.",
            "logits.masked_fill(~mask, -torch.inf): exp of minus infinity is 0.",
            lambda x, m: (x * _wide(m)).logsumexp(-1) - _wide(m).sum(-1).log(),
            lambda x, m: (x * _wide(m)).logsumexp(-1),
            lambda x, m: log_sum_exp(x * _wide(m), normalise="mean"),
        ),
        "sum instead of mean": (
            "The mask keeps more tokens of a longer caption, so a sum lets longer captions win.",
            "Subtract the logarithm of the number of kept tokens, mask.sum(-1).",
            _partition,
        ),
        "divided by all tokens": (
            "The mean runs over the kept tokens, not over all positions.",
            "Subtract log(mask.sum(-1)), not log(mask.shape[-1]).",
            lambda x, m: _partition(x, m) - torch.tensor(float(m.shape[-1])).log(),
        ),
        "mask the wrong way round": (
            "True means: keep this token.",
            "Invert the mask with ~ where minus infinity is filled in.",
            lambda x, m: _caption_scores(x, ~m),
            lambda x, m: _partition(x, ~m) - _wide(m).sum(-1).log(),
            lambda x, m: _partition(x, ~m),
        ),
        "one caption's mask for the whole batch": (
            "Every caption of the batch has a mask of its own.",
            "Give the mask the shape (batch, 1, 1, tokens): mask[:, None, None, :].",
            lambda x, m: _caption_scores(x, m[:1].expand_as(m)),
            lambda x, m: _partition(x, m) - m[0].sum().log(),
        ),
        "softmax before the log-sum-exp": (
            "Probabilities sum to 1 over all tokens: the score would be nearly a constant.",
            "Mask and pool the raw logits.",
            lambda x, m: _caption_scores(x.softmax(-1), m),
        ),
    },
)
