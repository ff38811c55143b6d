"""Captions of scenes with one word taken out, exchanged or said otherwise, and what passes say.

Each scene has two things that differ in shape and colour, so that a word belongs to one of them.
What a word *can* say is known here: facts are drawn independently and an image shows all of them,
so log p(x | y) - log p(x | y without a word) is the log of how many values the word could have had.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from itertools import product
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from dsd_tutorial.attention import choose_layers, observe, token_heat, word_positions
from dsd_tutorial.information import Information, Levels, information, replace_word
from dsd_tutorial.shapes import (
    BACKGROUNDS,
    COLORS,
    SHAPES,
    Scene,
    full_description,
    random_scenes,
    render,
)
from dsd_tutorial.shapes.captions import RELATION_WORDS
from dsd_tutorial.shapes.scene import INVERSE, TRAINED_PAIRS
from dsd_tutorial.stable_diffusion import shared_noise
from dsd_tutorial.stable_diffusion.noising import time_grid
from lab.measuring.runner import Cache, joined

CLASSES = ("shape", "color", "relation", "background")
UNSAID = ("shape", "color")
SAME = ("relation, other words", "the for a", "there is")  # wordings that change nothing
# what was done, to what: those that are computed together, in the order of the tensors
CONTRASTS = (
    ("caption", "all"),
    *product(("removed", "exchanged"), CLASSES),
    *product(["same"], SAME),
)
MORE = tuple(("unsaid", f"every {k}") for k in UNSAID)  # those for which only totals matter
VERSION = 1  # one more when the tensors of a block change
BLOCK = 20  # scenes computed and saved at a time
TENSORS = ("standard", "orthogonal", "errors")  # of `Information`
Contrasts = Sequence[tuple[str, str]]
GROUPS = 3  # of time steps whose attention is kept apart: early, middle, late


@dataclass(frozen=True)
class WordItem:
    """A scene, its caption, and other captions by what was done to it.

    removed, exchanged   the caption without the word of a class, and with a wrong one in its place
    unsaid               the same of both things, as training captions leave colours or shapes out
    same                 wordings of the same meaning
    words                what a class is called in the caption
    about                index of the thing that shape and colour belong to
    """

    scene: Scene
    caption: str
    removed: dict[str, str]
    exchanged: dict[str, str]
    unsaid: dict[str, str]
    same: dict[str, str]
    words: dict[str, str]
    about: int

    @property
    def known(self) -> dict[str, float]:
        """Return the nats that each word, and the caption ("all"), can say.

        A word: the log of its possible values. The caption: two of the trained (colour, shape) in
        any order, one of four relations, one of four backgrounds, and half of all scenes have two.
        """
        thing, pairs = self.scene.things[self.about], len(TRAINED_PAIRS)
        each = [_choices(thing) for thing in self.scene.things]
        scenes = pairs * (pairs - 1) * len(RELATION_WORDS) * len(BACKGROUNDS)
        return {
            "all": math.log(scenes / 2 / 0.5),
            **_choices(thing),
            "relation": math.log(len(RELATION_WORDS)),
            "background": math.log(len(BACKGROUNDS)),
            **{f"every {k}": sum(one[k] for one in each) for k in UNSAID},
        }

    def mask(self, kind: str, masks: Tensor) -> Tensor:
        """Return where a word of this class has its say, (h, w), from (things, h, w)."""
        both = masks.any(0)
        places = {"relation": both, "background": ~both}
        return places.get(kind, masks[self.about])


def _choices(thing: Any) -> dict[str, float]:
    """Return the log of how many shapes, and how many colours, this thing could have had."""
    return {
        "shape": math.log(sum(c == thing.color for c, _ in TRAINED_PAIRS)),
        "color": math.log(sum(s == thing.shape for _, s in TRAINED_PAIRS)),
    }


def word_item(scene: Scene, about: int) -> WordItem:
    """Return the captions of a scene of two things."""
    said, thing = full_description(scene), scene.things[about]
    text, taken = said.text(), {t.color for t in scene.things} | {t.shape for t in scene.things}
    relation, ground = RELATION_WORDS[said.relation][0], scene.background
    place = f"on a {ground} background"
    words = {"shape": thing.shape, "color": thing.color, "relation": relation, "background": place}
    after = {"shape": "object", "color": "", "relation": "and", "background": ""}
    wrong = {
        "shape": next(s for s in SHAPES if s not in taken and (thing.color, s) in TRAINED_PAIRS),
        "color": next(c for c in COLORS if c not in taken and (c, thing.shape) in TRAINED_PAIRS),
        "relation": INVERSE[said.relation],
        "background": place.replace(ground, next(b for b in BACKGROUNDS if b != ground)),
    }
    first, second = (f"{t.color} {t.shape}" for t in scene.things)
    return WordItem(
        scene, text,
        removed={k: replace_word(text, words[k], after[k]) for k in CLASSES},
        exchanged={k: replace_word(text, words[k], wrong[k]) for k in CLASSES},
        unsaid={
            "every shape": re.sub("|".join(SHAPES), "object", text),
            "every color": reduce(replace_word, (t.color for t in scene.things), text),
        },
        same=dict(zip(SAME, (
            replace_word(text, relation, RELATION_WORDS[said.relation][1]),
            f"the {first} is {relation} the {second} {place}", f"there is {text}",
        ), strict=True)),
        words=words, about=about,
    )  # fmt: skip


def word_items(n: int, split: str, seed: int = 0) -> list[WordItem]:
    """Return items of distinct scenes; first and second thing are asked for in turn."""
    found: dict[Scene, None] = {}
    scenes = random_scenes(1000 + 2 * n, seed, split, one_object_share=0.0)
    for scene in scenes:
        a, b = scene.things
        if a.color != b.color and a.shape != b.shape:
            found[scene] = None
    if len(found) < n:
        raise ValueError(f"only {len(found)} scenes of the {split} split fit; requested are {n}")
    return [word_item(scene, i % 2) for i, scene in enumerate(list(found)[:n])]


@dataclass
class WordData:
    """What passes say about some items, block by block on disk.

    Contrasts are named (what was done, to what): ("removed", "color"), ("same", "the for a"), and
    ("caption", "all") for the caption against no caption.
    """

    model: Any
    items: list[WordItem]
    levels: Levels
    cache: Cache
    progress: bool = True

    @cached_property
    def masks(self) -> list[Tensor]:
        """Return the exact masks of each item's things."""
        return list(render([item.scene for item in self.items], self.model.resolution)[1].cpu())

    @cached_property
    def found(self) -> dict[tuple[str, str], Information]:
        """Return the information of the caption about the image, by contrast."""
        return self._found("information", CONTRASTS)

    @cached_property
    def unsaid(self) -> dict[tuple[str, str], Information]:
        """Return the same where nothing is said of the colours, or shapes, of both things."""
        return self._found("unsaid", MORE)

    def _found(self, name: str, contrasts: Contrasts) -> dict[tuple[str, str], Information]:
        found = self._blocks(name, partial(_information, contrasts=contrasts))
        return {
            contrast: Information(**{x: found[x][:, i] for x in TENSORS}, levels=self.levels)
            for i, contrast in enumerate(contrasts)
        }

    @cached_property
    def heat(self) -> Tensor:
        """Return the attention to the words: (items, classes, groups of steps, layers, h, w)."""
        return self._blocks("heat", _heat)["heat"]

    @property
    def passes(self) -> int:
        """Return the passes that one map of information takes: with and without, at each level."""
        return 2 * len(self.levels)

    def _blocks(self, name: str, compute: Any) -> dict[str, Tensor]:
        blocks = []
        for start in range(0, len(self.items), BLOCK):
            items = self.items[start : start + BLOCK]
            known = [(item.scene, item.about) for item in items]  # what captions follow from
            digest = hashlib.sha256(repr((known, self.levels.steps)).encode()).hexdigest()
            if self.progress:
                tqdm.write(f"{name} of items {start} to {start + len(items) - 1}")
            key = {"of": name, "start": start, "items": digest}
            blocks.append(self.cache.tensors(key, partial(compute, self, items, start)))
        return joined(blocks)


