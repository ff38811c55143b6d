"""Items of the matching tasks, and those with two images, where only picture *and* text decide.

Every item is drawn symmetrically: first a set of candidates that differ in few words, none of them
special, then which of them is the right one, then a picture of it. So nothing in the texts alone
or in the pictures alone, not even how a candidate compares with the others, gives the answer away.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import permutations, product

from dsd_tutorial.shapes.captions import Description, Phrase, full_description
from dsd_tutorial.shapes.scene import BACKGROUNDS, RELATIONS, Scene, Thing, place_pair

Name = tuple[str, str]  # (colour, shape)


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
    belongs to image 0, the other to image 1. `seed` is for whoever needs noise per item.
    """

    images: tuple[Scene, ...]
    texts: tuple[str, ...]
    correct: int
    kind: str
    seed: int


Maker = Callable[[random.Random, Pool], Item | None]  # None: this draw led nowhere, draw again
Fact = tuple[Name, str, Name]  # first thing, relation, second thing


def _pair(first: Name, second: Name, places: Sequence, background: str, texture: str) -> Scene:
    named = zip((first, second), places, strict=True)
    things = tuple(Thing(shape, color, *place, texture) for (color, shape), place in named)
    return Scene(things, background)


@cache
def _stub(relation: str) -> tuple[tuple[float, float, float], ...]:
    return place_pair(random.Random(0), relation)


@lru_cache(maxsize=200_000)
def _split(first: Name, relation: str, second: Name, background: str, texture: str) -> str:
    """The split of every scene with these words: it does not depend on the places."""
    return _pair(first, second, _stub(relation), background, texture).split


def inside(pool: Pool, fact: Fact, background: str) -> bool:
    """Whether scenes of `fact` on `background` lie in the pool's split."""
    return _split(*fact, background, pool.texture) == pool.split


def draw(rng: random.Random, pool: Pool, fact: Fact, background: str) -> Scene:
    """A scene of `fact` on `background` at random places."""
    first, relation, second = fact
    return _pair(first, second, place_pair(rng, relation), background, pool.texture)


def neighbours(name: Name, names: Sequence[Name]) -> list[Name]:
    """Names that share exactly one word with `name`; where there are none, all others."""
    near = [n for n in names if (n[0] == name[0]) != (n[1] == name[1])]
    return near or [n for n in names if n != name]


def _swapped(first: Name, second: Name) -> tuple[Name, Name] | None:
    """Both names with their colours exchanged; None where that changes too little."""
    if first[0] == second[0] or first[1] == second[1]:
        return None
    return (second[0], first[1]), (first[0], second[1])


def _changes(kind: str, fact: Fact, names: Sequence[Name]) -> list[Fact]:
    """Facts that differ from `fact` in what `kind` says."""
    first, relation, second = fact
    if kind == "relation":
        return [(first, r, second) for r in RELATIONS if r != relation]
    if kind == "objects":  # the two things change places
        return [(second, relation, first)]
    if kind in ("bindings", "colors"):
        swapped = _swapped(first, second)
        known = swapped is not None and set(swapped) <= set(names)
        return [(swapped[0], relation, swapped[1])] if known else []
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
                changed = [
                    f for f in _changes(kind, fact, pool.names) if inside(pool, f, background)
                ]
                if changed:
                    found.append((fact, background, changed))
    return found


def _two_scenes(rng: random.Random, pool: Pool, kind: str) -> tuple[Scene, Scene] | None:
    """Two scenes of the split that differ in `kind` only, at the same places if they can."""
    found = _changeable(pool, kind)
    if not found:
        return None
    fact, background, changed = rng.choice(found)
    other = rng.choice(changed)
    places = place_pair(rng, fact[1])
    others = places if other[1] == fact[1] else place_pair(rng, other[1])
    return (
        _pair(fact[0], fact[2], places, background, pool.texture),
        _pair(other[0], other[2], others, background, pool.texture),
    )


def _caption(scene: Scene, phrasing: int) -> str:
    """The caption without background and texture, which are alike in both scenes."""
    things = tuple(Phrase(shape=t.shape, color=t.color) for t in scene.things)
    return Description(things, full_description(scene).relation).text(phrasing)


def comvg(kind: str) -> Maker:
    """One text, two images: subject, relation or object changed, or the two bindings swapped."""

    def make(rng: random.Random, pool: Pool) -> Item | None:
        scenes = _two_scenes(rng, pool, kind)
        if scenes is None:
            return None
        correct = rng.randrange(2)
        text = _caption(scenes[correct], rng.randrange(6))
        return Item(scenes, (text,), correct, kind, rng.randrange(2**31))

    return make


def winoground(kind: str) -> Maker:
    """Two images, two texts of the same words: "objects" change places, or their "colors" do."""

    def make(rng: random.Random, pool: Pool) -> Item | None:
        scenes = _two_scenes(rng, pool, kind)
        if scenes is None:
            return None
        correct, phrasing = rng.randrange(2), rng.randrange(6)
        texts = [_caption(scene, phrasing) for scene in scenes]
        ordered = tuple(texts if correct == 0 else texts[::-1])
        return Item(scenes, ordered, correct, kind, rng.randrange(2**31))

    return make
