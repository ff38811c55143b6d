"""Domains that no training picture of the embedded model belongs to: shapes, colours, stripes."""

from __future__ import annotations

from typing import Any

from dsd_tutorial.shapes.scene import (
    COLORS,
    HELD_OUT_COLORS,
    HELD_OUT_SHAPES,
    SHAPES,
    Scene,
    random_scenes,
)

DOMAINS: dict[str, tuple[dict[str, Any], str]] = {  # options of `random_scenes`, class text
    **{s: ({"names": [(c, s) for c in COLORS]}, f"a {s}") for s in HELD_OUT_SHAPES},
    **{c: ({"names": [(c, s) for s in SHAPES]}, f"a {c} object") for c in HELD_OUT_COLORS},
    "striped": ({"textures": ("striped",)}, "a striped object"),
}


def domain_scenes(name: str, n: int, seed: int, split: str) -> list[Scene]:
    """Return scenes of one object: of a domain, or "old" for the world the model was trained on."""
    more = {} if name == "old" else DOMAINS[name][0]
    return random_scenes(n, seed, split=split, one_object_share=1.0, **more)
