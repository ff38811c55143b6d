"""Labelled positions: exact masks say what lies at each position of a block.

A position that a thing covers by half or more has the thing's shape and colour and, in a scene of
two, its relation to the other. One that no thing touches has the background. Positions on an edge
belong to nobody and are left out.
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
    """Labelled positions: features, what is true of each, and which scene it lies in."""

    features: Float[Tensor, "rows width"]
    labels: Bool[Tensor, "rows values"]  # one column for each of `VALUES`
    scene: Int64[Tensor, " rows"]


def label_places(scenes: Sequence[Scene], features: Float[Tensor, "scenes places width"]) -> Places:
    """Return the positions that are clearly a thing's or clearly background, with their labels.

    Args:
        scenes: As many as there are rows of features.
        features: Of kind "positions", from `collect`.

    Raises:
        ValueError: Positions that form no square, or another number of scenes.
    """
    side = round(features.shape[1] ** 0.5)
    if side**2 != features.shape[1] or len(scenes) != len(features):
        raise ValueError(
            f"features {tuple(features.shape)} for {len(scenes)} scenes: need one row for each, "
            "and a square of positions (kind 'positions')"
        )
    share = F.adaptive_avg_pool2d(render(scenes)[1].float(), side).flatten(
        2
    )  # (scenes, things, places)
    labels = torch.zeros(*features.shape[:2], len(VALUES), dtype=torch.bool)
    index = {value: i for i, value in enumerate(VALUES)}
    for s, scene in enumerate(scenes):
        for t, thing in enumerate(scene.things):
            relation = scene.relation if t == 0 else INVERSE.get(scene.relation or "")
            facts = [("shape", thing.shape), ("color", thing.color), ("relation", relation)]
            for fact in facts:
                if fact in index:
                    labels[s, :, index[fact]] |= share[s, t] >= OWN
        labels[s, :, index["background", scene.background]] = share[s].sum(0) <= FREE
    known = labels.any(-1)
    row = torch.arange(len(scenes))[:, None].expand_as(known)
    return Places(features[known], labels[known], row[known])
