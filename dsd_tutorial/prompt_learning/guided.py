"""Weights without training: one gradient says which heads the labels speak for.

Weight of a head = positive part of (gradient x attention): how much the loss would fall if the head
counted more, as He et al., arXiv 2305.10722, guide by gradients; the exact form is *ours*.
"""

from __future__ import annotations

from typing import Any

import torch

from dsd_tutorial.matching.parts import Components
from dsd_tutorial.prompt_learning.objectives import decisions, infonce, spread
from dsd_tutorial.prompt_learning.scoring import Scoring, item_components, table_of
from dsd_tutorial.prompt_learning.weights import HeadWeights


def gradient_guided(
    model: Any,
    items: Any,
    scoring: Scoring | None = None,
    *,
    over: tuple[str, ...] = ("layer", "head"),
    error: bool = False,
    parts: Components | None = None,
    progress: bool = True,
) -> HeadWeights:
    """Return `HeadWeights` set by one gradient on the labelled `items`, nothing else.

    Each group of components is standardised; d loss / d component x component is summed over the
    candidates of a decision first, so that what candidates share cancels, then over decisions, and
    its positive part is the weight. Where no group speaks for the labels the plain average stays.
    `parts` are components of `items` computed before.
    """
    scoring = scoring or Scoring()
    adapter = HeadWeights(model, scoring, over=over, kind="signed", error=error)
    if parts is None:
        parts = item_components(model, items, adapter, scoring, progress=progress)
    table, errors = table_of(parts, scoring), parts.errors
    adapter.calibrate(table, errors, items, scoring)
    correct = [item.correct for item in items.items]
    scores = adapter.pool(table, errors, scoring)
    rows, positive = decisions(scores.view(len(correct), -1), items.shape, correct)
    # the score is linear in the weights: d loss / d theta is gradient x component, summed
    gradients = torch.autograd.grad(
        infonce(rows / spread(rows.detach()), positive), adapter.learned()
    )
    gains = [(-g).clamp(min=0) for g in gradients]
    total = sum(float(g.sum()) for g in gains)
    if total > 0:
        with torch.no_grad():
            adapter.theta.copy_(gains[0] / total - 1 / adapter.unit)
            if error:
                fixed = scoring.error_weight / adapter.unit_error
                adapter.theta_error.copy_(gains[1] / total - fixed)
    return adapter
