"""Baselines on the same items, behind one interface, each saying what its answer cost.

method = make_method("tip")
fitting = method.fit(model, few_shot("comvg", 16), validation_set("comvg"))
scores, scoring = method.score(model, make_task("comvg", 300))
"""

from __future__ import annotations

import difflib
from typing import Any

from dsd_tutorial.matching.baselines.attention_score import AttentionPlusError, ZeroShotAttention
from dsd_tutorial.matching.baselines.clip import ClipZeroShot
from dsd_tutorial.matching.baselines.diffusion_classifier import DiffusionClassifier
from dsd_tutorial.matching.baselines.method import Method, Random
from dsd_tutorial.prompt_learning.coop import CoOp
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
