"""Scenes of two to four things, and phrases that mean one of them: referring expressions.

    made = referring_expressions(300, "test")
    made[0].text, made[0].target, made[0].scene      # "the red circle", 2, Scene(...)

An expression means exactly one thing, and something else always comes near: beside "the red circle"
there is a red thing that is no circle, or a circle that is not red; beside "the circle left of the
star" there is another circle, which lies elsewhere about the same star.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dsd_tutorial.shapes.captions import Description, Phrase
from dsd_tutorial.shapes.scene import (
    BACKGROUNDS,
    GAP,
    HELD_OUT_PAIRS,
    INVERSE,
    SPLITS,
    TRAINED_PAIRS,
    Name,
    Place,
    Scene,
    Thing,
    check_known,
    relation_of,
)

EXPRESSIONS = ("attribute", "relation", "held_out")
CROWD_RADIUS = (0.13, 0.19)  # four things must fit on the canvas
_TRIES = 20_000


@dataclass(frozen=True)
class Expression:
    """A phrase that means one thing of a scene.

    Attributes:
        scene: With two to four things, in no order that tells anything.
        said: What the phrase says; the first thing it names is the one that is meant.
        target: Which thing of the scene that is.
        kind: One of `EXPRESSIONS`.
        seed: For whoever needs random numbers for this item.
    """

    scene: Scene
    said: Description
    target: int
    kind: str
    seed: int

    @property
    def text(self) -> str:
        """The phrase with definite articles: "the red circle", "the circle left of the star"."""
        nouns = [f"the {phrase.noun()}" for phrase in self.said.things]
        return nouns[0] if self.said.relation is None else f" {self.said.relation} ".join(nouns)

    @property
    def turned(self) -> Description:
        """The same said from the other thing: "a star right of a circle"; of one thing, `said`."""
        if self.said.relation is None:
            return self.said
        return replace(
            self.said, things=self.said.things[::-1], relation=INVERSE[self.said.relation]
        )


def place_apart(rng: random.Random, number: int) -> list[Place]:
    """(x, y, radius) of `number` things whose boxes do not touch, anywhere on the canvas."""
    while True:
        places: list[Place] = []
        for _ in range(20 * number):
            radius = rng.uniform(*CROWD_RADIUS)
            low = radius + 0.01
            new = rng.uniform(low, 1 - low), rng.uniform(low, 1 - low), radius
            if all(_apart(new, old) for old in places):
                places.append(new)
                if len(places) == number:
                    return places


def _apart(a: Place, b: Place) -> bool:
    return max(abs(a[0] - b[0]), abs(a[1] - b[1])) >= a[2] + b[2] + GAP


def referring_expressions(
    n: int, split: str = "test", seed: int = 0, kinds: Sequence[str] = EXPRESSIONS
) -> list[Expression]:
    """`n` expressions, their kinds in turn, every scene distinct and of one split.

    With the same seed a longer list begins with the shorter one. Scenes have two to four things,
    three or four where a relation is to tell two things apart.

    Raises:
        ValueError: a value is unknown, or no expression can be drawn.
    """
    check_known("split", split, SPLITS)
    for kind in kinds:
        check_known("kind of expression", kind, EXPRESSIONS)
    if n < 1 or not kinds:
        raise ValueError(f"n = {n}, kinds {tuple(kinds)}: need at least one of each")
    rng = random.Random(f"expressions {split} {seed}")
    made: list[Expression] = []
    seen: set[Scene] = set()
    for i in range(n):
        kind = kinds[i % len(kinds)]
        for _ in range(_TRIES):
            related = kind == "relation"
            number = rng.randint(3 if related else 2, 4)
            drawn = _related(rng, number, split) if related else _named(rng, number, kind)
            if drawn is not None and drawn.scene.split == split and drawn.scene not in seen:
                break
        else:
            raise ValueError(f"no {kind!r} expression was found in the {split} split")
        seen.add(drawn.scene)
        made.append(drawn)
    return made


def _sharing(name: Name, word: int, names: Sequence[Name]) -> list[Name]:
    """Names that share the colour (word 0) or the shape (word 1) of `name`, and not the other."""
    return [n for n in names if n[word] == name[word] and n[1 - word] != name[1 - word]]


def _named(rng: random.Random, number: int, kind: str) -> Expression:
    """Colour and shape; the others share one word with it in turn, which one comes first drawn."""
    name = rng.choice(HELD_OUT_PAIRS if kind == "held_out" else TRAINED_PAIRS)
    first = rng.randrange(2)
    others: list[Name] = []
    for i in range(number - 1):
        free = [n for n in _sharing(name, (first + i) % 2, TRAINED_PAIRS) if n not in others]
        others.append(rng.choice(free))
    names = [name, *others]
    said, ground = Description((Phrase(name[1], name[0]),)), rng.choice(tuple(BACKGROUNDS))
    return _finished(rng, names, place_apart(rng, number), ground, said, kind)


def _related(rng: random.Random, number: int, split: str) -> Expression | None:
    """A thing by its relation to another; a rival, of which the same words hold, lies elsewhere.

    In half of all the words are shapes alone, and the rival has another colour; in the other half
    they are colours and shapes, and the rival is a twin.
    """
    name, about = rng.sample(TRAINED_PAIRS, 2)
    twin = rng.random() < 0.5
    alike = [name] if twin else _sharing(name, 1, TRAINED_PAIRS)
    free = [n for n in TRAINED_PAIRS if n[1] not in (name[1], about[1])]
    if name[1] == about[1]:
        return None
    names = [name, rng.choice(alike), about, *rng.sample(free, number - 3)]
    ground = rng.choice(tuple(BACKGROUNDS))
    anywhere = tuple(Thing(shape, color, 0.5, 0.5, 0.1) for color, shape in names)
    if Scene(anywhere, ground).split != split:  # it depends on names alone, places cost time
        return None
    said = tuple(Phrase(shape, color if twin else None) for color, shape in (name, about))
    places, relation = _place_related(rng, number)
    return _finished(rng, names, places, ground, Description(said, relation), "relation")


def _place_related(rng: random.Random, number: int) -> tuple[list[Place], str]:
    """Places of a target, a rival, an anchor and others; and the target's relation to the anchor.

    The rival has another one of the four relations to the anchor.
    """
    while True:
        places = place_apart(rng, number)
        target, rival, anchor = (Thing("circle", "red", *place) for place in places[:3])
        relation, other = relation_of(target, anchor), relation_of(rival, anchor)
        if relation is not None and other is not None and other != relation:
            return places, relation


def _finished(
    rng: random.Random,
    names: Sequence[Name],
    places: Sequence[Place],
    ground: str,
    said: Description,
    kind: str,
) -> Expression:
    """The expression, its things in random order; the first of them is meant."""
    order = rng.sample(range(len(names)), len(names))
    things = tuple(Thing(names[i][1], names[i][0], *places[i]) for i in order)
    return Expression(Scene(things, ground), said, order.index(0), kind, rng.randrange(2**31))
