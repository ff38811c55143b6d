"""Few-shot classes over a bridge: `python -m lab measure bridge` -> results/bridge.csv.

After SeMoBridge (Timmermann et al., arXiv 2509.26036): CLIP compares images with texts, so images
are carried into the text space before they are compared with images. Here: W_t applied to the state
that SD-IPC's inverse makes of an image. Classes are the domains that no training image belongs to;
prototypes are means over a few images of each, and the text of a class may be added.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor
from typer import Option

from dsd_tutorial.matching import seeds_difference
from dsd_tutorial.matching.metrics import accuracy
from dsd_tutorial.projection import calibrate, collect_pairs, fit_inverse
from dsd_tutorial.shapes import DOMAINS, domain_scenes, render
from dsd_tutorial.stable_diffusion.encoders import ClipImage
from lab.measuring.plans import Plan, Seed
from lab.measuring.runner import Item, Runner, measures
from lab.measuring.tables import Row, bounds

KEYS = ("prototypes", "shots")
COLUMNS = (*KEYS, "accuracy", "low", "high", "n", "draws", "gap", "gap_low", "gap_high")
METHODS = ("truncated", "mean_shift", "centered")
TEST_SEED = 4_000
Space = Callable[[ClipImage], Tensor]  # (images, width)


class BridgePlan(Plan):
    """How many images, and how often the few are drawn."""

    n: Annotated[PositiveInt, Option(min=10, help="Test images.")] = 300  # classes in equal parts
    shots: tuple[int, ...] = (1, 4, 16)
    draws: Annotated[PositiveInt, Option(min=2, help="Of the few labelled images.")] = 5
    seed: Seed = 0


@measures("bridge", BridgePlan, unit="numbers of shots")
def evaluate_bridge(runner: Runner, plan: BridgePlan) -> Path:
    """Return the path of bridge.csv after measuring what it lacks."""
    items = [
        Item({"prototypes": "images", "shots": k}, partial(measured, runner.model, plan, k))
        for k in plan.shots
    ]
    return runner.write(items, COLUMNS, KEYS)


def encoded(model: Any, per_class: int, seed: int, split: str) -> ClipImage:
    """Return what CLIP sees of `per_class` images of every domain, class by class."""
    scenes = [x for name in DOMAINS for x in domain_scenes(name, per_class, seed, split)]
    with torch.no_grad():
        return model.encode_clip_image(render(scenes, model.resolution, model.device)[0])


def spaces(model: Any, seed: int = 0) -> dict[str, Space]:
    """Return by name where images are compared: their own space, and behind each bridge."""
    known, pairs = calibrate(model, seed=seed), collect_pairs(model, seed=seed + 1)
    found: dict[str, Space] = {"images": lambda seen: F.normalize(seen.embedding, dim=-1)}
    for method in METHODS:
        inverse = fit_inverse(model, method, calibration=known, pairs=pairs, progress=False)
        found[method] = lambda seen, inverse=inverse: F.normalize(
            model.clip.text_projection(inverse(seen).float()), dim=-1
        )
    return found


@torch.no_grad()
def measured(model: Any, plan: BridgePlan, shots: int) -> list[Row]:
    """Return the rows of one number of shots."""
    classes, ways = len(DOMAINS), spaces(model, plan.seed)
    test = encoded(model, plan.n // classes, TEST_SEED, "test")
    label = torch.arange(classes).repeat_interleave(plan.n // classes)
    texts = F.normalize(model.encode_clip_text([text for _, text in DOMAINS.values()]), dim=-1)
    right: dict[str, list[np.ndarray]] = {}

    def note(name: str, queries: Tensor, prototypes: Tensor) -> None:
        hits = (queries @ F.normalize(prototypes, dim=-1).T).argmax(1).cpu() == label
        right.setdefault(name, []).append(hits.numpy().astype(float))

    for draw, (name, space) in product(range(plan.draws), ways.items()):
        few = encoded(model, shots, plan.seed + draw, "train")
        prototypes = space(few).view(classes, shots, -1).mean(1)
        queries = ways["images"](test)
        note(name, queries, prototypes)
        note(f"{name}+text", queries, F.normalize(prototypes, dim=-1) + texts)
        if name != "images":  # what is asked goes over the bridge, too
            note(f"{name}, both", space(test), prototypes)
            note(f"{name}, both+text", space(test), F.normalize(prototypes, dim=-1) + texts)
        note("text", queries, texts)
    return [_row(name, shots, np.stack(hits), right["images"]) for name, hits in right.items()]


def _row(name: str, shots: int, hits: np.ndarray, plain: list[np.ndarray]) -> Row:
    hits = hits[: len(plain)]
    value = accuracy(hits.mean(0), method="bootstrap")
    return {
        "prototypes": name, "shots": shots, "accuracy": value.value, "low": value.low,
        "high": value.high, "n": value.n, "draws": len(plain),
        **bounds("gap", seeds_difference(hits, np.stack(plain))),
    }  # fmt: skip
