"""What fitting makes small: hinge on the hardest negative, or InfoNCE.

He et al., arXiv 2305.10722: mean max(0, max_neg s - s_pos + margin), margin 0.1 in the released
code. InfoNCE over the candidates is *ours*. Scores differ by thousandths or by tens, as it happens,
so both losses read them in units of the *zero-shot spread*: the standard deviation among the
candidates of a decision, averaged over the few-shot set (*ours*).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dsd_tutorial.matching.items import correct_of, decisions, item_hits
from dsd_tutorial.shapes.tasks import Task

Objective = Callable[[Tensor, Tensor], Tensor]  # (scores, positive) -> scalar


def hinge(
    scores: Float[Tensor, "decisions candidates"],
    positive: Int[Tensor, " decisions"],
    margin: float = 0.1,
) -> Float[Tensor, ""]:
    """Return mean max(0, max_neg s - s_pos + margin)."""
    right = F.one_hot(positive, scores.shape[1]).bool()
    hardest = scores.masked_fill(right, -torch.inf).amax(1)
    return F.relu(hardest - scores[right] + margin).mean()


def infonce(
    scores: Float[Tensor, "decisions candidates"], positive: Int[Tensor, " decisions"]
) -> Float[Tensor, ""]:
    """Return the mean of -log softmax(scores) at the right candidate."""
    return F.cross_entropy(scores, positive)


def loss_function(name: str, margin: float) -> Objective:
    """Return `hinge` with this margin, or `infonce`. Raises ValueError for other values."""
    known = {"hinge": partial(hinge, margin=margin), "infonce": infonce}
    if name not in known:
        raise ValueError(f"unknown loss {name!r}; choose one of {', '.join(known)}")
    if margin < 0:
        raise ValueError(f"margin={margin}: must be >= 0")
    return known[name]


def spread(scores: Float[Tensor, "decisions candidates"]) -> float:
    """Return the standard deviation among candidates, averaged over decisions."""
    return float(scores.double().std(1).mean().clamp(min=1e-12))


def right(
    scores: Float[Tensor, "decisions candidates"], positive: Int[Tensor, " decisions"]
) -> Bool[Tensor, " decisions"]:
    """Return which decisions are right; a tie is wrong."""
    rows = torch.arange(len(scores), device=scores.device)
    best = scores[rows, positive]
    others = scores.masked_fill(F.one_hot(positive, scores.shape[1]).bool(), -torch.inf)
    return best > others.amax(1)


def headline(items: Task, scores: Float[Tensor, "items pairs"]) -> float:
    """Return the accuracy that counts for the task: "group" for 2 x 2 items, else "accuracy"."""
    return float(item_hits(items, scores).mean())


def judge(
    items: Task, scores: Float[Tensor, "items pairs"], scale: float | None = None
) -> tuple[float, float]:
    """Return the task's accuracy and the InfoNCE loss of its scores.

    `scale` is the spread that the loss divides by; None is the scores' own.
    """
    rows, positive = decisions(scores, items.shape, correct_of(items))
    return headline(items, scores), float(infonce(rows / (scale or spread(rows)), positive))
