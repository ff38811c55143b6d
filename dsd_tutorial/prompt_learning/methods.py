"""Baselines on the same items, behind one interface, each saying what its answer cost.

method = make_method("tip")
fitting = method.fit(model, few_shot("comvg", 16), validation_set("comvg"))
scores, scoring = method.score(model, make_task("comvg", 300))
"""

from __future__ import annotations

import difflib
from typing import Any

from dsd_tutorial.matching.baselines.attention_score import (
    AttentionPlusError,
    Choice,
    ZeroShotAttention,
)
from dsd_tutorial.matching.baselines.diffusion_classifier import DiffusionClassifier
from dsd_tutorial.matching.baselines.features import decision_loss, matches, merit, pair_features
from dsd_tutorial.matching.baselines.method import Meter, Method, NotFittedError, portions
from dsd_tutorial.matching.baselines.zero_shot import ClipZeroShot, Random
from dsd_tutorial.prompt_learning.coop import CoOp, learned_context
from dsd_tutorial.prompt_learning.pair_adapters import LinearProbe, TipAdapter, TunedTipAdapter

METHODS: dict[str, type[Method]] = {
    kind.name: kind
    for kind in (
        Random,
        ClipZeroShot,
        CoOp,
        TipAdapter,
        TunedTipAdapter,
        LinearProbe,
        DiffusionClassifier,
        ZeroShotAttention,
        AttentionPlusError,
    )
}


def make_method(name: str, **settings: Any) -> Method:
    """Return a fresh, unfitted method; `settings` are those of its class. ValueError if unknown."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown method {name!r}{hint} Choose one of {', '.join(METHODS)}")
    return METHODS[name](**settings)


__all__ = [
    "METHODS",
    "AttentionPlusError",
    "Choice",
    "ClipZeroShot",
    "CoOp",
    "DiffusionClassifier",
    "LinearProbe",
    "Meter",
    "Method",
    "NotFittedError",
    "Random",
    "TipAdapter",
    "TunedTipAdapter",
    "ZeroShotAttention",
    "decision_loss",
    "learned_context",
    "make_method",
    "matches",
    "merit",
    "pair_features",
    "portions",
]
