"""Scenes of one to four coloured shapes on a plain background, and how one or two are drawn.

Coordinates are fractions of the canvas: x grows to the right, y grows *downwards*, as in an image.
A two-object scene satisfies exactly one of the four relations, so that a caption which names
another relation is truly false. No model was trained on more than two: `crowds.py` draws those.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

RGB = tuple[float, float, float]
Name = tuple[str, str]  # (colour, shape)
Place = tuple[float, float, float]  # (x, y, radius)

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLORS: dict[str, RGB] = {
    "red": (0.86, 0.13, 0.13),
    "green": (0.12, 0.62, 0.22),
    "blue": (0.13, 0.27, 0.90),
    "yellow": (0.98, 0.86, 0.10),
    "purple": (0.56, 0.18, 0.70),
    "orange": (1.00, 0.50, 0.04),
}
BACKGROUNDS: dict[str, RGB] = {
    "white": (0.97, 0.97, 0.97),
    "gray": (0.55, 0.55, 0.55),
    "black": (0.05, 0.05, 0.05),
    "pink": (1.00, 0.76, 0.82),
}
RELATIONS = ("left of", "right of", "above", "below")
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
TEXTURES = ("plain",)

# Values that no training image or training caption contains.
HELD_OUT_SHAPES = ("diamond", "heart")
HELD_OUT_COLORS: dict[str, RGB] = {"cyan": (0.10, 0.80, 0.86), "brown": (0.45, 0.27, 0.10)}
HELD_OUT_TEXTURES = ("striped",)
HELD_OUT_PAIRS = (("red", "star"), ("blue", "cross"), ("green", "ring"), ("yellow", "triangle"))

TRAINED_PAIRS = tuple((c, s) for c in COLORS for s in SHAPES if (c, s) not in HELD_OUT_PAIRS)

ALL_SHAPES = SHAPES + HELD_OUT_SHAPES
ALL_COLORS = {**COLORS, **HELD_OUT_COLORS}
ALL_TEXTURES = TEXTURES + HELD_OUT_TEXTURES

# Radii are apart by a gap, so that "small" and "large" are never a matter of taste.
RADIUS = {"small": (0.14, 0.17), None: (0.19, 0.23), "large": (0.26, 0.32)}
MOST_THINGS = 4
PAIR_RADIUS = (0.17, 0.22)  # two objects side by side must fit on the canvas
GAP = 0.03  # least free space between two objects
OFF_AXIS = 0.08  # how far two related objects may be offset on the other axis
SIDE = 0.36  # a centre at or below this fraction is "left" / "top"
MIDDLE = 0.06  # a centre this close to one half is in the middle

SPLITS = ("train", "validation", "test")
SIZES = ("small", "large")
ZONES = {  # position: zone of the centre along x, along y
    "on the left": ("low", "mid"), "on the right": ("high", "mid"),
    "at the top": ("mid", "low"), "at the bottom": ("mid", "high"), "in the center": ("mid", "mid"),
    "in the top left": ("low", "low"), "in the top right": ("high", "low"),
    "in the bottom left": ("low", "high"), "in the bottom right": ("high", "high"),
}  # fmt: skip
POSITIONS = tuple(ZONES)


def check_known(what: str, value: object, allowed: Collection[str]) -> None:
    """Raise ValueError, with the choices, unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"unknown {what} {value!r}; choose one of {', '.join(allowed)}")