def _information(
    data: WordData, items: Sequence[WordItem], start: int, contrasts: Contrasts
) -> dict[str, Tensor]:
    """Return (items, contrasts, levels, ...); each image has its own noise."""
    images, count = render([item.scene for item in items], data.model.resolution)[0], len(contrasts)
    givens = [_given(item, *contrast) for item in items for contrast in contrasts]
    found = information(
        data.model, images, [item.caption for item in items for _ in contrasts], givens,
        pairs=[(i // count, i) for i in range(len(givens))], levels=data.levels,
        seed=[start + i for i in range(len(items))], progress=False,
    )  # fmt: skip
    return {
        name: getattr(found, name).unflatten(0, (len(items), count)).contiguous()
        for name in TENSORS
    }


def _given(item: WordItem, how: str, what: str) -> str:
    return "" if how == "caption" else getattr(item, how)[what]


@torch.no_grad()
def _heat(data: WordData, items: Sequence[WordItem], start: int) -> dict[str, Tensor]:
    """Return the attention to each class's words, of as many passes as a map of information."""
    model, texts = data.model, [item.caption for item in items]
    latents = model.encode_image(render([item.scene for item in items], model.resolution)[0])
    context, size = model.encode_text(texts), latents.shape[-2:]
    steps = time_grid(data.passes, model.scheduler.config.num_train_timesteps)
    names = list(choose_layers(model, None))
    places = [[word_positions(model, t, item.words[k]) for k in CLASSES]
              for t, item in zip(texts, items, strict=True)]  # fmt: skip
    found = []
    for group in torch.arange(len(steps)).chunk(GROUPS):
        with observe(model, None, heat=True) as seen:
            for s in group.tolist():
                e = [shared_noise(latents.shape[1:], start + i, s) for i in range(len(items))]
                noisy = model.add_noise(latents, torch.cat(e).to(latents), steps[s])
                model.predict_noise(noisy, steps[s], context)
        (heat,) = seen.heat.batches
        layers = [token_heat({"": heat.means[name]}, size) for name in names]
        found.append(torch.stack(layers, 1).cpu())  # (items, layers, tokens, h, w)
    whole = torch.stack(found, 1)  # (items, groups, layers, tokens, h, w)
    rows = [torch.stack([row[:, :, at].mean(2) for at in own])
            for row, own in zip(whole, places, strict=True)]  # fmt: skip
    return {"heat": torch.stack(rows).contiguous()}
