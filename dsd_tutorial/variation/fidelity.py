"""What a variation keeps of its reference, as the judge reads both; and how variations differ.

An image that the judge cannot read keeps nothing but, perhaps, its background. Another number of
objects than in the reference keeps neither shapes nor colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.shapes import Scene
from dsd_tutorial.shapes.captions import full_description
from dsd_tutorial.shapes.judge import Verdict, judge, matches

ATTRIBUTES = (
    "count", "shape", "color", "objects", "background", "size", "position", "texture", "relation",
    "faithful",
)  # fmt: skip
ABSENT = float("nan")  # the reference does not have it: no size of two objects, no relation of one


def kept(verdict: Verdict, reference: Scene) -> dict[str, float]:
    """Return attribute -> 1 (kept), 0 (lost) or NaN (the reference has none to keep).

    count: as many objects; shape, color: the same ones, in any order; objects: the same pairs of
    both; size: small, large or between; position: one of the nine named places; texture: plain or
    striped; relation: the objects, and the relation between them; faithful: objects, background and
    texture.
    """
    read = verdict.scene.things if verdict.scene is not None else ()
    right = reference.things
    same = len(read) == len(right)
    alone = len(right) == 1

    def equal(*names: str) -> float:
        found, want = ([tuple(getattr(t, k) for k in names) for t in ts] for ts in (read, right))
        return float(same and sorted(map(str, found)) == sorted(map(str, want)))

    said = full_description(reference, details=False)
    found = {
        "count": float(same),
        "shape": equal("shape"),
        "color": equal("color"),
        "objects": equal("color", "shape"),
        "background": float(verdict.background == reference.background),
        "size": equal("size") if alone else ABSENT,
        "position": equal("position") if alone and right[0].position else ABSENT,
        "texture": equal("texture"),
        "relation": ABSENT if alone else float(matches(verdict, said).relation),
    }
    return found | {"faithful": found["objects"] * found["background"] * found["texture"]}


def fidelity(
    images: Float[Tensor, "references seeds 3 height width"], references: Sequence[Scene]
) -> dict[str, Float[Tensor, " references"]]:
    """Return attribute -> the share of each reference's variations that keep it.

    NaN where a reference has nothing to keep. Raises ValueError for other numbers of images.
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


def diversity(
    images: Float[Tensor, "references seeds 3 height width"],
) -> Float[Tensor, " references"]:
    """Return how far the variations of each reference lie apart.

    Root mean square difference of pixels in [0, 1], mean over pairs of seeds; 0 for equal images.
    Raises ValueError for a single seed.
    """
    if images.ndim != 5 or images.shape[1] < 2:
        raise ValueError(
            f"images {tuple(images.shape)}: need (references, 2 or more seeds, 3, height, width)"
        )
    flat = images.flatten(2)
    pairs = combinations(range(images.shape[1]), 2)
    apart = [(flat[:, i] - flat[:, j]).square().mean(-1).sqrt() for i, j in pairs]
    return torch.stack(apart).mean(0)
