"""The exercises on how a prompt learns (notebook 02): its loss, and the step that is kept."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dsd_tutorial.course.checks.exercise import Exercise, normal
from dsd_tutorial.prompt_learning.objectives import hinge

# -- hardest_hinge(scores, positive, margin): (items, candidates), (items,) -> () -----------------


def _right(s: Tensor, p: Tensor) -> Tensor:
    return F.one_hot(p, s.shape[1]).bool()


def _hardest(s: Tensor, p: Tensor) -> Tensor:
    return s.masked_fill(_right(s, p), -torch.inf).amax(1)


def _of(s: Tensor, p: Tensor) -> Tensor:
    return s.gather(1, p[:, None])[:, 0]


def _each(s: Tensor, p: Tensor, m: float) -> Tensor:
    """The hinge against every wrong candidate, zero for the right one."""
    return F.relu(s - _of(s, p)[:, None] + m) * ~_right(s, p)


def _mean_wrong(s: Tensor, p: Tensor) -> Tensor:
    return (s * ~_right(s, p)).sum(1) / (s.shape[1] - 1)


hardest_hinge = Exercise(
    name="hardest_hinge",
    hint="Three candidates score 5, 3, 4 and the second is right: with margin 1 its loss is 3.",
    solution=hinge,
    cases=[
        (torch.tensor([[5.0, 3.0, 4.0], [0.0, 1.0, 9.0]]), torch.tensor([1, 2]), 1.0),
        (normal(12, 4), torch.arange(12) % 4, 0.5),
        (normal(8, 10, seed=1, scale=3.0), torch.tensor([9, 1, 4, 4, 0, 7, 2, 5]), 0.1),
    ],
    mistakes={
        "the right candidate taken at index 0": (
            "In the released code it stands there, and a score that knows nothing wins all ties.",
            "Read scores[i, positive[i]], for example with gather.",
            lambda s, p, m: hinge(s, torch.zeros_like(p), m),
            lambda s, p, m: F.relu(s[:, 1:].amax(1) - _of(s, p) + m).mean(),
        ),
        "the right candidate is among its own rivals": (
            "The loss is then never below the margin, however good the score is.",
            "Set the right one to minus infinity before you take the maximum.",
            lambda s, p, m: F.relu(s.amax(1) - _of(s, p) + m).mean(),
            lambda s, p, m: F.relu((s * ~_right(s, p)).amax(1) - _of(s, p) + m).mean(),
        ),
        "all wrong candidates instead of the hardest": (
            "A decision is lost to the strongest rival; the weak ones only thin its gradient.",
            "Take the maximum over the wrong candidates first, then the hinge.",
            lambda s, p, m: F.relu(_mean_wrong(s, p) - _of(s, p) + m).mean(),
            lambda s, p, m: _each(s, p, m).sum(1).mean(),
            lambda s, p, m: (_each(s, p, m).sum(1) / (s.shape[1] - 1)).mean(),
            lambda s, p, m: _each(s, p, m).mean(),
        ),
        "sign turned round": (
            "This loss is small when the wrong candidate wins.",
            "Hardest wrong minus right, plus the margin.",
            lambda s, p, m: F.relu(_of(s, p) - _hardest(s, p) + m).mean(),
        ),
        "margin subtracted": (
            "A rival could then come as close as it likes, or even win a little, at no loss.",
            "Add the margin: the right one must win by at least that much.",
            lambda s, p, m: F.relu(_hardest(s, p) - _of(s, p) - m).mean(),
            lambda s, p, m: F.relu(_hardest(s, p) - _of(s, p)).mean(),
        ),
        "no floor at zero for each item": (
            "What is won by far would pay for what is lost.",
            "max(0, ...) for each item, then the mean.",
            lambda s, p, m: (_hardest(s, p) - _of(s, p) + m).mean(),
            lambda s, p, m: F.relu((_hardest(s, p) - _of(s, p) + m).mean()),
        ),
        "sum over the items": (
            "The step would grow with the number of items.",
            "Take the mean over the items.",
            lambda s, p, m: len(s) * hinge(s, p, m),
        ),
    },
)


# -- best_step(few, validation, loss): each (steps,), NaN where not measured -> () ----------------


def _best_step(few: np.ndarray, validation: np.ndarray, loss: np.ndarray) -> int:
    known = [i for i in range(len(few)) if not np.isnan(validation[i])]
    return max(known, key=lambda i: (validation[i], -loss[i], -i))


def _latest(values: np.ndarray) -> int:
    """The last index of the largest value."""
    return len(values) - 1 - int(values[::-1].argmax())


_N = np.nan  # arrays, not tensors: so a history's columns come, and NaN is in them
_FEW = np.array([0.5, 0.6, 0.7, 0.8, 1.0, 1.0, 0.9])
_VALIDATION = np.array([0.5, _N, 0.8, 0.6, 0.8, 0.8, 0.7])
_LOSS = np.array([0.7, _N, 0.6, 0.4, 0.5, 0.9, 0.8])

best_step = Exercise(
    name="best_step",
    hint="Which items may decide here, what says NaN, and what if two steps do equally well?",
    solution=_best_step,
    cases=[
        (np.array([0.5, 0.9, 1.0]), np.array([0.6, 0.8, 0.7]), np.array([3.0, 2.0, 1.0])),
        (_FEW, _VALIDATION, _LOSS),
        (_FEW[::-1].copy(), np.roll(_VALIDATION, 2), np.roll(_LOSS, 2)),
    ],
    mistakes={
        "chosen on the few-shot items": (
            "These were learned from: nearly everything gets them right in the end.",
            "Choose by the validation accuracy.",
            lambda f, v, x: f.argmax(),
            lambda f, v, x: _latest(f),
        ),
        "NaN taken for the best": (
            "torch.argmax and numpy.argmax give the place of a NaN if there is one.",
            "Drop the steps at which validation was not measured, or set them to minus infinity.",
            lambda f, v, x: v.argmax(),
        ),
        "ties not broken by the loss": (
            "On so few items ties are common; the loss still tells a narrow win from a clear one.",
            "Among the steps with the best accuracy take the one with the lowest loss.",
            lambda f, v, x: np.nanargmax(v),
            lambda f, v, x: _latest(np.nan_to_num(v, nan=-1.0)),
        ),
        "the lowest loss alone": (
            "Accuracy is what is reported; the loss only decides between equals.",
            "Compare the accuracy first, then the loss.",
            lambda f, v, x: np.nanargmin(x),
        ),
        "the last step": (
            "The last step has fitted the few longest, and often too long.",
            "Keep the step that validation likes best.",
            lambda f, v, x: len(v) - 1,
        ),
        "the highest loss among equals": (
            "A low loss is a good one.",
            "Turn the sign of the loss where you look for a maximum.",
            lambda f, v, x: np.nanargmax(v + 1e-6 * x),
        ),
    },
)
