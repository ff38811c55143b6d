"""The four matching tasks with hard negatives, their splits and how their scores are counted.

The forms follow He et al., arXiv 2305.10722: one text and two images (ComVG), one image and ten
texts (referring expressions, VQA "other"), two images and two texts (Winoground). The content is
the shapes world's, where every negative is known to be false.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from dsd_tutorial.shapes.render import render
from dsd_tutorial.shapes.scene import (
    ALL_TEXTURES,
    COLORS,
    HELD_OUT_COLORS,
    HELD_OUT_PAIRS,
    HELD_OUT_SHAPES,
    SHAPES,
    SPLITS,
    TRAINED_PAIRS,
    Name,
    Scene,
    check_known,
)
from dsd_tutorial.shapes.task_items import Item, Maker, Pool, two_images
from dsd_tutorial.shapes.ten_texts import (
    answer_attribute,
    answer_background,
    answer_relation,
    refer_by_place,
    refer_by_relation,
)

MAKERS: dict[str, dict[str, Maker]] = {
    "comvg": {k: two_images(k, texts=1) for k in ("subject", "relation", "object", "bindings")},
    "refcoco": {"relation": refer_by_relation, "place": refer_by_place},
    "vqa": {
        "color": answer_attribute("color"), "shape": answer_attribute("shape"),
        "background": answer_background, "relation": answer_relation,
    },
    "winoground": {k: two_images(k, texts=2) for k in ("objects", "colors")},
}  # fmt: skip
TASKS = tuple(MAKERS)
NAMES: dict[str, tuple[Name, ...]] = {
    "trained": TRAINED_PAIRS,
    "held_out_pairs": HELD_OUT_PAIRS,
    "held_out_shapes": tuple((c, s) for c in COLORS for s in HELD_OUT_SHAPES),
    "held_out_colors": tuple((c, s) for c in HELD_OUT_COLORS for s in SHAPES),
}
VALIDATION_ITEMS = 256
VALIDATION_SEED = 32_000
_TRIES = 20_000  # draws per item before a kind is given up as impossible
# kinds for which the four held-out pairs, which share no word, are too few
_NEED_MORE = {
    "comvg": ("relation", "bindings"),
    "vqa": ("color", "shape"),
    "winoground": ("objects", "colors"),
}


@dataclass(frozen=True)
class Task:
    """Items of one matching task, all of one form: `shape` = (images, texts) per item."""

    name: str
    items: tuple[Item, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(images, texts) per item: (2, 1), (1, 10) or (2, 2)."""
        return len(self.items[0].images), len(self.items[0].texts)

    @property
    def candidates(self) -> int:
        """How many candidates one decision has: 2 or 10."""
        return max(self.shape)

    @property
    def chance(self) -> dict[str, float]:
        """What random scores reach, for each key of `accuracy`."""
        if self.shape == (2, 2):
            return {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6}
        return {"accuracy": 1 / self.candidates}

    @cached_property
    def scenes(self) -> tuple[Any, ...]:
        """All distinct scenes (or files), in order of first appearance; `pairs` counts these."""
        return tuple(dict.fromkeys(s for item in self.items for s in item.images))

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """All distinct texts, in order of first appearance; `pairs` counts these."""
        return tuple(dict.fromkeys(t for item in self.items for t in item.texts))

    @property
    def kinds(self) -> Shaped[np.ndarray, " items"]:
        """The kind of each item, for accuracies by kind."""
        return np.array([item.kind for item in self.items])

    def images(self, size: int = 64) -> Float[Tensor, "scenes 3 {size} {size}"]:
        """`scenes` as images of `size` pixels a side, in [0, 1]."""
        return render(self.scenes, size)[0]

    def pairs(self) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
        """Image index and text index of all that must be scored, items * images * texts pairs.

        Item by item; within one, image by image, then text by text.
        """
        image = {s: i for i, s in enumerate(self.scenes)}
        text = {t: i for i, t in enumerate(self.texts)}
        rows = [(image[s], text[t]) for item in self.items for s in item.images for t in item.texts]
        image_index, text_index = np.array(rows, dtype=np.int64).T
        return image_index, text_index

    def accuracy(self, scores: Tensor | np.ndarray) -> dict[str, Bool[np.ndarray, " items"]]:
        """Whether each item is right: {"accuracy": ...}, or {"text", "image", "group"}.

        A tie with the right candidate, or a score that is not a number, is wrong.

        Args:
            scores: one per row of `pairs()`, higher is a better match; or the table of all
                scenes and texts.

        Raises:
            ValueError: the number of scores is neither.
        """
        table = np.asarray(scores.detach().cpu() if isinstance(scores, Tensor) else scores, float)
        if table.shape == (len(self.scenes), len(self.texts)):
            table = table[self.pairs()]
        number = len(self.items) * self.shape[0] * self.shape[1]
        if table.shape != (number,):
            raise ValueError(
                f"scores of shape {table.shape}; expected ({number},) for the rows of pairs() or "
                f"the table ({len(self.scenes)}, {len(self.texts)}) of scenes and texts"
            )
        table = table.reshape(len(self.items), *self.shape)
        correct = np.array([item.correct for item in self.items])
        if self.shape != (2, 2):
            return {"accuracy": _wins(table.reshape(len(table), -1), correct)}
        text = _wins(table[:, 0], correct) & _wins(table[:, 1], 1 - correct)
        image = _wins(table[:, :, 0], correct) & _wins(table[:, :, 1], 1 - correct)
        return {"text": text, "image": image, "group": text & image}


