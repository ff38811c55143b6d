"""The exercises on what a prompt is (notebook 02): residuals on states, a gate on new tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from dsd_tutorial.attention.pooling import add_gated, log_sum_exp
from dsd_tutorial.course.checks.exercise import Exercise, normal

# -- prompted_states(states, end, residual): (batch, L, d), (batch,), (n, d) -> (batch, L, d) -----


def _prompted(states: Tensor, end: Tensor, residual: Tensor, first: int = 1) -> Tensor:
    place = torch.arange(states.shape[1])[None] - end[:, None] - first  # 0 at the first padding
    inside = (place >= 0) & (place < len(residual))
    return states + inside[..., None] * residual[place.clamp(0, len(residual) - 1)]


def _overwritten(states: Tensor, end: Tensor, residual: Tensor) -> Tensor:
    added = _prompted(torch.zeros_like(states), end, residual)
    touched = _prompted(torch.zeros_like(states), end, torch.ones_like(residual)) > 0
    return torch.where(touched, added, states)


def _wrapped(states: Tensor, end: Tensor, residual: Tensor) -> Tensor:
    out = states.clone()
    for row, at in enumerate(end.tolist()):
        for i, values in enumerate(residual):
            out[row, (at + 1 + i) % states.shape[1]] += values
    return out


def _to_the_end_of_the_row(states: Tensor, end: Tensor, residual: Tensor) -> Tensor:
    place = torch.arange(states.shape[1])[None] - end[:, None] - 1
    return states + (place >= 0)[..., None] * residual[place.clamp(0, len(residual) - 1)]


prompted_states = Exercise(
    name="prompted_states",
    hint="Write down one caption: start, words, EOS, padding. Which rows may change?",
    solution=_prompted,
    cases=[
        (torch.zeros(2, 5, 1), torch.tensor([1, 3]), torch.tensor([[1.0], [2.0]])),
        (normal(3, 9, 4), torch.tensor([2, 5, 7]), normal(3, 4, seed=1)),
        (normal(2, 12, 3, seed=2), torch.tensor([4, 6]), normal(2, 3, seed=3)),
    ],
    mistakes={
        "counted from EOS itself": (
            "The EOS state sums the caption up; the padding begins one place behind it.",
            "The i-th row belongs to position end + 1 + i.",
            lambda s, end, r: _prompted(s, end, r, first=0),
        ),
        "overwritten instead of added": (
            "Replaced states change the score at once: learning must begin at the zero-shot score.",
            "Add the residual to the states that are there: at zero it changes nothing.",
            _overwritten,
        ),
        "the same positions for every caption": (
            "Captions differ in length, so their padding begins at different places.",
            "Use each caption's own `end`.",
            lambda s, end, r: _prompted(s, end[:1].expand(len(end)), r),
            lambda s, end, r: _prompted(s, torch.full_like(end, s.shape[1] - len(r) - 1), r),
            lambda s, end, r: _prompted(s, end.max().expand(len(end)), r),
        ),
        "all padding instead of the first n positions": (
            "Row i belongs to one position; here the last row was added to all that follow.",
            "Keep only positions whose distance from EOS is 1 to n.",
            _to_the_end_of_the_row,
        ),
        "wrapped around to the front": (
            "Where a caption leaves too little room, the rest lands on its start token and words.",
            "Leave out what does not fit.",
            _wrapped,
        ),
        "one row for all positions": (
            "Every position has a residual of its own.",
            "Index the residual by the distance from EOS.",
            lambda s, end, r: _prompted(s, end, r[:1].expand(len(r), -1)),
            lambda s, end, r: _prompted(s, end, r.mean(0, keepdim=True).expand(len(r), -1)),
        ),
    },
)


# -- gated_partition(logits, extra, gate): (b, heads, pixels, L), (.., n), (heads, n) -> (.., ) ---


def _gated(logits: Tensor, extra: Tensor, gate: Tensor) -> Tensor:
    return add_gated(logits.logsumexp(-1), extra, gate[:, None, :])


def _joined(logits: Tensor, extra: Tensor) -> Tensor:
    return torch.cat([logits, extra], dim=-1).logsumexp(-1)


gated_partition = Exercise(
    name="gated_partition",
    hint="With all gates at zero the answer must be logits.logsumexp(-1), to the last digit.",
    solution=_gated,
    cases=[
        (torch.tensor([[[[0.0, 0.0]]]]), torch.tensor([[[[0.0]]]]), torch.tensor([[2.0]])),
        (normal(2, 3, 4, 6), normal(2, 3, 4, 2, seed=1), torch.zeros(3, 2)),
        (normal(2, 3, 4, 6, scale=2.0), normal(2, 3, 4, 2, seed=2), normal(3, 2, seed=3).abs()),
        (90.0 + normal(2, 3, 4, 6, seed=4), 90.0 + normal(2, 3, 4, 2), normal(3, 2).abs()),
    ],
    mistakes={
        "gate inside the exponential": (
            "exp(g * x) is 1 at g = 0, not 0: a closed gate would still let something in.",
            "Multiply the exponential by the gate: g * exp(x).",
            lambda x, e, g: _joined(x, g[:, None, :] * e),
            lambda x, e, g: _joined(x, g[:, None, :] + e),
        ),
        "no gate": (
            "New tokens raise the partition whatever they say; so the score would jump at once.",
            "Give every extra term its factor gate, zero at the start.",
            lambda x, e, g: _joined(x, e),
        ),
        "gate outside the logarithm": (
            "The extra tokens take part in the same softmax, so they belong into the same sum.",
            "log(sum exp(logits) + sum gate * exp(extra)): one logarithm around both sums.",
            lambda x, e, g: x.logsumexp(-1) + (g[:, None, :] * e).sum(-1),
            lambda x, e, g: x.logsumexp(-1) + (g[:, None, :] * e.exp()).sum(-1),
            lambda x, e, g: x.logsumexp(-1) + g.sum(-1)[:, None] * e.logsumexp(-1),
            lambda x, e, g: x.logsumexp(-1) + g.mean(-1)[:, None] * e.logsumexp(-1),
        ),
        "overflow of exp": (
            "exp of a logit near 90 is infinite in float32.",
            "Take the text's partition out first: total + log1p(sum gate * exp(extra - total)).",
            lambda x, e, g: (x.exp().sum(-1) + (g[:, None, :] * e.exp()).sum(-1)).log(),
            lambda x, e, g: torch.logaddexp(
                x.logsumexp(-1), (g[:, None, :] * e.exp()).sum(-1).log()
            ),
        ),
        "one gate for all heads": (
            "Each head has gates of its own, so that one may listen where another may not.",
            "Shape the gate (heads, 1, n), then it is spread over batch and pixels.",
            lambda x, e, g: _gated(x, e, g.mean(0, keepdim=True).expand_as(g)),
            lambda x, e, g: _gated(x, e, g[:1].expand_as(g)),
        ),
        "mean instead of sum": (
            "The score that is to be kept is the plain log-partition over all tokens.",
            "No division by the number of tokens.",
            lambda x, e, g: _gated(x, e, g) - torch.tensor(float(x.shape[-1])).log(),
            lambda x, e, g: add_gated(log_sum_exp(x, normalise="mean"), e, g[:, None, :]),
        ),
    },
)
