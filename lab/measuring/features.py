"""Measures what features know: `python -m lab measure features` -> results/features.csv.

Four parts, in this order; each reads what the one before it chose on validation scenes.

probes     what a linear probe reads off each block at each time step: shape, colour, background and
           relation, from features pooled over all positions, over each quarter of the image, and
           over the mask of the thing (or the background) that is asked about
units      F1 of single units at the block and time step where probes read most: a sparse
           autoencoder's against neurons, principal axes and others of equal sparsity; a row is a
           thing or a background
positions  the same where a row is one position of the block
steering   what is drawn when a unit's direction is added to the features

A row says where (block, step), how (method), what of (attribute) and which measure it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
from pydantic import PositiveInt
from torch import Tensor
from typer import Option

from dsd_tutorial.features import (
    answers,
    collect,
    label_positions,
    label_regions,
    probe,
    probe_scenes,
)
from dsd_tutorial.features.collecting import Cell
from dsd_tutorial.features.places import Places
from dsd_tutorial.features.probing import ATTRIBUTES
from dsd_tutorial.matching import accuracy
from dsd_tutorial.shapes import Scene
from dsd_tutorial.stable_diffusion.noising import time_grid
from lab.measuring.features_steering import steering_item
from lab.measuring.features_units import Units, unit_item
from lab.measuring.plans import Plan
from lab.measuring.runner import Cache, Item, Runner, joined, measures
from lab.measuring.tables import Row

KEYS = ("part", "block", "step", "method", "attribute", "measure")
COLUMNS = (*KEYS, "value", "low", "high", "n", "chosen", "strength", "from_step")
KINDS = {  # how the features are pooled, by what is asked
    "shape": ("pooled", "region"), "color": ("pooled", "region"),
    "background": ("pooled", "region"), "relation": ("pooled", "grid", "region"),
}  # fmt: skip
SPLITS = ("train", "validation", "test")
BLOCK = 100  # scenes computed and saved at a time
PLACES = 16  # positions of each scene, drawn from all that are labelled
VERSION = 1  # one more when the tensors of the cache change


class FeaturesPlan(Plan):
    """How many scenes, time steps and images."""

    train: Annotated[PositiveInt, Option(min=50, help="Scenes that are learned from.")] = (
        600  # of one thing, and as many of two
    )
    n: Annotated[PositiveInt, Option(min=10, help="Validation scenes, and test scenes.")] = (
        300  # of each
    )
    steps: PositiveInt = 5  # time steps, the middles of as many equal cells
    seeds: PositiveInt = 3  # autoencoders
    units: tuple[PositiveInt, ...] = (96, 384)
    k: tuple[PositiveInt, ...] = (4, 8, 16, 24)
    fit_steps: PositiveInt = 2000
    images: Annotated[PositiveInt, Option(min=16, help="Drawn under each condition.")] = (
        160  # of steering
    )
    sampling: PositiveInt = 10  # denoising steps of each
    seed: int = 0

    def count(self, split: str) -> int:
        """Return how many scenes of a split there are."""
        return self.train if split == "train" else self.n


@dataclass
class Pooled:
    """Pooled features of scenes with one thing and of ordered pairs, kept on disk in blocks."""

    model: Any
    plan: FeaturesPlan
    cache: Cache
    _known: dict[tuple[bool, str], dict[str, Tensor]] = field(default_factory=dict)

    @property
    def grid(self) -> tuple[int, ...]:
        """Return the time steps."""
        return time_grid(self.plan.steps, self.model.scheduler.config.num_train_timesteps)

    def scenes(self, attribute: str, split: str) -> list[Scene]:
        """Return the scenes that an attribute is asked of."""
        seed = self.plan.seed + 10 * SPLITS.index(split)
        return probe_scenes(attribute, self.plan.count(split), seed, split)

    def get(self, attribute: str, split: str) -> dict[str, Tensor]:
        """Return "block step kind" -> features, (scenes, ...)."""
        pair = attribute == "relation"
        if (pair, split) not in self._known:
            scenes, blocks = self.scenes(attribute, split), []
            for start in range(0, len(scenes), BLOCK):
                key = {"pair": pair, "split": split, "start": start, "n": len(scenes)}
                part = scenes[start : start + BLOCK]
                seed = 1_000_000 * (1 + SPLITS.index(split) + 3 * pair) + self.plan.seed + start
                blocks.append(self.cache.tensors(key, partial(self._compute, part, pair, seed)))
            self._known[pair, split] = joined(blocks)
        return self._known[pair, split]

    def _compute(self, scenes: list[Scene], pair: bool, seed: int) -> dict[str, Tensor]:
        found = collect(
            self.model, scenes, steps=self.grid, latents=True, seed=seed, progress=False,
            kinds=["pooled", "regions", "grid"] if pair else ["pooled", "regions"],
        )  # fmt: skip
        return {f"{c.block} {c.step} {c.kind}": rows.contiguous() for c, rows in found.items()}

    def read(self, attribute: str, split: str, block: str, step: int, kind: str) -> Tensor:
        """Return what a probe gets to see, (scenes, width)."""
        found = self.get(attribute, split)
        if kind != "region":
            return found[f"{block} {step} {kind}"]
        rows = found[f"{block} {step} regions"]  # (scenes, regions, width)
        return rows[:, -1 if attribute == "background" else 0]

    def places(self, split: str, block: str, step: int) -> Places:
        """Return all things and backgrounds of a split, of lone things and of pairs, labelled."""
        made = []
        for attribute in ("shape", "relation"):
            rows = self.get(attribute, split)[f"{block} {step} regions"]
            made.append(label_regions(self.scenes(attribute, split), rows))
        return _together(made, self.plan.count(split))

    def positions(self, split: str, block: str, step: int) -> Places:
        """Return positions of the same scenes, `PLACES` of each, labelled."""

        def compute() -> dict[str, Tensor]:
            made, chance = [], torch.Generator().manual_seed(self.plan.seed)
            for number, attribute in enumerate(("shape", "relation")):
                scenes = self.scenes(attribute, split)
                for start in range(0, len(scenes), BLOCK):
                    part = scenes[start : start + BLOCK]
                    seed = 1_000_000 * (1 + SPLITS.index(split) + 3 * number) + start
                    cells = collect(
                        self.model, part, block, [step], "positions",
                        seed=seed + self.plan.seed, progress=False,
                    )  # fmt: skip
                    one = label_positions(part, cells[Cell(block, step, "positions")])
                    rank = torch.rand(len(one.scene), generator=chance)
                    kept = [
                        own[rank[own].argsort()[:PLACES]]
                        for own in ((one.scene == i).nonzero()[:, 0] for i in range(len(part)))
                    ]
                    made.append(_rows(one, torch.cat(kept)))
            return vars(_together(made, BLOCK))

        key = {
            "places": block, "step": step, "split": split, "n": self.plan.count(split),
            "each": PLACES,
        }  # fmt: skip
        return Places(**self.cache.tensors(key, compute))


def _rows(places: Places, kept: Tensor) -> Places:
    return Places(*(getattr(places, field.name)[kept] for field in fields(Places)))


def _together(made: list[Places], each: int) -> Places:
    """Return the rows of several lists of at most `each` scenes as those of one."""
    scene = [one.scene + i * each for i, one in enumerate(made)]
    rows = ([getattr(one, name) for one in made] for name in ("features", "labels"))
    return Places(*map(torch.cat, rows), torch.cat(scene))


@measures("features", FeaturesPlan, version=2, unit="thousand passes")
def evaluate_features(runner: Runner, plan: FeaturesPlan) -> Path:
    """Return the path of features.csv after measuring what it lacks."""
    known = plan.model_dump(include={"steps", "seed"})
    cache = runner.open_cache("features_tensors", version=VERSION, **known)
    table = runner.table(COLUMNS, KEYS)
    pooled = Pooled(runner.model, plan, cache)
    probes = [where_only(pooled), *(probe_item(pooled, step) for step in pooled.grid)]
    runner.run([whole(item) for item in probes], table)
    block, step = best_cell(table.frame())

    def units(step: int, part: str = "units") -> Units:
        rows = pooled.positions if part == "positions" else pooled.places
        labelled = partial(rows, block=block, step=step)
        return Units(runner.model, plan, cache, labelled, block, step, part)

    at = {t: units(t) for t in pooled.grid}
    here, positions = at[step], units(step, "positions")
    items = unit_item(here), unit_item(positions), steering_item(here, at)
    runner.run([whole(item) for item in items], table)
    return runner.path()


def whole(item: Item) -> Item:
    """Return an item whose rows have every column; those that do not apply to it stay empty."""
    empty = dict.fromkeys(COLUMNS, "")
    return replace(item, measure=lambda: [empty | row for row in item.measure()])


def best_cell(frame: pd.DataFrame) -> tuple[str, int]:
    """Return the block and time step where probes at the thing read most, on validation scenes."""
    read = frame[
        (frame.part == "probes") & (frame.measure == "validation") & (frame.method == "region")
        & ~frame.block.isin(["latents", "place"])
    ]  # fmt: skip
    means = read.groupby(["block", "step"], sort=False).value.mean()
    block, step = means.idxmax()
    return str(block), int(step)


def probe_item(pooled: Pooled, step: int) -> Item:
    """Return the item that reads every block at one time step."""
    passes = 2 * sum(pooled.plan.count(split) for split in SPLITS) / 1000
    key = row_key("latents", step, "pooled", ATTRIBUTES[0], "accuracy")
    return Item(key, partial(probe_rows, pooled, step), passes)


def row_key(*names: str | int) -> Row:
    return dict(zip(KEYS, ("probes", *names), strict=True))


def probe_rows(pooled: Pooled, step: int) -> list[Row]:
    """Return accuracy on test and on validation scenes of each block, pooling and attribute."""
    rows = []
    for attribute in ATTRIBUTES:
        said = {s: answers(attribute, pooled.scenes(attribute, s)) for s in SPLITS}
        names = pooled.get(attribute, "train")
        for block, kind in product(dict.fromkeys(n.split()[0] for n in names), KINDS[attribute]):
            data = [(pooled.read(attribute, s, block, step, kind), said[s]) for s in SPLITS]
            rows += _both(row_key(block, step, kind, attribute, ""), data)
    return rows


def where_only(pooled: Pooled) -> Item:
    """Return the item of the control: relations from nothing but where the first thing lies."""
    key = row_key("place", 0, "region", "relation", "")

    def measure() -> list[Row]:
        data = []
        for split in SPLITS:
            scenes = pooled.scenes("relation", split)
            places = torch.tensor([[s.things[0].x, s.things[0].y] for s in scenes])
            data.append((places, answers("relation", scenes)))
        return _both(key, data)

    return Item(key | {"measure": "accuracy"}, measure, 0)


def _both(key: Row, data: list[tuple[Tensor, list[str]]]) -> list[Row]:
    found = probe(*data)
    n = len(data[1][1])
    chosen = f"C {found.penalty:g}"
    right = round(found.validation * n)
    validation = accuracy([1] * right + [0] * (n - right)).as_dict()
    return [
        key | {"measure": "accuracy", "chosen": chosen} | found.accuracy.as_dict(),
        key | {"measure": "validation", "chosen": chosen} | validation,
    ]
