"""The exercise on information maps (notebook 05): an integral from levels drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.course.checks.exercise import Exercise, normal

# nats_map(without, under, density): (levels, channels, h, w) twice, (levels,) -> (h, w)


def _case(levels: int, channels: int, side: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    shape = (levels, channels, side, side)
    density = 0.02 + 0.2 * normal(levels, seed=seed + 2).sigmoid()
    return normal(*shape, seed=seed), normal(*shape, seed=seed + 1), density


def _map(
    weigh: Callable[[Tensor, Tensor], Tensor], half: float = 0.5
) -> Callable[[Any, Any, Any], Tensor]:
    """Return a version that pools (levels, h, w) and (levels, 1, 1) by `weigh`."""

    def version(without: Tensor, under: Tensor, density: Tensor) -> Tensor:
        squares = (without - under).square().sum(1)
        return half * weigh(squares, density[:, None, None])

    return version


def _of_other_squares(pool: Callable[[Tensor], Tensor]) -> Callable[[Any, Any, Any], Tensor]:
    """Return a version that makes (levels, h, w) of the difference by `pool`."""
    return lambda a, b, p: 0.5 * (pool(a - b) / p[:, None, None]).mean(0)


nats_map = Exercise(
    name="nats_map",
    hint="Where levels are drawn densely, each must count less; and each of n draws counts 1 / n.",
    solution=_map(lambda squares, p: (squares / p).mean(0)),
    cases=[
        (
            torch.tensor([[[[1.0]], [[0.0]]], [[[2.0]], [[1.0]]]]),
            torch.tensor([[[[0.0]], [[2.0]]], [[[0.0]], [[1.0]]]]),
            torch.tensor([0.1, 0.2]),
        ),
        _case(5, 4, 3, seed=0),
        _case(8, 2, 4, seed=10),
    ],
    mistakes={
        "weighted by the density": (
            "Then levels that are drawn often count twice over: once by being drawn, once more.",
            "Divide by the density.",
            _map(lambda squares, p: (squares * p).mean(0)),
            _map(lambda squares, p: (squares * p / p.sum()).sum(0)),
        ),
        "not weighted at all": (
            "A plain mean is the integral of the integrand times the density, in other units.",
            "Divide each level's squares by its density before the mean.",
            _map(lambda squares, p: squares.mean(0)),
        ),
        "sum over the draws": (
            "The estimate would double with twice as many draws.",
            "Take the mean over the levels.",
            _map(lambda squares, p: (squares / p).sum(0)),
        ),
        "weights that sum to one": (
            "Nats are an integral over the whole range of log-SNR, and its width counts.",
            "Divide by the density alone; do not normalise the weights.",
            _map(lambda squares, p: (squares / p).sum(0) / (1 / p).sum()),
        ),
        "one half forgotten": (
            "The formula has 1/2 before the integral.",
            "Multiply by one half.",
            _map(lambda squares, p: (squares / p).mean(0), half=1.0),
        ),
        "mean over the channels": (
            "What each channel adds is added: information is a sum over them.",
            "Sum over the channels, dim 1.",
            _of_other_squares(lambda gap: gap.square().mean(1)),
        ),
        "norm instead of its square": (
            "Norms are what DSD's error term takes. Nats need squares.",
            "Square the difference, then sum over the channels; no root.",
            _of_other_squares(lambda gap: gap.square().sum(1).sqrt()),
            _of_other_squares(lambda gap: gap.abs().sum(1)),
        ),
        "a total instead of a map": (
            "Each place of the latents has its own nats.",
            "Sum over the channels, dim 1, and keep height and width.",
            lambda a, b, p: 0.5 * ((a - b).square().flatten(1).sum(1) / p).mean(),
        ),
        "difference of squares": (
            "The squares of two predictions do not say how far they lie apart.",
            "Take the difference of the predictions first, then square it.",
            lambda a, b, p: 0.5 * ((a**2 - b**2).sum(1) / p[:, None, None]).mean(0),
            lambda a, b, p: 0.5 * ((b**2 - a**2).sum(1) / p[:, None, None]).mean(0),
        ),
    },
)
