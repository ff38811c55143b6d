"""What fitting makes small: hinge on the hardest negative, or InfoNCE; and how scores are compared.

He et al., arXiv 2305.10722: mean max(0, max_neg s - s_pos + margin), margin 0.1 in the released
code. InfoNCE over the candidates is *ours*. Scores differ by thousandths or by tens, as it happens,
so both losses read them in units of the *zero-shot spread*: the standard deviation among the
candidates of a decision, averaged over the few-shot set (*ours*).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LOSSES = ("hinge", "infonce")


def decisions(
    scores: Tensor, shape: tuple[int, int], correct: Sequence[int] | Tensor
) -> tuple[Tensor, Tensor]:
    """Return what is decided and what is right: (decisions, candidates) and (decisions,).

    scores (items, images * texts) as `evaluate_items` gives them, `shape` (images, texts) and
    `correct` (items,) as in `Task`. Items with one text or one image are one decision each; with
    two of both they are four: a text for each image, then an image for each text.
    Raises ValueError for scores that do not fit the shape.
    """
    images, texts = shape
    correct = torch.as_tensor(correct, device=scores.device)
    if scores.ndim != 2 or scores.shape != (len(correct), images * texts):
        raise ValueError(
            f"scores {tuple(scores.shape)}: need ({len(correct)} items, {images * texts} pairs)"
        )
    if 1 in shape:
        return scores, correct
    if shape != (2, 2):
        raise ValueError(f"items of {images} images x {texts} texts: need one of either, or 2 x 2")
    table = scores.view(-1, 2, 2)
    rows = torch.cat([table[:, 0], table[:, 1], table[:, :, 0], table[:, :, 1]])
    return rows, torch.cat([correct, 1 - correct, correct, 1 - correct])


def hinge(scores: Tensor, positive: Tensor, margin: float = 0.1) -> Tensor:
    """Return mean max(0, max_neg s - s_pos + margin) of (decisions, candidates), a scalar."""
    right = F.one_hot(positive, scores.shape[1]).bool()
    hardest = scores.masked_fill(right, -torch.inf).amax(1)
    return F.relu(hardest - scores[right] + margin).mean()


def infonce(scores: Tensor, positive: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean of -log softmax(scores / temperature) at the right candidate, a scalar."""
    return F.cross_entropy(scores / temperature, positive)


def loss_function(name: str, margin: float, temperature: float) -> Any:
    """Return a function (scores, positive) -> scalar. Raises ValueError for an unknown name."""
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}; choose one of {', '.join(LOSSES)}")
    if margin < 0 or temperature <= 0:
        raise ValueError(
            f"margin={margin}, temperature={temperature}: margin >= 0, temperature > 0"
        )
    if name == "hinge":
        return lambda scores, positive: hinge(scores, positive, margin)
    return lambda scores, positive: infonce(scores, positive, temperature)


def spread(scores: Tensor) -> float:
    """Return the standard deviation among candidates, averaged over (decisions, candidates)."""
    return float(scores.double().std(1).mean().clamp(min=1e-12))


def right(scores: Tensor, positive: Tensor) -> Tensor:
    """Return which decisions are right, (decisions,) bool; a tie is wrong."""
    rows = torch.arange(len(scores), device=scores.device)
    best = scores[rows, positive]
    others = scores.masked_fill(F.one_hot(positive, scores.shape[1]).bool(), -torch.inf)
    return best > others.amax(1)


def headline(items: Any, scores: Tensor) -> float:
    """Return the accuracy that counts for the task: "group" for 2 x 2 items, else "accuracy"."""
    found = items.accuracy(scores.flatten())
    return float(found["group" if "group" in found else "accuracy"].mean())