@dataclass(frozen=True)
class Thing:
    """One object: shape, colour, centre (x right, y down) and radius as fractions of the canvas."""

    shape: str
    color: str
    x: float
    y: float
    radius: float
    texture: str = "plain"

    def __post_init__(self) -> None:
        check_known("shape", self.shape, ALL_SHAPES)
        check_known("color", self.color, ALL_COLORS)
        check_known("texture", self.texture, ALL_TEXTURES)

    @property
    def size(self) -> str | None:
        """'small', 'large', or None where the radius lies between the two."""
        if self.radius <= RADIUS["small"][1]:
            return "small"
        return "large" if self.radius >= RADIUS["large"][0] else None

    @property
    def position(self) -> str | None:
        """One of `POSITIONS`, or None where the centre lies between two of them."""
        here = _zone(self.x), _zone(self.y)
        return next((position for position, zones in ZONES.items() if zones == here), None)

    @property
    def name(self) -> str:
        """Texture, colour and shape, such as 'plain red circle'."""
        return f"{self.texture} {self.color} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """One to four things on a background. Of two the first is the subject of `relation`."""

    things: tuple[Thing, ...]
    background: str

    def __post_init__(self) -> None:
        check_known("background", self.background, BACKGROUNDS)
        if not 1 <= len(self.things) <= MOST_THINGS:
            raise ValueError(f"a scene holds 1 to {MOST_THINGS} things, not {len(self.things)}")

    @property
    def relation(self) -> str | None:
        """The relation of the first of two things to the second; else, or if none holds, None."""
        return relation_of(*self.things) if len(self.things) == 2 else None

    def key(self) -> str:
        """What the scene says in words, the same whichever thing is named first."""
        first, *others = self.things
        if not others:
            return f"{first.name} {first.size} {first.position} on {self.background}"
        if len(others) > 1:  # many things have many relations: their names alone
            return f"{', '.join(sorted(t.name for t in self.things))} on {self.background}"
        second, relation = others[0], self.relation
        if relation in ("right of", "below"):
            first, second, relation = second, first, INVERSE[relation]
        return f"{first.name} {relation} {second.name} on {self.background}"

    def hash(self) -> int:
        """A 64-bit number that depends on `key()` alone and never changes between runs."""
        return int.from_bytes(hashlib.sha256(self.key().encode()).digest()[:8], "big")

    @property
    def split(self) -> str:
        """'train' (80 %), 'validation' (10 %) or 'test' (10 %), by hash.

        No test scene's combination of objects, relation and background is ever trained on.
        """
        bucket = self.hash() % 10
        return "train" if bucket < 8 else SPLITS[bucket - 7]


def relation_of(first: Thing, second: Thing) -> str | None:
    """The one relation that `first` has to `second`, or None where it is not clear-cut."""
    dx, dy = second.x - first.x, second.y - first.y
    apart = first.radius + second.radius + GAP - 1e-9
    if abs(dx) >= apart and abs(dy) <= OFF_AXIS + 1e-9:
        return "left of" if dx > 0 else "right of"
    if abs(dy) >= apart and abs(dx) <= OFF_AXIS + 1e-9:
        return "above" if dy > 0 else "below"
    return None


def _zone(value: float) -> str | None:
    if value <= SIDE:
        return "low"
    if value >= 1 - SIDE:
        return "high"
    return "mid" if abs(value - 0.5) <= MIDDLE else None


def _coordinate(rng: random.Random, radius: float) -> float:
    low = radius + 0.01
    kind = rng.randrange(4)
    if kind == 0:
        return rng.uniform(low, SIDE)
    if kind == 1:
        return rng.uniform(1 - SIDE, 1 - low)
    return rng.uniform(0.5 - MIDDLE, 0.5 + MIDDLE) if kind == 2 else rng.uniform(low, 1 - low)


def place_pair(rng: random.Random, relation: str) -> tuple[Place, Place]:
    """(x, y, radius) of two things such that the first has `relation` to the second, no other."""
    first, second = rng.uniform(*PAIR_RADIUS), rng.uniform(*PAIR_RADIUS)
    flipped = relation in ("right of", "below")
    a, b = (second, first) if flipped else (first, second)  # a comes first along the axis
    distance = rng.uniform(a + b + GAP, 1 - a - b - 0.02)
    start = rng.uniform(a + 0.01, 1 - b - 0.01 - distance)
    widest = max(a, b) + 0.01
    across = rng.uniform(widest, 1 - widest)
    low, high = max(widest, across - OFF_AXIS), min(1 - widest, across + OFF_AXIS)
    near, far = (start, across, a), (start + distance, rng.uniform(low, high), b)
    if relation in ("above", "below"):
        near, far = ((y, x, r) for x, y, r in (near, far))
    return (far, near) if flipped else (near, far)


def random_scene(
    rng: random.Random,
    things: int = 2,
    names: Sequence[Name] = TRAINED_PAIRS,
    textures: Sequence[str] = TEXTURES,
) -> Scene:
    """One scene of `things` objects whose (colour, shape) come from `names`, all drawn by `rng`."""
    background = rng.choice(tuple(BACKGROUNDS))
    if things == 1:
        chosen = [rng.choice(names)]
        radius = rng.uniform(*RADIUS[rng.choice(("small", None, None, "large"))])
        places = [(_coordinate(rng, radius), _coordinate(rng, radius), radius)]
    else:
        chosen = rng.sample(names, 2)
        places = place_pair(rng, rng.choice(RELATIONS))
    made = tuple(
        Thing(shape, color, *place, rng.choice(textures))
        for (color, shape), place in zip(chosen, places, strict=True)
    )
    return Scene(made, background)


def iterate_scenes(
    seed: int,
    split: str | None = None,
    one_object_share: float = 0.5,
    names: Sequence[Name] = TRAINED_PAIRS,
    textures: Sequence[str] = TEXTURES,
) -> Iterator[Scene]:
    """Endless scenes of one split (None: of any), `one_object_share` of them with one object."""
    if split is not None:
        check_known("split", split, SPLITS)
    rng = random.Random(seed)
    while True:
        things = 1 if rng.random() < one_object_share else 2
        while True:  # a rejected scene is redrawn with as many things, so the share holds
            scene = random_scene(rng, things, names, textures)
            if split is None or scene.split == split:
                break
        yield scene


def random_scenes(n: int, seed: int, split: str | None = None, **options: Any) -> list[Scene]:
    """`n` scenes; the same seed and options give the same scenes. Options: `iterate_scenes`."""
    scenes = iterate_scenes(seed, split, **options)
    return [next(scenes) for _ in range(n)]


# Worlds that no training image belongs to: options of `random_scenes`, and a text for the class.
DOMAINS: dict[str, tuple[dict[str, Any], str]] = {
    **{s: ({"names": [(c, s) for c in COLORS]}, f"a {s}") for s in HELD_OUT_SHAPES},
    **{c: ({"names": [(c, s) for s in SHAPES]}, f"a {c} object") for c in HELD_OUT_COLORS},
    "striped": ({"textures": ("striped",)}, "a striped object"),
}


def domain_scenes(name: str, n: int, seed: int, split: str) -> list[Scene]:
    """Scenes of one object: of a domain, or "old" for the world the model was trained on."""
    options = {} if name == "old" else DOMAINS[name][0]
    return random_scenes(n, seed, split=split, one_object_share=1.0, **options)
