"""Boxes: left, top, right, bottom as fractions of the image, y downwards; what they share."""

from __future__ import annotations

from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Boxes = Float[Tensor, "boxes 4"]


def check_boxes(boxes: Tensor) -> Boxes:
    """Return `boxes` as float32 after checking that each is one inside the image.

    Raises:
        ValueError: Not (boxes, 4), none at all, or sides that do not lie in [0, 1] in order.
    """
    if boxes.dim() != 2 or boxes.shape[1] != 4 or not len(boxes):
        raise ValueError(f"boxes of shape {tuple(boxes.shape)}: need (boxes, 4), at least one")
    boxes = boxes.float()
    left, top, right, bottom = boxes.unbind(1)
    good = (left >= 0) & (top >= 0) & (right <= 1) & (bottom <= 1) & (left < right) & (top < bottom)
    if not bool(good.all()):  # NaN is not good either
        raise ValueError(
            f"box {boxes[~good][0].tolist()}: need left < right and top < bottom in [0, 1]; "
            "divide pixels by the image's width and height"
        )
    return boxes


def area(boxes: Boxes) -> Float[Tensor, " boxes"]:
    """Return the share of the image that each box covers."""
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)


def iou(a: Float[Tensor, "a 4"], b: Float[Tensor, "b 4"]) -> Float[Tensor, "a b"]:
    """Return the intersection over the union of each box of `a` with each of `b`, in [0, 1]."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])  # (a, b, 2)
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / (area(a)[:, None] + area(b)[None] - shared)


def pixel_boxes(boxes: Boxes, height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Return (left, top, right, bottom) in whole pixels, each box at least one pixel a side."""
    sides = boxes.cpu() * torch.tensor([width, height, width, height])
    found = []
    for left, top, right, bottom in sides.round().int().tolist():
        left, top = min(left, width - 1), min(top, height - 1)
        found.append((left, top, max(right, left + 1), max(bottom, top + 1)))
    return found


def box_masks(boxes: Boxes, height: int, width: int) -> Bool[Tensor, "boxes {height} {width}"]:
    """Return which pixels lie in each box."""
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(
        masks, pixel_boxes(boxes, height, width), strict=True
    ):
        mask[top:bottom, left:right] = True
    return masks.to(boxes.device)


def pair_masks(boxes: Boxes, height: int, width: int) -> Bool[Tensor, "pairs {height} {width}"]:
    """Return which pixels lie in one of two boxes, for each of `combinations` of two."""
    inside = box_masks(boxes, height, width)
    return torch.stack([a | b for a, b in combinations(inside, 2)])