def _wins(
    scores: Float[np.ndarray, "items candidates"], correct: Int[np.ndarray, " items"]
) -> Bool[np.ndarray, " items"]:
    """Whether score `correct` of each row beats all others strictly."""
    rows = np.arange(len(scores))
    others = scores.copy()
    others[rows, correct] = -np.inf
    rivals = others.max(axis=1)  # NaN if any rival is NaN; every comparison with it is False
    return scores[rows, correct] > rivals


def kinds_of(name: str, names: str = "trained") -> dict[str, Maker]:
    """The kinds of items of task `name` that the `names` can form; ValueError if none."""
    check_known("task", name, TASKS)
    check_known("names", names, NAMES)
    barred = _NEED_MORE.get(name, ()) if names == "held_out_pairs" else ()
    kinds = {kind: make for kind, make in MAKERS[name].items() if kind not in barred}
    if not kinds:
        raise ValueError(f"the four {names} cannot form {name!r} items; choose other names")
    return kinds


def make_task(
    name: str,
    n: int,
    split: str = "test",
    seed: int = 0,
    names: str = "trained",
    texture: str = "plain",
) -> Task:
    """A task of `n` items, its kinds in turn, all scenes distinct and of one split.

    With the same seed a longer task begins with the shorter one.

    Args:
        name: one of `TASKS`.
        n: number of items.
        split: "train", "validation" or "test".
        seed: of all that is drawn.
        names: which (colour, shape) pairs occur, one of `NAMES`.
        texture: of all things, "plain" or "striped"; never said.

    Raises:
        ValueError: a value is unknown, or no item can be formed.
    """
    makers = tuple(kinds_of(name, names).items())
    check_known("split", split, SPLITS)
    check_known("texture", texture, ALL_TEXTURES)
    if n < 1:
        raise ValueError(f"n = {n}; a task needs at least one item")
    rng = random.Random(f"{name} {split} {names} {texture} {seed}")
    pool = Pool(NAMES[names], texture, split)
    items: list[Item] = []
    seen: set[Scene] = set()
    for i in range(n):
        kind, make = makers[i % len(makers)]
        for _ in range(_TRIES):
            item = make(rng, pool)
            if item is not None and seen.isdisjoint(item.images):
                break
        else:
            raise ValueError(
                f"no {kind!r} item of {name!r} found in the {split} split with {names} names; "
                "choose another split or other names"
            )
        seen.update(item.images)
        items.append(item)
    return Task(name, tuple(items))


def few_shot(name: str, shots: int, seed: int = 0, names: str = "trained") -> Task:
    """`shots` items of the train split; subsets of one seed are nested, seeds are independent."""
    return make_task(name, shots, split="train", seed=seed, names=names)


def validation_set(name: str, n: int = VALIDATION_ITEMS) -> Task:
    """The one fixed set of the validation split on which all choices are made; its first n items.

    A choice among many by few items is luck: hence 256.
    """
    return make_task(name, n, split="validation", seed=VALIDATION_SEED)
