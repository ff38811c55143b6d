"""The exercise on grounding: right answers written in other ways pass, wrong ones are named."""

import pytest
import torch

from dsd_tutorial.course import checks
from dsd_tutorial.grounding import vote


def in_loops(errors):
    total = torch.zeros(errors.shape[1])
    for isolation in errors:
        total += torch.exp(isolation.mean(-1)) / torch.exp(isolation.mean(-1)).sum()
    return int(total.argmin())


@pytest.mark.parametrize("function", [in_loops, lambda e: vote(e.mean(-1)).argmax()])
def test_another_right_way_passes(function):
    checks.elect.reset()
    assert checks.elect(function)


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (lambda e: torch.softmax(-e.mean(-1), 1).sum(0).argmin(), "the largest error wins"),
        (lambda e: e.mean((0, 2)).argmin(), "errors added without a softmax"),
    ],
)
def test_a_mistake_is_named(wrong, name):
    checks.elect.reset()
    assert checks.elect(wrong).mistake == name
