"""Linear probes: what can be read off the frozen towers before a U-Net is trained on them.

Each probe is a ridge regression onto one-hot labels, fitted on train scenes and scored on test
scenes. A linear map is all that a cross-attention layer's keys and values have, too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsd_tutorial.matching.metrics import Interval, accuracy
from dsd_tutorial.shapes.captions import full_description
from dsd_tutorial.shapes.render import render
from dsd_tutorial.shapes.scene import Scene, random_scenes

Facts = dict[str, Callable[[Scene], str]]
TEXT_FACTS: Facts = {
    "text_first_color": lambda s: s.things[0].color,
    "text_first_shape": lambda s: s.things[0].shape,
    "text_second_color": lambda s: s.things[1].color,
    "text_second_shape": lambda s: s.things[1].shape,
    "text_relation": lambda s: s.relation,
}
IMAGE_FACTS: Facts = {
    "image_shape": lambda s: s.things[0].shape,
    "image_color": lambda s: s.things[0].color,
    "image_background": lambda s: s.background,
}
TEST = 1000  # scenes


def probe(
    train: Tensor, train_labels: Sequence[str], test: Tensor, test_labels: Sequence[str]
) -> Interval:
    """Return the test accuracy of a ridge classifier. `train` (n, d), `test` (m, d): features."""
    from sklearn.linear_model import RidgeClassifier

    center, spread = train.mean(0), train.std().clamp(min=1e-6)
    train, test = (((x - center) / spread).double().numpy() for x in (train, test))
    found = RidgeClassifier(alpha=1.0).fit(train, train_labels).predict(test)
    return accuracy(np.asarray(found) == np.asarray(test_labels))


def text_probes(model: Any, n_train: int = 12000, seed: int = 0) -> dict[str, Interval]:
    """Return which thing has which colour and shape, and the relation, from all token states."""

    def states(scenes: list[Scene]) -> Tensor:
        rng = random.Random(seed)
        texts = [full_description(s, background=rng.random() < 0.5) for s in scenes]
        words = [rng.choice(t.phrasings()) for t in texts]
        return torch.cat([model.encode_text(words[i : i + 500]) for i in range(0, len(words), 500)])

    return _probes(states, TEXT_FACTS, n_train, seed, one_object_share=0.0)


def image_probes(model: Any, n_train: int = 4000, seed: int = 0) -> dict[str, Interval]:
    """Return shape, colour and background of one-object images, from the pooled image state."""

    def states(scenes: list[Scene]) -> Tensor:
        parts = (render(scenes[i : i + 500])[0] for i in range(0, len(scenes), 500))
        return torch.cat([model.encode_clip_image(part).pooled for part in parts])

    return _probes(states, IMAGE_FACTS, n_train, seed, one_object_share=1.0)


def _probes(
    states: Callable[[list[Scene]], Tensor], facts: Facts, n_train: int, seed: int, **options: Any
) -> dict[str, Interval]:
    train, test = (
        random_scenes(n, seed, split=split, **options)
        for split, n in (("train", n_train), ("test", TEST))
    )
    features = [states(scenes).flatten(1).float().cpu() for scenes in (train, test)]
    return {
        name: probe(features[0], [f(s) for s in train], features[1], [f(s) for s in test])
        for name, f in facts.items()
    }
