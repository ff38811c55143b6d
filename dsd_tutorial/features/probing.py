"""Linear probes: what can be read off the features of a block at a time step by a plane.

A probe asks for one attribute of a scene's first thing. Shape, colour and background are asked of
scenes with one thing. A relation needs two, and a rule for which of them is first: the one whose
colour stands first in `COLORS`. So a probe for relations has to bind a colour to a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from dsd_tutorial.matching.metrics import Interval, accuracy
from dsd_tutorial.shapes import COLORS, Scene, random_scenes
from dsd_tutorial.shapes.scene import check_known

ATTRIBUTES = ("shape", "color", "background", "relation")
PENALTIES = (0.001, 0.01, 0.1, 1.0)  # C of scikit-learn: the smaller, the stronger the penalty
ITERATIONS = 200


@dataclass(frozen=True)
class Probed:
    """What a probe got on test scenes, with the penalty that validation chose."""

    hits: Bool[np.ndarray, " tests"]
    validation: float  # accuracy of the choice on validation scenes
    penalty: float

    @property
    def accuracy(self) -> Interval:
        """Return the share of test scenes that were read rightly."""
        return accuracy(self.hits)


def probe_scenes(attribute: str, n: int, seed: int, split: str) -> list[Scene]:
    """Return n scenes that `attribute` can be asked of: with one thing, or ordered pairs.

    Raises:
        ValueError: For an unknown attribute.
    """
    check_known("attribute", attribute, ATTRIBUTES)
    if attribute != "relation":
        return random_scenes(n, seed, split, one_object_share=1.0)
    drawn = random_scenes(2 * n, seed, split, one_object_share=0.0)
    rank = list(COLORS)
    ordered = [
        Scene(tuple(sorted(s.things, key=lambda t: rank.index(t.color))), s.background)
        for s in drawn
        if s.things[0].color != s.things[1].color
    ]
    return ordered[:n]


def answers(attribute: str, scenes: Sequence[Scene]) -> list[str]:
    """Return the attribute of each scene: of its first thing, or of the scene itself."""
    whole = attribute in ("background", "relation")
    return [str(getattr(s if whole else s.things[0], attribute)) for s in scenes]


def probe(
    train: tuple[Float[Tensor, "_ width"], Sequence[str]],
    validation: tuple[Float[Tensor, "_ width"], Sequence[str]],
    test: tuple[Float[Tensor, "_ width"], Sequence[str]],
    penalties: Sequence[float] = PENALTIES,
) -> Probed:
    """Return what a logistic regression reads off the features of test scenes.

    Each of the three is a pair of features and answers. Features are brought to mean 0 and spread
    1 on the train scenes. Of equal penalties on validation the stronger is taken.

    Raises:
        ValueError: No penalty, or fewer than two different answers to learn from.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if len(set(train[1])) < 2 or not len(penalties):
        raise ValueError(
            f"{len(set(train[1]))} different answers and {len(penalties)} penalties: a probe needs "
            "two answers or more to learn from, and a penalty"
        )
    scaler = StandardScaler().fit(train[0].numpy())
    known, chosen, asked = (scaler.transform(x.numpy()) for x, _ in (train, validation, test))
    model = LogisticRegression(max_iter=ITERATIONS, tol=1e-3, warm_start=True)
    best: Probed | None = None
    for penalty in sorted(penalties):
        model.set_params(C=penalty).fit(known, train[1])
        share = float(np.equal(model.predict(chosen), validation[1]).mean())
        if best is None or share > best.validation:
            best = Probed(np.equal(model.predict(asked), test[1]), share, penalty)
    assert best is not None
    return best
