"""Items with one image and ten texts: referring expressions, and answers as statements.

Each grid below holds ten to sixteen statements of one form that differ in few words. Ten are
drawn, one of them evenly chosen as the right one, and a picture is drawn of which it alone is true.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import combinations, product

from dsd_tutorial.shapes.captions import Description, Phrase
from dsd_tutorial.shapes.scene import (
    BACKGROUNDS,
    INVERSE,
    MIDDLE,
    POSITIONS,
    RADIUS,
    RELATIONS,
    SIDE,
    SIZES,
    Scene,
    Thing,
)
from dsd_tutorial.shapes.task_items import Fact, Item, Maker, Name, Pool, draw, inside, neighbours

CANDIDATES = 10
_ROW = {"left": "low", "right": "high", "top": "low", "bottom": "high"}


def _choose(
    rng: random.Random,
    grid: Sequence,
    kind: str,
    text_of: Callable[[object], str],
    scene_of: Callable[[object, Sequence], Scene | None],
) -> Item | None:
    """An item of ten entries of `grid`, one of them, chosen evenly, drawn by `scene_of`."""
    if len(grid) < CANDIDATES:
        return None
    chosen = rng.sample(list(grid), CANDIDATES)
    correct = rng.randrange(CANDIDATES)
    scene = scene_of(chosen[correct], chosen)
    if scene is None:
        return None
    texts = tuple(text_of(entry) for entry in chosen)
    return Item((scene,), texts, correct, kind, rng.randrange(2**31))


def _relation_item(
    rng: random.Random, pool: Pool, pairs: Sequence[tuple[Name, Name]], kind: str, style: int
) -> Item | None:
    """Ten statements "A relation B", each in either order of its things, in one wording."""

    def text_of(fact: Fact) -> str:
        a, relation, b = fact if rng.random() < 0.5 else (fact[2], INVERSE[fact[1]], fact[0])
        things = (Phrase(shape=a[1], color=a[0]), Phrase(shape=b[1], color=b[0]))
        return Description(things, relation).text(style)

    def scene_of(fact: Fact, _: Sequence) -> Scene | None:
        grounds = [b for b in BACKGROUNDS if inside(pool, fact, b)]
        return draw(rng, pool, fact, rng.choice(grounds)) if grounds else None

    facts = [(a, relation, b) for a, b in pairs for relation in RELATIONS]
    return _choose(rng, facts, kind, text_of, scene_of)


def refer_by_relation(rng: random.Random, pool: Pool) -> Item | None:
    """Referring expressions such as "a red circle left of a blue square".

    Two subjects that share a word, two objects that share a word, four relations: ten of 16.
    """
    first, second = rng.sample(pool.names, 2)
    others = rng.choice(neighbours(first, pool.names)), rng.choice(neighbours(second, pool.names))
    if len({first, second, *others}) < 4:
        return None
    pairs = tuple(product((first, others[0]), (second, others[1])))
    return _relation_item(rng, pool, pairs, "relation", rng.randrange(6))


def refer_by_place(rng: random.Random, pool: Pool) -> Item | None:
    """Referring expressions such as "a small red circle in the top left" for a lone object.

    Two names that share a word, two sizes, three positions: ten of 12.
    """
    name = rng.choice(pool.names)
    names = (name, rng.choice(neighbours(name, pool.names)))
    style = rng.randrange(3)

    def text_of(entry) -> str:
        (color, shape), size, position = entry
        phrase = Phrase(shape=shape, color=color, size=size, position=position)
        return Description((phrase,)).text(style)

    def scene_of(entry, _) -> Scene | None:
        (color, shape), size, position = entry
        x, y, radius = place_alone(rng, size, position)
        thing = Thing(shape, color, x, y, radius, pool.texture)
        scenes = [Scene((thing,), b) for b in BACKGROUNDS]
        scenes = [s for s in scenes if s.split == pool.split]
        return rng.choice(scenes) if scenes else None

    grid = list(product(names, SIZES, rng.sample(POSITIONS, 3)))
    return _choose(rng, grid, "place", text_of, scene_of)


def place_alone(rng: random.Random, size: str, position: str) -> tuple[float, float, float]:
    """(x, y, radius) of a thing of that size at that position."""
    radius = rng.uniform(*RADIUS[size])
    zones = {
        "low": (radius + 0.01, SIDE), "mid": (0.5 - MIDDLE, 0.5 + MIDDLE),
        "high": (1 - SIDE, 1 - radius - 0.01),
    }  # fmt: skip
    words = position.split()
    column = next((_ROW[w] for w in words if w in ("left", "right")), "mid")
    row = next((_ROW[w] for w in words if w in ("top", "bottom")), "mid")
    return rng.uniform(*zones[column]), rng.uniform(*zones[row]), radius


def answer_attribute(kind: str) -> Maker:
    """Statements such as "the circle is red" (color) or "the red object is a circle" (shape).

    As there are only six answers, two questions are asked (the colour of two shapes, the shape of
    two colours), more where the pool is small. The second thing of the picture answers none truly.
    """
    asked = {"color": 1, "shape": 0}[kind]  # which word of a name the question holds

    def make(rng: random.Random, pool: Pool) -> Item | None:
        groups = list(dict.fromkeys(n[asked] for n in pool.names))
        rng.shuffle(groups)
        grid: list[Name] = []
        for group in groups:
            if len(grid) >= CANDIDATES:
                break
            grid += [n for n in pool.names if n[asked] == group]

        def text_of(name: Name) -> str:
            wordings = Description((Phrase(shape=name[1], color=name[0]),)).phrasings()
            return wordings[-2] if kind == "color" else wordings[-1]

        def scene_of(name: Name, chosen: Sequence[Name]) -> Scene | None:
            free = [n for n in pool.names if n not in chosen and n[asked] != name[asked]]
            free = [n for n in free if n in grid] or free  # better one that is asked about, too
            return _with_company(rng, pool, name, free, tuple(BACKGROUNDS))

        return _choose(rng, grid, kind, text_of, scene_of)

    return make


def _with_company(
    rng: random.Random, pool: Pool, name: Name, company: Sequence[Name], grounds: Sequence[str]
) -> Scene | None:
    """A scene of `name` and one of `company` on one of `grounds`, in the split; None if not."""
    for _ in range(20 if company else 0):
        fact = (name, rng.choice(RELATIONS), rng.choice(company))
        background = rng.choice(grounds)
        if inside(pool, fact, background):
            return draw(rng, pool, fact, background)
    return None


def answer_background(rng: random.Random, pool: Pool) -> Item | None:
    """Statements such as "there is a red circle on a gray background".

    Four backgrounds alone make no ten answers, so the question is asked of three objects, one of
    which is in the picture: ten of 12.
    """
    names = rng.sample(pool.names, 3)

    def text_of(entry) -> str:
        (color, shape), ground = entry
        return Description((Phrase(shape=shape, color=color),), None, ground).text(1)

    def scene_of(entry, _) -> Scene | None:
        name, ground = entry
        free = [n for n in pool.names if n not in names]
        return _with_company(rng, pool, name, free, (ground,))

    return _choose(rng, list(product(names, BACKGROUNDS)), "background", text_of, scene_of)


def answer_relation(rng: random.Random, pool: Pool) -> Item | None:
    """Statements such as "the red circle is above the blue square".

    Four relations alone make no ten answers, so the question is asked of three pairs of three
    objects, two of which are in the picture: ten of 12.
    """
    pairs = tuple(combinations(rng.sample(pool.names, 3), 2))
    return _relation_item(rng, pool, pairs, "relation", rng.choice((2, 5)))
