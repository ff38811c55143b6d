"""Labelled rows of features: exact masks say what lies where.

What lies at a thing has the thing's shape and colour and, in a scene of two, its relation to the
other. What lies at no thing has the background. A row is either a *region*, the mean over a whole
mask, or a *position* of the block: one that a thing covers by half or more is the thing's, one that
no thing touches the background's, and those on an edge belong to nobody and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from dsd_tutorial.shapes import BACKGROUNDS, COLORS, RELATIONS, SHAPES, Scene, render
from dsd_tutorial.shapes.scene import INVERSE

VALUES = (
    *(("shape", value) for value in SHAPES),
    *(("color", value) for value in COLORS),
    *(("relation", value) for value in RELATIONS),
    *(("background", value) for value in BACKGROUNDS),
)
OWN = 0.5  # share of a position from which on it is a thing's
FREE = 0.02  # share up to which it is the background's


@dataclass(frozen=True)
class Places:
    """Labelled rows: features, what is true of each, and which scene it lies in."""

    features: Float[Tensor, "rows width"]
    labels: Bool[Tensor, "rows values"]  # one column for each of `VALUES`
    scene: Int64[Tensor, " rows"]


def facts(scene: Scene) -> Bool[Tensor, "regions values"]:
    """Return what is true of each thing of a scene and, in the last row, of its background."""
    rows = torch.zeros(len(scene.things) + 1, len(VALUES), dtype=torch.bool)
    for i, thing in enumerate(scene.things):
        relation = scene.relation if i == 0 else INVERSE.get(scene.relation or "")
        said = (("shape", thing.shape), ("color", thing.color), ("relation", relation))
        for fact in said:
            if fact in VALUES:
                rows[i, VALUES.index(fact)] = True
    rows[-1, VALUES.index(("background", scene.background))] = True
    return rows


def label_regions(
    scenes: Sequence[Scene], features: Float[Tensor, "scenes regions width"]
) -> Places:
    """Return the things and backgrounds of scenes, with their labels.

    Args:
        scenes: As many as there are rows of features, each with one or two things.
        features: Of kind "regions", from `collect`.

    Raises:
        ValueError: Another number of scenes.
    """
    _check(scenes, features)
    rows, labels, where = [], [], []
    for number, scene in enumerate(scenes):
        own = [*range(len(scene.things)), features.shape[1] - 1]
        rows.append(features[number, own])
        labels.append(facts(scene))
        where += [number] * len(own)
    return Places(torch.cat(rows), torch.cat(labels), torch.tensor(where))


def label_positions(
    scenes: Sequence[Scene], features: Float[Tensor, "scenes places width"]
) -> Places:
    """Return the positions that are clearly a thing's or clearly background, with their labels.

    As `label_regions`, of features of kind "positions".

    Raises:
        ValueError: Positions that form no square, or another number of scenes.
    """
    _check(scenes, features)
    side = round(features.shape[1] ** 0.5)
    if side**2 != features.shape[1]:
        raise ValueError(f"{features.shape[1]} positions form no square: give kind 'positions'")
    share = F.adaptive_avg_pool2d(render(scenes)[1].float(), side).flatten(2)
    labels = torch.zeros(*features.shape[:2], len(VALUES), dtype=torch.bool)
    for number, scene in enumerate(scenes):
        own = share[number, : len(scene.things)] >= OWN  # (things, places)
        free = share[number].sum(0, keepdim=True) <= FREE
        labels[number] = (torch.cat([own, free]).float().T @ facts(scene).float()) > 0
    known = labels.any(-1)
    row = torch.arange(len(scenes))[:, None].expand_as(known)
    return Places(features[known], labels[known], row[known])


def _check(scenes: Sequence[Scene], features: Tensor) -> None:
    if len(scenes) != len(features) or len(scenes) == 0:
        raise ValueError(
            f"features {tuple(features.shape)} for {len(scenes)} scenes: give a row for each"
        )
