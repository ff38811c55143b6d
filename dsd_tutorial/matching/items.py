"""The items of a task and their scores: which pairs there are, what is decided, what is right.

Scores of a task's items are (items, images * texts), image by image, then text by text. Items with
one text or one image are one decision each. Items of two images and two texts are four: a text for
each image, then an image for each text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from dsd_tutorial.shapes.tasks import Task


def item_pairs(items: Task) -> Int[Tensor, "items candidates 2"]:
    """Return the scene and text index of every pair of a task's items."""
    return torch.from_numpy(np.stack(items.pairs(), axis=1)).view(len(items.items), -1, 2)


def correct_of(items: Task) -> Int[Tensor, " items"]:
    """Return the index of the right candidate of each item."""
    return torch.tensor([item.correct for item in items.items])


def decisions(
    scores: Num[Tensor, "items pairs"],
    shape: tuple[int, int],
    correct: Sequence[int] | Int[Tensor, " items"],
) -> tuple[Num[Tensor, "decisions candidates"], Int[Tensor, " decisions"]]:
    """Return the scores of the candidates of each decision, and the index of the right one.

    Args:
        scores: As `evaluate_items` gives them.
        shape: (images, texts) of an item, as in `Task`.
        correct: As in `Task`.

    Raises:
        ValueError: scores that do not fit the shape.
    """
    images, texts = shape
    correct = torch.as_tensor(correct, device=scores.device)
    if scores.shape != (len(correct), images * texts):
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


def item_hits(items: Task, scores: Tensor) -> np.ndarray:
    """Return which items are right, (items,): by "group" for 2 x 2 items, else by "accuracy"."""
    found = items.accuracy(scores.flatten())
    return found["group" if "group" in found else "accuracy"]


def matches(items: Task) -> Bool[Tensor, "items pairs"]:
    """Return which pairs belong together."""
    images, texts = items.shape
    correct = correct_of(items)
    if (images, texts) != (2, 2):
        return F.one_hot(correct, images * texts).bool()
    first = F.one_hot(correct, 2).bool()  # the text of image 0
    return torch.cat([first, ~first], dim=1)


def decision_loss(scores: Float[Tensor, "items pairs"], items: Task) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of the right decisions."""
    rows, correct = decisions(scores, items.shape, correct_of(items))
    kinds = zip(rows.split(len(scores)), correct.split(len(scores)), strict=True)
    return torch.stack([F.cross_entropy(*kind) for kind in kinds]).mean()


def merit(scores: Float[Tensor, "*shape"], items: Task) -> tuple[float, float]:
    """Return (accuracy, margin), by which settings are compared on validation items.

    Accuracy is the mean over the task's measures. The margin, matches minus others in units of the
    scores' spread within an item, decides between settings that are right equally often (*ours*).
    `scores` are one per row of `items.pairs()`, in any shape.
    """
    scores = scores.detach().double().cpu().view(len(items.items), -1)
    reached = items.accuracy(scores.flatten())
    value = sum(float(hit.mean()) for hit in reached.values()) / len(reached)
    right = matches(items)
    centred = scores - scores.mean(dim=1, keepdim=True)
    gap = centred[right].mean() - centred[~right].mean()
    return value, float(gap / centred.std().clamp_min(1e-12))
