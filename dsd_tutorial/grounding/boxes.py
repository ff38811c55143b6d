"""Boxes: left, top, right, bottom as fractions of the image, y downwards; those that are proposed.

A phrase chooses among boxes. With the things' own come *distractors*, so that a method has to find
the right thing and the right extent: a box moved by half its side, one too small or too large, and
one around two things. `detect` and `grid_boxes` know nothing of words or of the scene.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

Boxes = Float[Tensor, "boxes 4"]
SCALES = (0.6, 1.7)  # of a side; the overlap with the true box is about a third
CONTRAST = 0.25  # RGB distance from the background at which a pixel belongs to something
SPECK = 0.004  # of the image; smaller regions are noise


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


def propose(boxes: Boxes, seed: int = 0) -> Float[Tensor, "proposals 4"]:
    """Return the boxes, and behind them one of every kind of distractor.

    Kinds: a box moved by half its side, a box scaled by one of `SCALES`, the box around two
    (left out where there is only one). Which boxes they come from is drawn by `seed`.

    Raises:
        ValueError: Boxes are not in [0, 1].
    """
    boxes = check_boxes(boxes)
    rng, rows = random.Random(seed), boxes.tolist()
    found = [_moved(rng, rng.choice(rows)), _scaled(rng, rng.choice(rows))]
    if len(rows) > 1:
        a, b = rng.sample(rows, 2)
        found.append([min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])])
    return torch.cat([boxes, boxes.new_tensor(found)])


def _moved(rng: random.Random, box: Sequence[float]) -> list[float]:
    """The box, moved by half its side along an axis, to where there is more room."""
    axis = rng.randrange(2)
    low, high = box[axis], box[axis + 2]
    step = (high - low) / 2 if 1 - high > low else (low - high) / 2
    moved = list(box)
    moved[axis], moved[axis + 2] = max(0.0, low + step), min(1.0, high + step)
    return moved


def _scaled(rng: random.Random, box: Sequence[float]) -> list[float]:
    scale = rng.choice(SCALES)
    sides = []
    for low, high in ((box[0], box[2]), (box[1], box[3])):
        middle, half = (low + high) / 2, scale * (high - low) / 2
        sides.append((max(0.0, middle - half), min(1.0, middle + half)))
    (left, right), (top, bottom) = sides
    return [left, top, right, bottom]


def border_color(image: Float[Tensor, "3 height width"]) -> Float[Tensor, 3]:
    """Return the median colour of the outermost two pixels: the background, where it is plain."""
    edge = torch.ones(image.shape[-2:], dtype=torch.bool)
    edge[2:-2, 2:-2] = False
    return image[:, edge.to(image.device)].median(1).values


def detect(image: Float[Tensor, "3 height width"]) -> Float[Tensor, "regions 4"]:
    """Return the boxes of connected regions that differ from the background, the largest first.

    The background is the median colour of the image's border. Where nothing stands out, the whole
    image, in [0, 1], is the only box.
    """
    from scipy import ndimage

    distance = (image - border_color(image)[:, None, None]).norm(dim=0).cpu().numpy()
    labels = np.zeros(distance.shape, dtype=np.int32)
    ndimage.label(distance > CONTRAST, structure=np.ones((3, 3)), output=labels)
    height, width = distance.shape
    sizes, boxes = np.bincount(labels.ravel())[1:], []
    for size, (rows, columns) in zip(sizes, ndimage.find_objects(labels), strict=True):
        if size >= SPECK * distance.size:
            box = columns.start / width, rows.start / height, columns.stop / width
            boxes.append((int(size), [*box, rows.stop / height]))
    ordered = [box for _, box in sorted(boxes, key=lambda one: -one[0])]
    return torch.tensor(ordered or [[0.0, 0.0, 1.0, 1.0]], dtype=torch.float32)


def grid_boxes(
    sides: Sequence[float] = (0.25, 0.35, 0.45), stride: float = 0.125
) -> Float[Tensor, "cells 4"]:
    """Return square boxes of each side at places `stride` apart, all over the image.

    Raises:
        ValueError: A side or the stride is not in (0, 1].
    """
    wrong = [value for value in (*sides, stride) if not 0 < value <= 1]
    if wrong or not sides:
        raise ValueError(f"sides {tuple(sides)}, stride {stride}: need numbers in (0, 1]")
    found = []
    for side in sides:
        number = max(1, round((1 - side) / stride) + 1)
        starts = torch.linspace(0, 1 - side, number, dtype=torch.float64)
        corner = torch.cartesian_prod(starts, starts).flip(1)  # row by row
        found.append(torch.cat([corner, corner + side], dim=1))
    return torch.cat(found).clamp(0, 1).float()
