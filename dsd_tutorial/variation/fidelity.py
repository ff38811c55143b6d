"""What a variation keeps of its reference, as the judge reads both; and how variations differ.

A picture that the judge cannot read keeps nothing but, perhaps, its background. Another number of
objects than in the reference keeps neither shapes nor colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from dsd_tutorial.shapes import Scene
from dsd_tutorial.shapes.captions import full_description
from dsd_tutorial.shapes.judge import Verdict, judge, matches

ATTRIBUTES = (
    "count", "shape", "color", "objects", "background", "size", "position", "texture", "relation",
)  # fmt: skip
UNASKED = float("nan")  # the reference does not have it: no size of two objects, no relation of one


def kept(verdict: Verdict, reference: Scene) -> dict[str, float]:
    """Return attribute -> 1 (kept), 0 (lost) or NaN (the reference has none to keep).

    count: as many objects; shape, color: the same ones, in any order; objects: the same pairs of
    both; size: small, large or between; position: one of the nine named places; texture: plain or
    striped; relation: the objects, and the relation between them.
    """
    seen = verdict.scene.things if verdict.scene is not None else ()
    right = reference.things
    same = len(seen) == len(right)
    alone = len(right) == 1

    def equal(*names: str) -> float:
        read, want = ([tuple(getattr(t, k) for k in names) for t in ts] for ts in (seen, right))
        return float(same and sorted(map(str, read)) == sorted(map(str, want)))

    said = full_description(reference, details=False)
    return {
        "count": float(same),
        "shape": equal("shape"),
        "color": equal("color"),
        "objects": equal("color", "shape"),
        "background": float(verdict.background == reference.background),
        "size": equal("size") if alone else UNASKED,
        "position": equal("position") if alone and right[0].position else UNASKED,
        "texture": equal("texture"),
        "relation": UNASKED if alone else float(matches(verdict, said).relation),
    }


def fidelity(images: Tensor, references: Sequence[Scene]) -> dict[str, Tensor]:
    """Return attribute -> (references,), the share of each reference's variations that keep it.

    images (references, seeds, 3, height, width). NaN where a reference has nothing to keep. Raises
    ValueError for other numbers of pictures.
    """
    if images.ndim != 5 or len(images) != len(references):
        raise ValueError(
            f"images {tuple(images.shape)} for {len(references)} references: need (references, "
            "seeds, 3, height, width)"
        )
    verdicts = iter(judge(images.flatten(0, 1)))
    rows = [[kept(next(verdicts), scene) for _ in range(images.shape[1])] for scene in references]
    return {
        name: torch.tensor([[row[name] for row in per] for per in rows]).mean(1)
        for name in ATTRIBUTES
    }


def diversity(images: Tensor) -> Tensor:
    """Return how far the variations of each reference lie apart, (references,).

    Root mean square difference of pixels in [0, 1], mean over pairs of seeds; 0 for equal pictures.
    images (references, seeds, 3, height, width). Raises ValueError for a single seed.
    """
    if images.ndim != 5 or images.shape[1] < 2:
        raise ValueError(
            f"images {tuple(images.shape)}: need (references, 2 or more seeds, 3, height, width)"
        )
    flat = images.flatten(2)
    pairs = combinations(range(images.shape[1]), 2)
    apart = [(flat[:, i] - flat[:, j]).square().mean(-1).sqrt() for i, j in pairs]
    return torch.stack(apart).mean(0)
