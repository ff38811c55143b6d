"""The exercise on how well an order is found (notebook 05)."""

from __future__ import annotations

import torch
from torch import Tensor

from dsd_tutorial.course.checks.exercise import Exercise

# -- ranks_agree(predicted, true, kinds): (images,) three times -> () ------------------------------


def _ranks(x: Tensor) -> Tensor:
    return x.argsort().argsort().double()


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    return torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1]


def _by_kind(agree, predicted: Tensor, true: Tensor, kinds: Tensor) -> Tensor:
    return torch.stack([
        agree(predicted[kinds == kind], true[kinds == kind]) for kind in kinds.unique()
    ]).mean()  # fmt: skip


def _spearman(a: Tensor, b: Tensor) -> Tensor:
    return _pearson(_ranks(a), _ranks(b))


def _case(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Strengths, a bent and noisy prediction of them that is shifted by kind, and uneven kinds."""
    numbers = torch.Generator().manual_seed(seed)
    true = torch.rand(n, generator=numbers)
    kinds = (3 * torch.rand(n, generator=numbers) ** 2).long()
    noise = 0.5 * torch.randn(n, generator=numbers)
    return (3 * true + noise).exp() - 5.0 * kinds, true, kinds


ranks_agree = Exercise(
    name="ranks_agree",
    hint="Replace the numbers of a kind by their ranks, then correlate as usual.",
    solution=lambda predicted, true, kinds: _by_kind(_spearman, predicted, true, kinds),
    cases=[
        (
            torch.tensor([0.1, 0.2, 0.9, 5.0, 7.0, 6.0]),
            torch.tensor([0.2, 0.5, 0.9, 0.1, 0.8, 0.4]),
            torch.tensor([0, 0, 0, 1, 1, 1]),
        ),
        _case(40, 0),
        _case(60, 1),
    ],
    mistakes={
        "all kinds in one order": (
            "How strong a blur equals how much noise is a matter of definition, not of the method.",
            "Take the images of one kind at a time, and average what you find.",
            lambda p, t, k: _spearman(p, t),
        ),
        "ranks over all images, kinds afterwards": (
            "A rank among all images is no rank within a kind: its steps are uneven.",
            "Pick the images of a kind first, then rank them.",
            lambda p, t, k: _by_kind(_pearson, _ranks(p), _ranks(t), k),
        ),
        "numbers in place of ranks": (
            "A prediction that is bent but in the right order should reach 1.",
            "Rank both: x.argsort().argsort().",
            lambda p, t, k: _by_kind(_pearson, p, t, k),
            lambda p, t, k: _pearson(p, t),
        ),
        "argsort is not yet a rank": (
            "argsort says which image comes first, then second; a rank says where an image comes.",
            "Apply argsort twice.",
            lambda p, t, k: _by_kind(
                lambda a, b: _pearson(a.argsort().double(), b.argsort().double()), p, t, k
            ),
        ),
        "kinds weigh by their number of images": (
            "Then the commonest kind decides.",
            "Average the correlations of the kinds with equal weights.",
            lambda p, t, k: sum(
                _spearman(p[k == i], t[k == i]) * (k == i).double().mean() for i in k.unique()
            ),
        ),
        "one kind only": (
            "The result must speak for every kind.",
            "Average over kinds.unique().",
            lambda p, t, k: _spearman(p[k == 0], t[k == 0]),
        ),
    },
)  # fmt: skip
