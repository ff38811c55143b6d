"""The shapes world: scenes, captions, images with exact masks, and a judge that reads images.

Everything in it is known exactly, so that a claim about a model becomes a measurement.
"""

from dsd_tutorial.shapes.captions import (
    Description,
    Phrase,
    alternatives,
    caption,
    describe,
    full_description,
    parse,
)
from dsd_tutorial.shapes.crowds import EXPRESSIONS, Expression, referring_expressions
from dsd_tutorial.shapes.judge import judge, matches
from dsd_tutorial.shapes.render import boxes_of, render
from dsd_tutorial.shapes.scene import (
    BACKGROUNDS,
    COLORS,
    DOMAINS,
    HELD_OUT_COLORS,
    HELD_OUT_PAIRS,
    HELD_OUT_SHAPES,
    HELD_OUT_TEXTURES,
    RELATIONS,
    SHAPES,
    Scene,
    Thing,
    domain_scenes,
    random_scenes,
)
from dsd_tutorial.shapes.tasks import TASKS, few_shot, make_task, validation_set

__all__ = [
    "BACKGROUNDS",
    "COLORS",
    "DOMAINS",
    "Description",
    "EXPRESSIONS",
    "Expression",
    "HELD_OUT_COLORS",
    "HELD_OUT_PAIRS",
    "HELD_OUT_SHAPES",
    "HELD_OUT_TEXTURES",
    "Phrase",
    "RELATIONS",
    "SHAPES",
    "Scene",
    "TASKS",
    "Thing",
    "alternatives",
    "boxes_of",
    "caption",
    "describe",
    "domain_scenes",
    "few_shot",
    "full_description",
    "judge",
    "make_task",
    "matches",
    "parse",
    "random_scenes",
    "referring_expressions",
    "render",
    "validation_set",
]
