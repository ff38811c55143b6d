"""Image quality without a reference: `python -m lab measure quality` -> results/quality.csv.

Rendered scenes are degraded in a known kind and strength, and the strength is regressed on
features: attention to quality prompts, given and learned, beside controls and plain baselines. A
row says how well the order was found on test images, averaged over kinds and seeds (of the images
that were fitted, the noises and what is learned): with all kinds known (held_out "none"), with one
kind left out of all that was fitted, averaged over the four ways to do that ("each"), and with a
regression for each kind alone ("others"), which says what can be read at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor
from typer import Option

from dsd_tutorial.quality import (
    KINDS,
    WORDS,
    Degraded,
    degraded_scenes,
    encode_prompts,
    fit_prompts,
    pixel_statistics,
    quality_readings,
    rank_correlation,
    regression,
)
from dsd_tutorial.quality.prompts import STEPS
from lab.measuring.plans import Plan, Seeds
from lab.measuring.runner import Item, Runner, measures
from lab.measuring.tables import Row, bounds

KEYS = ("features", "held_out")
COLUMNS = (
    *KEYS, "value", "low", "high", "n", "seeds", "gap", "gap_low", "gap_high", "count",
    "passes",
)  # fmt: skip
TEST_SEED = 900
TEXTS = {
    "words": WORDS,
    "other_words": ("a red circle on the left", "a blue star on the right"),  # name no quality
    "no_words": ("",),
}


class QualityPlan(Plan):
    """How many images and seeds, and how prompts are learned."""

    n: Annotated[PositiveInt, Option(min=12, help="Test images.")] = 300
    train: Annotated[PositiveInt, Option(min=12, help="Images that are fitted.")] = (
        240  # of each seed
    )
    seeds: Seeds = 3
    time_steps: tuple[int, ...] = STEPS
    updates: PositiveInt = 40


class Data:
    """Images, and the features that were computed of them."""

    def __init__(self, runner: Runner, plan: QualityPlan):
        self.model, self.plan, self.cache = runner.model, plan, runner.cache
        self.test = degraded_scenes(self.model, plan.n, TEST_SEED, "test")
        self.train = [degraded_scenes(self.model, plan.train, seed) for seed in range(plan.seeds)]

    def readings(self, prompts: Tensor, seed: int, known: Degraded) -> tuple[Tensor, Tensor]:
        """Return the readings of the images that are fitted, and of the test images."""
        how = {"steps": self.plan.time_steps, "seed": seed, "progress": False}
        first, second = (
            quality_readings(self.model, x.images, prompts, **how) for x in (known, self.test)
        )
        return first, second

    def kept(
        self, name: str, held_out: str, seed: int, make: Callable[[], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Return both features, computed once."""
        key = {"what": name, "held_out": held_out, "seed": seed}

        def compute() -> dict[str, Tensor]:
            train, test = make()
            return {"train": train.float().contiguous(), "test": test.float().contiguous()}

        pair = self.cache.tensors(key, compute)
        return pair["train"], pair["test"]


def features_of(data: Data, name: str, held_out: str, seed: int) -> tuple[Tensor, Tensor]:
    """Return features of the images that are fitted without a kind, and of the test images."""
    known = data.train[seed]
    rest = known.select([kind for kind in KINDS if kind != held_out])
    if name.endswith(UNSIGNED):
        return features_of(data, name.removesuffix(UNSIGNED), held_out, seed)
    if "+" in name:
        parts = [features_of(data, part, held_out, seed) for part in name.split("+")]
        first, second = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        return first, second
    if name == "learned":
        return data.kept(name, held_out, seed, partial(_learned, data, rest, seed))
    first, second = data.kept(name, "none", seed, partial(_given, data, name, known, seed))
    return first[[kind != held_out for kind in known.kinds]], second


def _learned(data: Data, rest: Degraded, seed: int) -> tuple[Tensor, Tensor]:
    prompts = fit_prompts(
        data.model, rest, updates=data.plan.updates, steps=data.plan.time_steps, seed=seed,
        progress=False,
    )  # fmt: skip
    return data.readings(prompts, seed, rest)


