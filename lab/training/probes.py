"""Linear probes: what can be read off the frozen towers before a U-Net is trained on them.

Each probe is a ridge regression onto one-hot labels, fitted on train scenes and scored on test
scenes. A linear map is all that a cross-attention layer's keys and values have, too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from dsd_tutorial.matching.metrics import Interval, accuracy
from dsd_tutorial.shapes.captions import full_description
from dsd_tutorial.shapes.render import render
from dsd_tutorial.shapes.scene import Scene, random_scenes

TEXT_FACTS: dict[str, Callable[[Scene], str]] = {
    "text_first_color": lambda s: s.things[0].color,
    "text_first_shape": lambda s: s.things[0].shape,
    "text_second_color": lambda s: s.things[1].color,
    "text_second_shape": lambda s: s.things[1].shape,
    "text_relation": lambda s: s.relation,
}
IMAGE_FACTS: dict[str, Callable[[Scene], str]] = {
    "image_shape": lambda s: s.things[0].shape,
    "image_color": lambda s: s.things[0].color,
    "image_background": lambda s: s.background,
}


def probe(
    train: Tensor, train_labels: Sequence[str], test: Tensor, test_labels: Sequence[str]
) -> Interval:
    """Test accuracy of a ridge classifier. `train` (n, d), `test` (m, d): features."""
    from sklearn.linear_model import RidgeClassifier

    center, spread = train.mean(0), train.std().clamp(min=1e-6)
    train, test = (((x - center) / spread).double().numpy() for x in (train, test))
    found = RidgeClassifier(alpha=1.0).fit(train, train_labels).predict(test)
    return accuracy(np.asarray(found) == np.asarray(test_labels))


def text_probes(model, n_train: int = 12000, n_test: int = 1000, seed: int = 0) -> dict:
    """Which thing has which colour and shape, and the relation, read from all token states."""
    states, scenes = [], []
    for split, n in (("train", n_train), ("test", n_test)):
        rng = random.Random(seed)
        part = random_scenes(n, seed, split=split, one_object_share=0.0)
        texts = [full_description(s, background=rng.random() < 0.5) for s in part]
        words = [rng.choice(t.phrasings()) for t in texts]
        encoded = torch.cat([model.encode_text(words[i : i + 500]) for i in range(0, n, 500)])
        states.append(encoded.flatten(1).float().cpu())
        scenes.append(part)
    return {
        name: probe(states[0], [f(s) for s in scenes[0]], states[1], [f(s) for s in scenes[1]])
        for name, f in TEXT_FACTS.items()
    }


def image_probes(model, n_train: int = 4000, n_test: int = 1000, seed: int = 0) -> dict:
    """Shape, colour and background of one-object pictures, read from the pooled image state."""
    states, scenes = [], []
    for split, n in (("train", n_train), ("test", n_test)):
        part = random_scenes(n, seed, split=split, one_object_share=1.0)
        batches = [render(part[i : i + 500])[0] for i in range(0, n, 500)]
        pooled = torch.cat([model.encode_clip_image(b).pooled for b in batches])
        states.append(pooled.float().cpu())
        scenes.append(part)
    return {
        name: probe(states[0], [f(s) for s in scenes[0]], states[1], [f(s) for s in scenes[1]])
        for name, f in IMAGE_FACTS.items()
    }
