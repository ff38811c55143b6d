"""The exercises on images as prompts (notebook 03): what fills the sequence, and its weight."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dsd_tutorial.course.checks.exercise import Exercise, normal

# -- fill_prompt(empty, states, copies): (1, L, d), (n, d), int -> (n, L, d) ----------------------


def _fill(empty: Tensor, states: Tensor, first: int, last: int) -> Tensor:
    prompt = empty.repeat(len(states), 1, 1)
    prompt[:, first:last] = states[:, None]
    return prompt


fill_prompt = Exercise(
    name="fill_prompt",
    hint="Number the positions on paper: 0 is the start token; which hold copies, which the rest?",
    solution=lambda empty, states, copies: _fill(empty, states, 1, 1 + copies),
    cases=[
        (torch.zeros(1, 5, 1), torch.tensor([[1.0], [2.0]]), 2),
        (normal(1, 8, 3), normal(2, 3, seed=1), 4),
        (normal(1, 8, 3, seed=4), normal(3, 3, seed=5), 1),
        (normal(1, 6, 3, seed=6), normal(1, 3, seed=7), 5),
    ],
    mistakes={
        "start token overwritten": (
            "Every caption begins with the same start-token state, and many heads rest on it.",
            "Fill positions 1 to copies: prompt[:, 1 : 1 + copies].",
            lambda e, s, n: _fill(e, s, 0, n),
            lambda e, s, n: _fill(e, s, 0, n + 1),
            lambda e, s, n: _fill(e, s, 0, e.shape[1]),
        ),
        "all positions filled": (
            "The number of copies is the image's weight in the prompt; here it was ignored.",
            "Stop after position `copies`: prompt[:, 1 : 1 + copies].",
            lambda e, s, n: _fill(e, s, 1, e.shape[1]),
        ),
        "one copy too few": (
            "A slice 1 : copies ends before position `copies`.",
            "The slice must end at 1 + copies.",
            lambda e, s, n: _fill(e, s, 1, n),
        ),
        "one copy too many": (
            "A slice 1 : 2 + copies takes in one position more.",
            "The slice must end at 1 + copies.",
            lambda e, s, n: _fill(e, s, 1, n + 2),
        ),
        "copies at the end": (
            "Copies stand where words do, behind the start token; padding keeps its positions.",
            "Fill from position 1 on.",
            lambda e, s, n: _fill(e, s, e.shape[1] - n, e.shape[1]),
        ),
        "zeros behind the copies": (
            "Padding states are not zero; a key of zero is a logit of zero, which says something.",
            "Begin with copies of the empty prompt and overwrite only positions 1 to copies.",
            lambda e, s, n: F.pad(_fill(e, s, 1, 1 + n)[:, : 1 + n], (0, 0, 0, e.shape[1] - 1 - n)),
        ),
        "one image for the whole batch": (
            "Each image has a state of its own.",
            "Give the states a position axis: states[:, None], (batch, 1, d).",
            lambda e, s, n: _fill(e, s[:1].expand_as(s), 1, 1 + n),
            lambda e, s, n: _fill(e, s.mean(0, keepdim=True).expand_as(s), 1, 1 + n),
        ),
    },
)


# -- one_for_many(logits, n): (..., tokens) -> (..., tokens) attention ----------------------------


def _raised(logits: Tensor, by: float, position: int = 1) -> Tensor:
    bonus = torch.zeros(logits.shape[-1])
    bonus[position] = by
    return (logits + bonus).softmax(-1)


def _stretched(logits: Tensor, n: float) -> Tensor:
    factor = torch.ones(logits.shape[-1])
    factor[1] = n
    return (factor * logits).softmax(-1)


def _scaled_after(logits: Tensor, n: float) -> Tensor:
    maps = logits.softmax(-1)
    maps[..., 1] *= n
    return maps


one_for_many = Exercise(
    name="one_for_many",
    hint="Write down the softmax of [x, y, y, y] and of [x, y + b]: which b gives y the same "
    "share in both?",
    solution=lambda logits, n: _raised(logits, math.log(n)),
    cases=[
        (torch.tensor([0.0, 0.0, 0.0]), 2),
        (normal(2, 3, 4, 6, scale=2.0), 7),
        (normal(5, 6, seed=1), 31),
    ],
    mistakes={
        "added n instead of log n": (
            "The bonus stands in an exponent: exp(l + n) is exp(n) times exp(l), not n times.",
            "Add math.log(n): exp(l + ln n) = n exp(l).",
            _raised,
        ),
        "multiplied the logit": (
            "n times a logit is a power of its exponential, and shrinks where it is negative.",
            "Add math.log(n) to the logit.",
            _stretched,
        ),
        "multiplied the attention": (
            "The row then sums to more than one: the other positions have not made room.",
            "Raise the logit before the softmax.",
            _scaled_after,
        ),
        "raised the start token": (
            "Position 0 is the start token; the copy stands at position 1.",
            "Add the bonus to logits[..., 1].",
            lambda x, n: _raised(x, math.log(n), 0),
        ),
        "no bonus": (
            "A single copy gets the share of a single copy.",
            "Add math.log(n) to the logit at position 1.",
            lambda x, n: x.softmax(-1),
        ),
        "logarithm to another base": (
            "The softmax uses e, so the logarithm must be the natural one.",
            "Use math.log, not math.log2 or math.log10.",
            lambda x, n: _raised(x, math.log2(n)),
            lambda x, n: _raised(x, math.log10(n)),
        ),
        "log of one n too many or too few": (
            "n copies in all, the one that is there included.",
            "Add math.log(n).",
            lambda x, n: _raised(x, math.log(n + 1)),
            lambda x, n: _raised(x, math.log(n - 1)),
        ),
    },
)
