"""The exercise on grounding (notebook 05): from the errors of isolated boxes to the box."""

from __future__ import annotations

import torch
from torch import Tensor

from dsd_tutorial.course.checks.exercise import Exercise, normal

# -- elect(errors): (isolations, boxes, steps) -> index of a box ----------------------------------


def _votes(errors: Tensor) -> Tensor:
    """The votes of each isolation, (isolations, boxes): low is good."""
    return errors.mean(-1).softmax(1)


elect = Exercise(
    name="elect",
    hint="Three reductions, one after another: over time steps, over boxes (a softmax), over "
    "isolations. Which is the best box: the one with the largest or the smallest sum?",
    solution=lambda errors: _votes(errors).sum(0).argmin(),
    cases=[
        (torch.tensor([[[0.2, 0.4], [0.5, 0.5]], [[0.9, 0.9], [0.7, 0.7]]]),),
        (torch.tensor([[[2.0], [0.0], [0.2]], [[9.0], [4.0], [1.5]]]),),
        (torch.tensor([[[0.0], [3.0], [3.1]], [[4.0], [0.5], [0.0]], [[4.0], [0.6], [0.9]]]),),
        (normal(2, 5, 6, seed=11),),
        (normal(2, 6, 4, seed=12, scale=2.0),),
        (normal(3, 4, 5, seed=13, scale=3.0),),
        (normal(2, 7, 6, seed=14, scale=2.0),),
        (normal(3, 7, 8, seed=15, scale=4.0),),
        (normal(3, 8, 8, seed=16, scale=6.0),),
    ],
    mistakes={
        "the largest error wins": (
            "An error says how badly the phrase explains the image.",
            "Take argmin of the summed votes, or argmax of their negative.",
            lambda e: _votes(e).sum(0).argmax(),
            lambda e: (-e.mean(-1)).softmax(1).sum(0).argmin(),
        ),
        "softmax over isolations": (
            "The isolations do not compete; the boxes do.",
            "Errors are (isolations, boxes) after the mean over steps: softmax(1).",
            lambda e: e.mean(-1).softmax(0).sum(0).argmin(),
        ),
        "errors added without a softmax": (
            "Crops and masked images have errors of different size: the louder one decides alone.",
            "Take the softmax of each isolation over the boxes before adding.",
            lambda e: e.mean(-1).sum(0).argmin(),
        ),
        "one isolation only": (
            "The other isolation has a vote, too.",
            "Add the votes over dimension 0.",
            lambda e: _votes(e)[0].argmin(),
            lambda e: _votes(e)[-1].argmin(),
        ),
        "only the last time steps": (
            "That is the released code's slip: the first round's errors are overwritten.",
            "Take the mean over all time steps: mean(-1).",
            lambda e: e[..., -1:].mean(-1).softmax(1).sum(0).argmin(),
            lambda e: e[..., e.shape[-1] // 2 :].mean(-1).softmax(1).sum(0).argmin(),
        ),
        "all votes instead of the winner": (
            "A decision is one box.",
            "Return argmin() of the summed votes.",
            lambda e: _votes(e).sum(0),
            lambda e: -_votes(e).sum(0),
        ),
        "softmax of each time step": (
            "One time step is mostly noise; let them be averaged before they vote.",
            "First mean(-1), then the softmax.",
            lambda e: e.softmax(1).mean(-1).sum(0).argmin(),
        ),
    },
)
