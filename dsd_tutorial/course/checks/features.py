"""The exercises on features (notebook 05): the k largest drives, and F1 of a unit."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dsd_tutorial.course.checks.exercise import Exercise, normal

# -- sparse_codes(drive, k): (rows, units) -> (rows, units) --------------------------------------


def _largest(drive: Tensor, k: int, by: Tensor, dim: int = -1) -> Tensor:
    """Return `drive` where `by` is among the k largest along a dimension, zero elsewhere."""
    where = by.topk(min(k, by.shape[dim]), dim=dim).indices
    return torch.zeros_like(drive).scatter(dim, where, drive.gather(dim, where))


def _sparse_codes(drive: Tensor, k: int) -> Tensor:
    return F.relu(_largest(drive, k, drive))


sparse_codes = Exercise(
    name="sparse_codes",
    hint="Each row keeps its own k largest numbers where they stand; everything else is 0.",
    solution=_sparse_codes,
    cases=[
        (torch.tensor([[0.5, 3.0, -4.0, 2.0], [-1.0, 0.2, -2.0, -0.5]]), 2),
        (normal(6, 9), 3),
        (normal(5, 4, seed=1) - 1.0, 3),
    ],
    mistakes={
        "negative drives kept": (
            "A unit says how much of its direction there is; less than nothing is not on offer.",
            "Put a ReLU around the k largest: a row may have fewer than k active units.",
            lambda x, k: _largest(x, k, x),
        ),
        "largest by absolute value": (
            "A strongly negative drive is no reason to be active.",
            "Rank the drives as they are, not their absolute values.",
            lambda x, k: _largest(x, k, x.abs()),
            lambda x, k: F.relu(_largest(x, k, x.abs())),
            lambda x, k: _largest(x, k, x.abs()).abs(),
        ),
        "over the rows instead of the units": (
            "So each unit would choose its rows. Sparsity belongs to a row: few units for each.",
            "Take topk over the last dimension.",
            lambda x, k: F.relu(_largest(x, k, x, 0)),
            lambda x, k: _largest(x, k, x, 0),
        ),
        "k for the whole batch": (
            "Rows with large features would take all the places of the others.",
            "Take topk in each row, not of the flattened tensor.",
            lambda x, k: F.relu(_largest(x.flatten(), k, x.flatten())).view_as(x),
            lambda x, k: F.relu(_largest(x.flatten(), k * len(x), x.flatten())).view_as(x),
        ),
        "only marks": (
            "The decoder needs to know how much of each direction there is.",
            "Keep the drives themselves, not ones in their places.",
            lambda x, k: (_sparse_codes(x, k) > 0).float(),
            lambda x, k: _largest(torch.ones_like(x), k, x),
        ),
        "nothing cut": (
            "A ReLU alone leaves about half of the units active.",
            "Zero everything that is not among the k largest of its row.",
            lambda x, k: F.relu(x),
        ),
    },
)


# -- unit_f1(active, true): (rows,), (rows,) bool -> scalar --------------------------------------


def _counts(active: Tensor, true: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (active & true).sum().float(), active.sum().float(), true.sum().float()


def _unit_f1(active: Tensor, true: Tensor) -> Tensor:
    both, fired, there = _counts(active, true)
    return 2 * both / (fired + there).clamp(min=1)


def _rates(active: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    both, fired, there = _counts(active, true)
    return both / fired.clamp(min=1), both / there.clamp(min=1)


_TRUE = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0, 0, 0]).bool()
_ACTIVE = torch.tensor([1, 1, 1, 0, 1, 0, 0, 0, 0, 0]).bool()

unit_f1 = Exercise(
    name="unit_f1",
    hint="A unit that is never active must get 0, one that is active exactly where it should, 1.",
    solution=_unit_f1,
    cases=[
        (torch.tensor([1, 1, 0, 0, 0]).bool(), torch.tensor([1, 0, 0, 0, 1]).bool()),
        (_ACTIVE.roll(1), _TRUE),
        (normal(60) > 1.0, normal(60) + normal(60, seed=1) > 0.2),
        (torch.zeros(6).bool(), _TRUE[:6]),
    ],
    mistakes={
        "accuracy instead of F1": (
            "Most positions are not red, so a unit that is never active is nearly always right.",
            "Leave out the rows where nothing is there and nothing was said.",
            lambda a, t: (a == t).float().mean(),
        ),
        "precision alone": (
            "A unit that fires once, and rightly, would be perfect.",
            "What was missed must count too: divide by |active| + |true|.",
            lambda a, t: _rates(a, t)[0],
        ),
        "recall alone": (
            "A unit that always fires would be perfect.",
            "What was said wrongly must count too: divide by |active| + |true|.",
            lambda a, t: _rates(a, t)[1],
        ),
        "mean of precision and recall": (
            "A unit that always fires would get more than one half for nothing.",
            "F1 is the harmonic mean: 2 |active and true| / (|active| + |true|).",
            lambda a, t: sum(_rates(a, t)) / 2,
        ),
        "intersection over union": (
            "That is a sound measure, and another one: it is never larger than F1.",
            "Divide twice the intersection by the sum of both sizes.",
            lambda a, t: (a & t).sum() / (a | t).sum().clamp(min=1),
        ),
        "factor 2 forgotten": (
            "A unit that is active exactly where it should be gets one half.",
            "Write 2 * both / (fired + there).",
            lambda a, t: _unit_f1(a, t) / 2,
        ),
        "0 divided by 0": (
            "Where nothing is active and nothing is there, both sizes are 0.",
            "Keep the divisor at 1 or more: .clamp(min=1).",
            lambda a, t: 2 * _rates(a, t)[0] * _rates(a, t)[1] / sum(_rates(a, t)),
        ),
    },
)
