"""Items with one image and ten texts: referring expressions, and answers as statements.

Each grid below holds ten to sixteen statements of one form that differ in few words. Ten are
drawn, one of them evenly chosen as the right one, and an image is drawn of which it alone is true.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import combinations, product
from typing import TypeVar

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
    ZONES,
    Name,
    Place,
    Scene,
    Thing,
)
from dsd_tutorial.shapes.task_items import (
    Item,
    Maker,
    Pool,
    describe_fact,
    draw,
    inside,
    neighbours,
)

CANDIDATES = 10
Entry = TypeVar("Entry")


def _ten(rng: random.Random, grid: Sequence[Entry]) -> tuple[list[Entry], int]:
    """Ten entries of `grid`, and the index of the right one."""
    return rng.sample(grid, CANDIDATES), rng.randrange(CANDIDATES)


def _item(
    rng: random.Random, scene: Scene | None, texts: list[str], correct: int, kind: str
) -> Item | None:
    if scene is None:
        return None
    return Item((scene,), tuple(texts), correct, kind, rng.randrange(2**31))


def _relation_item(
    rng: random.Random, pool: Pool, pairs: Iterable[tuple[Name, Name]], style: int
) -> Item | None:
    """Ten statements "A relation B", each in either order of its things, in one wording."""
    facts = [(a, relation, b) for a, b in pairs for relation in RELATIONS]
    chosen, correct = _ten(rng, facts)
    grounds = [b for b in BACKGROUNDS if inside(pool, chosen[correct], b)]
    if not grounds:
        return None
    scene = draw(rng, pool, chosen[correct], rng.choice(grounds))
    said = [(a, r, b) if rng.random() < 0.5 else (b, INVERSE[r], a) for a, r, b in chosen]
    texts = [describe_fact(fact).text(style) for fact in said]
    return _item(rng, scene, texts, correct, "relation")


def refer_by_relation(rng: random.Random, pool: Pool) -> Item | None:
    """Referring expressions such as "a red circle left of a blue square".

    Two subjects that share a word, two objects that share a word, four relations: ten of 16.
    """
    first, second = rng.sample(pool.names, 2)
    others = rng.choice(neighbours(first, pool.names)), rng.choice(neighbours(second, pool.names))
    if len({first, second, *others}) < 4:
        return None
    pairs = product((first, others[0]), (second, others[1]))
    return _relation_item(rng, pool, pairs, rng.randrange(6))


def answer_relation(rng: random.Random, pool: Pool) -> Item | None:
    """Statements such as "the red circle is above the blue square".

    Four relations alone make no ten answers, so the question is asked of three pairs of three
    objects, two of which are in the image: ten of 12.
    """
    pairs = combinations(rng.sample(pool.names, 3), 2)
    return _relation_item(rng, pool, pairs, rng.choice((2, 5)))


def refer_by_place(rng: random.Random, pool: Pool) -> Item | None:
    """Referring expressions such as "a small red circle in the top left" for a lone object.

    Two names that share a word, two sizes, three positions: ten of 12.
    """
    name = rng.choice(pool.names)
    names = (name, rng.choice(neighbours(name, pool.names)))
    style = rng.randrange(3)
    chosen, correct = _ten(rng, list(product(names, SIZES, rng.sample(POSITIONS, 3))))
    (color, shape), size, position = chosen[correct]
    thing = Thing(shape, color, *_place_alone(rng, size, position), pool.texture)
    scenes = [Scene((thing,), b) for b in BACKGROUNDS]
    scenes = [s for s in scenes if s.split == pool.split]
    phrases = [Phrase(shape, color, size, None, where) for (color, shape), size, where in chosen]
    texts = [Description((phrase,)).text(style) for phrase in phrases]
    return _item(rng, rng.choice(scenes) if scenes else None, texts, correct, "place")


def _place_alone(rng: random.Random, size: str, position: str) -> Place:
    radius = rng.uniform(*RADIUS[size])
    bounds = {
        "low": (radius + 0.01, SIDE), "mid": (0.5 - MIDDLE, 0.5 + MIDDLE),
        "high": (1 - SIDE, 1 - radius - 0.01),
    }  # fmt: skip
    column, row = ZONES[position]
    return rng.uniform(*bounds[column]), rng.uniform(*bounds[row]), radius


def answer_attribute(kind: str) -> Maker:
    """Statements such as "the circle is red" (color) or "the red object is a circle" (shape).

    As there are only six answers, two questions are asked (the colour of two shapes, the shape of
    two colours), more where the pool is small. The second thing of the image answers none truly.
    """
    given = 1 if kind == "color" else 0  # which word of a name the question holds

    def make(rng: random.Random, pool: Pool) -> Item | None:
        groups = list(dict.fromkeys(n[given] for n in pool.names))
        rng.shuffle(groups)
        grid: list[Name] = []
        for group in groups:
            if len(grid) < CANDIDATES:
                grid += [n for n in pool.names if n[given] == group]
        chosen, correct = _ten(rng, grid)
        name = chosen[correct]
        free = [n for n in pool.names if n not in chosen and n[given] != name[given]]
        free = [n for n in free if n in grid] or free  # better one that is asked about, too
        scene = _with_company(rng, pool, name, free, tuple(BACKGROUNDS))
        wordings = [Description((Phrase(shape, color),)).phrasings() for color, shape in chosen]
        texts = [w[-2] if kind == "color" else w[-1] for w in wordings]
        return _item(rng, scene, texts, correct, kind)

    return make


def answer_background(rng: random.Random, pool: Pool) -> Item | None:
    """Statements such as "there is a red circle on a gray background".

    Four backgrounds alone make no ten answers, so the question is asked of three objects, one of
    which is in the image: ten of 12.
    """
    names = rng.sample(pool.names, 3)
    chosen, correct = _ten(rng, list(product(names, BACKGROUNDS)))
    name, ground = chosen[correct]
    free = [n for n in pool.names if n not in names]
    scene = _with_company(rng, pool, name, free, (ground,))
    said = [Description((Phrase(shape, color),), None, g) for (color, shape), g in chosen]
    return _item(rng, scene, [d.text(1) for d in said], correct, "background")


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
