"""How far apart the scores of two candidates lie, time step by time step: what `rank` knows.

Learned on items that were scored in full, best those of a validation split. Which of two candidates
comes first is arbitrary, so the difference of their scores has mean zero; its covariance over the
time steps says how much of the final difference is known after some of them (*ours*).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.matching.parts import Components


@dataclass(frozen=True)
class Spreads:
    """The covariance over time steps of the difference of two candidates' scores.

    Attributes:
        steps: The time steps.
        covariance: Of the differences.
        items: How many items it was learned from.
    """

    steps: tuple[int, ...]
    covariance: Float[Tensor, "steps steps"]
    items: int

    def order(self) -> list[int]:
        """Return the places of the time steps, most informative first.

        Each next one leaves the least variance of the final difference.
        """
        seen: list[int] = []
        while len(seen) < len(self.steps):
            left = [i for i in range(len(self.steps)) if i not in seen]
            seen.append(min(left, key=lambda i: self.forecast([*seen, i])[1]))
        return seen

    def forecast(self, seen: Sequence[int]) -> tuple[Float[Tensor, " seen"], float]:
        """Return how the time steps seen predict the sum over all, and the standard deviation left.

        The sum of a difference d over all time steps is `weights @ d[seen]` plus a Gaussian.
        """
        seen = list(seen)
        left = [i for i in range(len(self.steps)) if i not in seen]
        c = self.covariance.double()
        gain = torch.linalg.solve(c[seen][:, seen], c[seen][:, left])  # (seen, left)
        variance = (c[left][:, left] - c[left][:, seen] @ gain).sum()
        return 1 + gain.sum(1), float(variance.clamp(min=0).sqrt())


def learn_spreads(scores: Float[Tensor, "items candidates steps"], steps: Sequence[int]) -> Spreads:
    """Return the spreads of the candidates of some items.

    Args:
        scores: By time step, as `item_scores` gives them.
        steps: The time steps.

    Raises:
        ValueError: fewer differences than time steps, or a score that is not finite.
    """
    items, candidates, number = scores.shape
    if items * (candidates - 1) < number or not bool(scores.isfinite().all()):
        raise ValueError(
            f"{items} items of {candidates} candidates at {number} time steps: spreads need at "
            f"least {-(-number // max(1, candidates - 1))} items, all of them scored in full"
        )
    centred = (scores - scores.mean(1, keepdim=True)).double().flatten(0, 1)
    covariance = 2 * centred.T @ centred / (items * (candidates - 1))
    ridge = 1e-6 * covariance.diagonal().mean() * torch.eye(number, dtype=torch.float64)
    return Spreads(tuple(steps), covariance + ridge, items)


def item_scores(
    parts: Components, candidates: int, **weights: Any
) -> Float[Tensor, "items candidates steps"]:
    """Return the scores by time step of components whose pairs go item by item.

    `weights` are those of `Components.score`.
    """
    table = parts.by_step(**weights)
    return table.view(-1, candidates, table.shape[1])
