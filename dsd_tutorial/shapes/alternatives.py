"""What a picture could show instead of what a text says: the choices for a zero-shot question."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from dsd_tutorial.shapes.captions import Description, parse
from dsd_tutorial.shapes.scene import BACKGROUNDS, COLORS, SHAPES

NOTHING = ""  # is to go


def alternatives(text: str) -> list[str]:
    """Return `text` with every value that its words could have had, itself among them.

    "a blue object" gives "a red object", "a green object", ... Where two things are named, one is
    added and nothing is to go: [NOTHING]; and so for words outside the captions' grammar.
    """
    try:
        said = parse(text)
    except ValueError:
        return [NOTHING]
    if len(said.things) > 1:
        return [NOTHING]
    grounds = tuple(BACKGROUNDS) if said.background else (None,)
    if not said.things:
        return [replace(said, background=ground).text() for ground in grounds]
    thing = said.things[0]
    colors = tuple(COLORS) if thing.color else (None,)
    shapes = SHAPES if thing.shape else (None,)
    return [
        Description((replace(thing, color=color, shape=shape),), None, ground).text()
        for color, shape, ground in product(colors, shapes, grounds)
    ]
