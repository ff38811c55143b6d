"""CLIP's cosine, the first baseline, and the embeddings that other baselines learn on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.matching.baselines.method import Method
from dsd_tutorial.matching.items import item_pairs
from dsd_tutorial.shapes.tasks import Task


def towers(model: Any) -> Any:
    """Return CLIP's two towers; where there are none, raises the model's own ValueError."""
    if model.clip is None:
        model.encode_clip_text([""])
    return model.clip


@torch.no_grad()
def clip_image_embeddings(model: Any, items: Task) -> Float[Tensor, "scenes width"]:
    """Return W_i f_i of `items.scenes` at unit length."""
    return F.normalize(model.encode_clip_image(items.images(model.resolution)).embedding, dim=-1)


def clip_text_embeddings(model: Any, texts: Sequence[str]) -> Float[Tensor, "texts width"]:
    """Return W_t h of each text at unit length; gradients flow if they are on."""
    parts = [model.encode_clip_text(texts[i : i + 256]) for i in range(0, len(texts), 256)]
    return F.normalize(torch.cat(parts), dim=-1)


def pair_embeddings(
    images: Float[Tensor, "scenes width"], texts: Float[Tensor, "texts width"], items: Task
) -> tuple[Float[Tensor, "items pairs width"], Float[Tensor, "items pairs width"]]:
    """Return the embedding of the image, and of the text, of every pair of `items`."""
    image, text = item_pairs(items).to(images.device).unbind(-1)
    return images[image], texts[text]


def cosines(
    images: Float[Tensor, "scenes width"], texts: Float[Tensor, "texts width"], items: Task
) -> Float[Tensor, "items pairs"]:
    """Return the cosine of every pair of `items`, from unit embeddings."""
    f_i, f_t = pair_embeddings(images, texts, items)
    return (f_i * f_t).sum(-1)


@torch.no_grad()
def pair_features(model: Any, items: Task) -> Float[Tensor, "items pairs features"]:
    """Return [f_i * f_t elementwise, |f_i - f_t|] of every pair, from unit embeddings.

    *Ours*: the published adapters classify images into fixed classes, here a pair is classified as
    a match or not.
    """
    images, texts = clip_image_embeddings(model, items), clip_text_embeddings(model, items.texts)
    f_i, f_t = pair_embeddings(images, texts, items)
    return torch.cat([f_i * f_t, (f_i - f_t).abs()], dim=-1)


class ClipZeroShot(Method):
    """cos(W_i f_i, W_t h), as CLIP was trained (Radford et al., arXiv 2103.00020)."""

    name = "clip"

    def _score(self, model: Any, items: Task, seed: int, progress: bool) -> Tensor:
        texts = clip_text_embeddings(model, items.texts)
        return cosines(clip_image_embeddings(model, items), texts, items)
