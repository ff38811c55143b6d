"""Proposals: the boxes among which a phrase chooses.

With the things' own boxes come *distractors*, so that a method has to find the right thing and the
right extent: a box moved by half its side, one too small or too large, and one around two things.
`detect` and `grid_boxes` know nothing of words or of the scene.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.grounding.boxes import Boxes, check_boxes

SCALES = (0.6, 1.7)  # of a side; the overlap with the true box is about a third
CONTRAST = 0.25  # RGB distance from the background at which a pixel belongs to something
SPECK = 0.004  # of the image; smaller regions are noise


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
