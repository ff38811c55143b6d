"""The shapes world: scenes, captions, pictures with exact masks, and a judge that reads pictures.

Everything in it is known exactly, so that a claim about a model becomes a measurement.
"""

from dsd_tutorial.shapes.captions import Description, Phrase, describe, parse
from dsd_tutorial.shapes.render import render
from dsd_tutorial.shapes.scene import (
    BACKGROUNDS,
    COLORS,
    HELD_OUT_COLORS,
    HELD_OUT_PAIRS,
    HELD_OUT_SHAPES,
    HELD_OUT_TEXTURES,
    RELATIONS,
    SHAPES,
    Scene,
    Thing,
    random_scenes,
)

__all__ = [
    "BACKGROUNDS",
    "COLORS",
    "HELD_OUT_COLORS",
    "HELD_OUT_PAIRS",
    "HELD_OUT_SHAPES",
    "HELD_OUT_TEXTURES",
    "RELATIONS",
    "SHAPES",
    "Description",
    "Phrase",
    "Scene",
    "Thing",
    "describe",
    "parse",
    "random_scenes",
    "render",
]