def _given(data: Data, name: str, known: Degraded, seed: int) -> tuple[Tensor, Tensor]:
    """Return features that nothing was fitted for."""
    model = data.model
    if name in PLAIN:
        return PLAIN[name](model, known.images), PLAIN[name](model, data.test.images)
    if name in TEXTS:
        return data.readings(encode_prompts(model, TEXTS[name]), seed, known)
    words = encode_prompts(model, WORDS)  # states of the same length in random directions
    prompts = torch.randn(words.shape, generator=torch.Generator().manual_seed(seed)).to(words)
    prompts = prompts / prompts.norm(dim=-1, keepdim=True) * words.norm(dim=-1, keepdim=True)
    return data.readings(prompts, seed, known)


def _clip(model: Any, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model.encode_clip_image(images).pooled.cpu()


def _latents(model: Any, images: Tensor) -> Tensor:
    """Return what the U-Net is given: mean, spread and gradient of each channel of the latents."""
    with torch.no_grad():
        z = model.encode_image(images).cpu()
    steps = (z.diff(dim=-1).abs().mean((2, 3)), z.diff(dim=-2).abs().mean((2, 3)))
    return torch.cat([z.mean((2, 3)), z.std((2, 3)), *steps], dim=1)


PLAIN: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "pixels": lambda model, images: pixel_statistics(images), "clip": _clip, "latents": _latents
}  # fmt: skip
UNSIGNED = "_unsigned"  # regressed with the features' distances from their means beside them
FEATURES = (
    *PLAIN, "no_words", "other_words", "random_states", "words", "learned", "pixels+learned",
    "pixels_unsigned", "learned_unsigned",
)  # fmt: skip


@measures("quality", QualityPlan, unit="sets of features")
def evaluate_quality(runner: Runner, plan: QualityPlan) -> Path:
    """Return the path of quality.csv after measuring what it lacks."""
    data = Data(runner, plan)
    items = [
        Item({"features": name, "held_out": "none"}, partial(measured, data, name),
             30.0 if name == "learned" else 1.0)
        for name in FEATURES
    ]  # fmt: skip
    return runner.write(items, COLUMNS, KEYS)


def measured(data: Data, name: str) -> list[Row]:
    """Return the rows of one set of features."""
    found = dict(predictions(data, name))
    plain = found if name == "pixels" else dict(predictions(data, "pixels"))
    count = features_of(data, name, "none", 0)[0].shape[1]
    plain_only = set(name.removesuffix(UNSIGNED).split("+")) <= set(PLAIN)
    passes = 0 if plain_only else len(data.plan.time_steps)
    rows = []
    for held_out, (rows_of, predicted) in found.items():
        true, kinds = data.test.strengths[rows_of], [data.test.kinds[i] for i in rows_of]
        gap = rank_correlation(predicted, true, kinds, against=plain[held_out][1])
        rows.append({
            "features": name, "held_out": held_out, "seeds": data.plan.seeds, "count": count,
            "passes": passes, **rank_correlation(predicted, true, kinds).as_dict(),
            **bounds("gap", gap),
        })  # fmt: skip
    return rows


def predictions(data: Data, name: str) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """Yield by what was held out which test images were predicted, and (seeds, images) of them."""
    every, seeds = np.arange(len(data.test)), range(data.plan.seeds)
    yield "none", (every, np.stack([_predicted(data, name, "none", s) for s in seeds]))
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"each": [], "others": []}
    for kind in KINDS:
        rows = np.flatnonzero(np.array(data.test.kinds) == kind)
        for title, alone in (("each", False), ("others", True)):
            whole = np.stack([_predicted(data, name, kind, s, alone) for s in seeds])
            parts[title].append((rows, whole[:, rows]))
        yield kind, parts["each"][-1]
    for title, found in parts.items():
        rows, predicted = (np.concatenate(x, axis=-1) for x in zip(*found, strict=True))
        yield title, (rows, predicted)


def _predicted(data: Data, name: str, kind: str, seed: int, alone: bool = False) -> np.ndarray:
    """Return what is predicted of the test images without a kind, or from that kind alone."""
    first, second = features_of(data, name, "none" if alone else kind, seed)
    known = data.train[seed]
    true = known.strengths[[alone or k != kind for k in known.kinds]]
    if alone:
        own = [k == kind for k in known.kinds]
        first, true = first[own], true[own]
    fitted = regression(unsigned=name.endswith(UNSIGNED)).fit(first.numpy(), true.numpy())
    return fitted.predict(second.numpy())
