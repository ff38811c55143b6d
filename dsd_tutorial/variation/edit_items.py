"""Edits to be tried: a reference of one object, four kinds of change, words that say it.

The words name what is to be changed and nothing else, as far as the captions' grammar allows, so
that what is kept can only come from the image:

    color        "a blue object"                   (the reference's shape is not said)
    shape        "a square"                        (nor its colour)
    background   "the background is pink"          (no object is said)
    object       "a blue square and an object"     (one is added; the old one is not described)

Place and size are not counted: an image prompt does not hold them, and the words leave them out.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from dsd_tutorial.shapes import Scene, Thing
from dsd_tutorial.shapes.captions import Description, Phrase, alternatives, full_description
from dsd_tutorial.shapes.judge import Verdict
from dsd_tutorial.shapes.scene import BACKGROUNDS, COLORS, SHAPES, TRAINED_PAIRS

KINDS = ("color", "shape", "background", "object")


@dataclass(frozen=True)
class Edit:
    """One change of one reference; `value` is the new colour, shape, background or (both)."""

    reference: Scene
    kind: str
    value: str | tuple[str, str]

    @property
    def description(self) -> Description:
        """Return what the words of the edit say."""
        if isinstance(self.value, tuple):
            color, shape = self.value
            return Description((Phrase(shape, color), Phrase()))
        if self.kind == "background":
            return Description((), None, self.value)
        return Description((Phrase(**{self.kind: self.value}),))

    @property
    def text(self) -> str:
        """Return the words, such as "a blue object"."""
        return self.description.text()

    @property
    def values(self) -> list[str]:
        """Return the words with every value that the reference could have had, for CLIP to choose.

        "a red object", "a blue object", ...; where an object is added, nothing is replaced: "".
        Nothing of the reference is told here.
        """
        return alternatives(self.text)

    @property
    def source(self) -> str:
        """Return a caption of the reference: colour, shape and background."""
        return full_description(self.reference, details=False).text()

    @cached_property
    def target(self) -> str:
        """Return a caption of what is wanted, worded as `source`: it says all that is counted."""
        said = full_description(self.reference, details=False)
        if self.kind == "background":
            return replace(said, background=self.value).text()
        if self.kind == "object":
            return replace(said, things=(*said.things, self.description.things[0])).text()
        return replace(said, things=(replace(said.things[0], **{self.kind: self.value}),)).text()

    def judged(self, verdict: Verdict) -> tuple[bool, bool]:
        """Return (changed, kept) of an edited image as the judge reads it.

        changed: what the words say is true. kept: the rest of colour, shape, background and number
        of objects is the reference's; with an object added, the old one is there and the background
        is the same. Both: the edit is right. An image that cannot be read shows no object, but may
        show its background.
        """
        scene, old = verdict.scene, self.reference.things[0]
        read = scene.things if scene is not None else ()
        same_ground = verdict.background == self.reference.background
        if self.kind == "background":
            same = len(read) == 1 and _names(read[0]) == _names(old)
            return verdict.background == self.value, same
        changed = scene is not None and self.description.true_of(scene)
        if self.kind == "object":
            return changed, same_ground and any(_names(t) == _names(old) for t in read)
        rest = "shape" if self.kind == "color" else "color"
        same = len(read) == 1 and getattr(read[0], rest) == getattr(old, rest)
        return changed, same and same_ground


def _names(thing: Thing) -> tuple[str, str]:
    return thing.color, thing.shape


def make_edits(references: Sequence[Scene], seed: int = 0) -> list[Edit]:
    """Return one edit of every kind for each reference, reference by reference.

    The target is a pair of colour and shape that the model was trained on. An added object has
    another colour and another shape than the old one. Raises ValueError for a reference of two
    objects.
    """
    rng, trained = random.Random(seed), TRAINED_PAIRS
    found = []
    for scene in references:
        if len(scene.things) != 1:
            raise ValueError(f"references have one object each, not {len(scene.things)}: {scene}")
        color, shape = _names(scene.things[0])
        choices = {
            "color": [c for c in COLORS if c != color and (c, shape) in trained],
            "shape": [s for s in SHAPES if s != shape and (color, s) in trained],
            "background": [b for b in BACKGROUNDS if b != scene.background],
            "object": [(c, s) for c, s in trained if c != color and s != shape],
        }
        found += [Edit(scene, kind, rng.choice(choices[kind])) for kind in KINDS]
    return found
