"""Items of the matching tasks, and those with two images, where only image *and* text decide.

Every item is drawn symmetrically: first a set of candidates that differ in few words, none of them
special, then which of them is the right one, then an image of it. So nothing in the texts alone
or in the images alone, not even how a candidate compares with the others, gives the answer away.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import permutations, product
from typing import Any

from dsd_tutorial.shapes.captions import Description, Phrase
from dsd_tutorial.shapes.scene import (
    BACKGROUNDS,
    RELATIONS,
    Name,
    Place,
    Scene,
    Thing,
    place_pair,
)


@dataclass(frozen=True)
class Pool:
    """What the scenes of a task may hold, and the split they must lie in."""

    names: tuple[Name, ...]
    texture: str
    split: str


@dataclass(frozen=True)
class Item:
    """Images and texts of one decision; `correct` is the index of the right candidate.

    One text: `correct` counts images. One image: it counts texts. Two of each: text `correct`
    belongs to image 0, the other to image 1. An image is given by what it is made from: a `Scene`,
    or a file of `datasets`. `seed` is for whoever needs noise per item.
    """

    images: tuple[Any, ...]
    texts: tuple[str, ...]
    correct: int
    kind: str
    seed: int


Maker = Callable[[random.Random, Pool], Item | None]  # None: this draw led nowhere, draw again
Fact = tuple[Name, str, Name]  # first thing, relation, second thing


def _scene(fact: Fact, places: tuple[Place, Place], background: str, texture: str) -> Scene:
    first, _, second = fact
    named = zip((first, second), places, strict=True)
    things = tuple(Thing(shape, color, *place, texture) for (color, shape), place in named)
    return Scene(things, background)


@lru_cache(maxsize=200_000)
def _split(fact: Fact, background: str, texture: str) -> str:
    """The split of every scene with these words: it does not depend on the places."""
    return _scene(fact, place_pair(random.Random(0), fact[1]), background, texture).split


def inside(pool: Pool, fact: Fact, background: str) -> bool:
    """Whether scenes of `fact` on `background` lie in the pool's split."""
    return _split(fact, background, pool.texture) == pool.split


def draw(rng: random.Random, pool: Pool, fact: Fact, background: str) -> Scene:
    """A scene of `fact` on `background` at random places."""
    return _scene(fact, place_pair(rng, fact[1]), background, pool.texture)


def describe_fact(fact: Fact) -> Description:
    """Colours, shapes and relation of `fact`, and nothing else."""
    (color, shape), relation, (other_color, other_shape) = fact
    return Description((Phrase(shape, color), Phrase(other_shape, other_color)), relation)


def neighbours(name: Name, names: Sequence[Name]) -> list[Name]:
    """Names that share exactly one word with `name`; where there are none, all others."""
    near = [n for n in names if (n[0] == name[0]) != (n[1] == name[1])]
    return near or [n for n in names if n != name]


def _changes(kind: str, fact: Fact, names: Sequence[Name]) -> list[Fact]:
    """Facts that differ from `fact` in what `kind` says."""
    first, relation, second = fact
    if kind == "relation":
        return [(first, r, second) for r in RELATIONS if r != relation]
    if kind == "objects":  # the two things change places
        return [(second, relation, first)]
    if kind in ("bindings", "colors"):  # the two things exchange their colours
        new = (second[0], first[1]), (first[0], second[1])
        differ = first[0] != second[0] and first[1] != second[1]
        return [(new[0], relation, new[1])] if differ and set(new) <= set(names) else []
    old, other = (first, second) if kind == "subject" else (second, first)
    new = [n for n in neighbours(old, names) if n != other]
    return [(n, relation, second) if kind == "subject" else (first, relation, n) for n in new]


@cache
def _changeable(pool: Pool, kind: str) -> list[tuple[Fact, str, list[Fact]]]:
    """Facts of the split, with a background and the changes that stay in the split."""
    found = []
    for first, second in permutations(pool.names, 2):
        for fact, background in product(product((first,), RELATIONS, (second,)), BACKGROUNDS):
            if inside(pool, fact, background):
                changes = _changes(kind, fact, pool.names)
                if changed := [f for f in changes if inside(pool, f, background)]:
                    found.append((fact, background, changed))
    return found


def two_images(kind: str, texts: int) -> Maker:
    """Two images that differ in `kind`, and captions of one (ComVG) or both (Winoground) of them.

    kind: the subject, the relation or the object is another; the two things exchange their colours
    ("bindings", "colors") or their places ("objects"). All else is alike, places where they can be.
    """

    def make(rng: random.Random, pool: Pool) -> Item | None:
        found = _changeable(pool, kind)
        if not found:
            return None
        fact, background, changed = rng.choice(found)
        other = rng.choice(changed)
        places = place_pair(rng, fact[1])
        others = places if other[1] == fact[1] else place_pair(rng, other[1])
        scenes = (
            _scene(fact, places, background, pool.texture),
            _scene(other, others, background, pool.texture),
        )
        correct, phrasing = rng.randrange(2), rng.randrange(6)
        facts = (fact, other) if correct == 0 else (other, fact)
        said = tuple(describe_fact(f).text(phrasing) for f in facts[:texts])
        return Item(scenes, said, correct, kind, rng.randrange(2**31))

    return make
