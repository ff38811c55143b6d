"""What needs no label at all: random scores, and CLIP's cosine."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.matching.baselines.features import clip_embeddings, rows_of
from dsd_tutorial.matching.baselines.method import Method
from dsd_tutorial.shapes.tasks import Task


class Random(Method):
    """Scores that say nothing: a hash of (seed, picture, text), so that a pair keeps its score.

    It stays the same in another batch, at another place in its item, on another machine.
    """

    name = "random"

    def _score(self, model: Any, items: Task, seed: int, progress: bool) -> Tensor:
        pairs = ((s, t) for item in items.items for s in item.images for t in item.texts)
        return torch.tensor([_uniform(f"{seed}|{s!r}|{t}") for s, t in pairs])


def _uniform(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


class ClipZeroShot(Method):
    """cos(W_i f_i, W_t h), as CLIP was trained (Radford et al., arXiv 2103.00020)."""

    name = "clip"

    def _score(self, model: Any, items: Task, seed: int, progress: bool) -> Tensor:
        images, texts = clip_embeddings(model, items)
        image, text = rows_of(items, images.device)
        return (images[image] * texts[text]).sum(-1)
