"""What the CLIP baselines share: unit embeddings, pair features, right answers, loss and merit."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dsd_tutorial.shapes.tasks import Task


@torch.no_grad()
def clip_embeddings(model: Any, items: Task) -> tuple[Tensor, Tensor]:
    """Return unit-length (scenes, d) of the pictures and (texts, d) of the texts of `items`."""
    return clip_image_embeddings(model, items), clip_text_embeddings(model, items.texts)


@torch.no_grad()
def clip_image_embeddings(model: Any, items: Task) -> Tensor:
    """Return W_i f_i of `items.scenes` at unit length, (scenes, d)."""
    pictures = items.images(model.resolution)
    return F.normalize(model.encode_clip_image(pictures).embedding, dim=-1)


def clip_text_embeddings(model: Any, texts: tuple[str, ...], batch_size: int = 256) -> Tensor:
    """Return W_t h of each text at unit length, (texts, d); gradients flow if they are on."""
    parts = [
        model.encode_clip_text(texts[i : i + batch_size]) for i in range(0, len(texts), batch_size)
    ]
    return F.normalize(torch.cat(parts), dim=-1)


def towers(model: Any) -> Any:
    """Return CLIP's two towers; where there are none, raises the model's own ValueError."""
    if model.clip is None:
        model.encode_clip_text([""])
    return model.clip


def rows_of(items: Task, device: Any = "cpu") -> tuple[Tensor, Tensor]:
    """Return (image index, text index) of every pair, each (items, images * texts)."""
    shape = (len(items.items), -1)
    image, text = (torch.from_numpy(index).view(shape).to(device) for index in items.pairs())
    return image, text


def pair_features(model: Any, items: Task) -> Tensor:
    """Return [f_i * f_t elementwise, |f_i - f_t|] of every pair, (items, images * texts, 2 d).

    f_i and f_t are CLIP's unit embeddings. *Ours*: the published adapters classify images into
    fixed classes, here a pair is classified as a match or not.
    """
    images, texts = clip_embeddings(model, items)
    image, text = rows_of(items, images.device)
    f_i, f_t = images[image], texts[text]
    return torch.cat([f_i * f_t, (f_i - f_t).abs()], dim=-1)


def matches(items: Task) -> Tensor:
    """Return which pairs belong together, (items, images * texts), bool."""
    images, texts = items.shape
    correct = torch.tensor([item.correct for item in items.items])
    if (images, texts) != (2, 2):
        return F.one_hot(correct, images * texts).bool()
    first = F.one_hot(correct, 2).bool()  # the text of image 0
    return torch.cat([first, ~first], dim=1)


def decision_loss(scores: Tensor, items: Task) -> Tensor:
    """Return the mean cross-entropy of the right decision; scores (items, images * texts).

    Two images and two texts make four decisions: each image's text and each text's image.
    """
    correct = torch.tensor([item.correct for item in items.items], device=scores.device)
    if items.shape != (2, 2):
        return F.cross_entropy(scores, correct)
    table = scores.view(-1, 2, 2)  # (items, images, texts)
    parts = [
        F.cross_entropy(table[:, 0], correct), F.cross_entropy(table[:, 1], 1 - correct),
        F.cross_entropy(table[:, :, 0], correct), F.cross_entropy(table[:, :, 1], 1 - correct),
    ]  # fmt: skip
    return torch.stack(parts).mean()


def merit(scores: Tensor, items: Task) -> tuple[float, float]:
    """Return (accuracy, margin), by which settings are compared on validation items.

    Accuracy is the mean over the task's measures. The margin, matches minus others in units of the
    scores' spread within an item, decides between settings that are right equally often (*ours*).
    """
    scores = scores.detach().double().cpu().view(len(items.items), -1)
    reached = items.accuracy(scores.flatten())
    value = sum(float(hit.mean()) for hit in reached.values()) / len(reached)
    right = matches(items)
    centred = scores - scores.mean(dim=1, keepdim=True)
    gap = centred[right].mean() - centred[~right].mean()
    return value, float(gap / centred.std().clamp_min(1e-12))
