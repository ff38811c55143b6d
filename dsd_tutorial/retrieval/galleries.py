"""Texts, and a gallery of rendered scenes that has the right image for half of them.

Every text, answered or not, has a near miss in the gallery: its own scene with one fact changed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dsd_tutorial.retrieval.deciding import Answers, draw_and_find
from dsd_tutorial.shapes import (
    BACKGROUNDS,
    COLORS,
    SHAPES,
    Description,
    Scene,
    full_description,
    judge,
    matches,
    parse,
    render,
)
from dsd_tutorial.shapes.scene import iterate_scenes


@dataclass(frozen=True)
class Gallery:
    """Texts, scenes to choose from, and which texts have a right one among them.

    Attributes:
        texts: Captions of scenes with two objects: names, relation and background.
        scenes: Of the gallery.
        answered: Whether the gallery has a right image for each text; by construction, one.
    """

    texts: tuple[str, ...]
    scenes: tuple[Scene, ...]
    answered: tuple[bool, ...]

    def images(self, size: int = 64) -> Float[Tensor, "scenes 3 {size} {size}"]:
        """Return the gallery as images of `size` pixels a side, in [0, 1]."""
        return render(self.scenes, size)[0]

    def right(self, images: Float[Tensor, "texts 3 height width"]) -> Bool[Tensor, " texts"]:
        """Return whether the judge reads in the image for each text all that the text says."""
        return right_images(images, self.texts)

    def answers(self, model: Any, **settings: Any) -> Answers:
        """Return what `draw_and_find` answers to the texts; `settings` are its own."""
        return draw_and_find(model, self.texts, self.images(model.resolution), **settings)


def make_gallery(n: int, size: int = 200, split: str = "test", seed: int = 0) -> Gallery:
    """Return n texts, the first of each two with a right image among `size` scenes.

    The gallery holds that image, a near miss of every text, and other scenes; all in an order that
    says nothing.

    Raises:
        ValueError: A gallery that is too small for its texts.
    """
    least = n + -(-n // 2)
    if n < 1 or size < least:
        raise ValueError(f"size={size} for n={n} texts: need n >= 1 and size >= {least}")
    rng = random.Random(f"gallery {split} {seed}")
    drawn = iterate_scenes(seed, split, one_object_share=0.0)
    own: dict[str, Scene] = {}  # by what they say, whichever thing is named first
    while len(own) < n:
        scene = next(drawn)
        own.setdefault(scene.key(), scene)
    said = [full_description(scene) for scene in own.values()]
    scenes = list(own.values())[::2]
    for scene in own.values():
        tried = iter(lambda scene=scene: near_miss(scene, rng), None)
        scenes.append(_none_of(said, tried))
    while len(scenes) < size:
        scenes.append(_none_of(said, drawn))
    rng.shuffle(scenes)
    texts = tuple(description.text() for description in said)
    return Gallery(texts, tuple(scenes), tuple(i % 2 == 0 for i in range(n)))


def _none_of(said: Sequence[Description], scenes: Iterator[Scene]) -> Scene:
    """Return the first scene for which none of the descriptions is true."""
    return next(x for x in scenes if not any(one.true_of(x) for one in said))


def near_miss(scene: Scene, rng: random.Random) -> Scene:
    """Return the scene with one fact changed: a colour, a shape, the background, or the order."""
    fact = rng.choice(("color", "shape", "background", "order"))
    first, second = scene.things
    if fact == "background":
        return replace(scene, background=_other(tuple(BACKGROUNDS), scene.background, rng))
    if fact == "order":
        swapped = [
            replace(thing, shape=other.shape, color=other.color)
            for thing, other in ((first, second), (second, first))
        ]
        return replace(scene, things=tuple(swapped))
    values = tuple(COLORS) if fact == "color" else SHAPES
    place = rng.randrange(2)
    thing = scene.things[place]
    new = replace(thing, **{fact: _other(values, getattr(thing, fact), rng)})
    return replace(scene, things=(new, second) if place == 0 else (first, new))


def _other(values: Sequence[str], old: str, rng: random.Random) -> str:
    return rng.choice([value for value in values if value != old])


def right_images(
    images: Float[Tensor, "texts 3 height width"], texts: Sequence[str]
) -> Bool[Tensor, " texts"]:
    """Return whether the judge reads in each image all that its text says."""
    verdicts = judge(images)
    return torch.tensor([
        matches(verdict, parse(text)).exact for verdict, text in zip(verdicts, texts, strict=True)
    ])  # fmt: skip
