"""The part `units` of results/features.csv: what single units stand for, as F1 on test positions.

sae          the sparse autoencoder; width and k are those with the best F1 on validation scenes
untrained    as many random directions, as many active: what width alone brings
neurons, pca, rotation   bases of the features; k is chosen in the same way
NAME level   the same units, each with its own best level instead of "among the k largest"

"above neurons" is the difference to the better of neurons and neurons level, on the same scenes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.features import SparseAutoencoder, collect, fit_autoencoder, label_places
from dsd_tutorial.features.places import Places
from dsd_tutorial.features.rivals import BASES
from dsd_tutorial.features.units import Found, judge_units
from dsd_tutorial.shapes import random_scenes
from lab.measuring.runner import Cache, Item
from lab.measuring.tables import Row

SPLITS = ("train", "validation", "test")
KINDS = ("shape", "color", "relation", "background", None)  # None: all of them
SCENES_SEED = 500
Encode = Callable[[Tensor], Tensor]


@dataclass
class Units:
    """Positions of one block and time step, and what is fitted to them."""

    model: Any
    plan: Any
    cache: Cache
    block: str
    step: int
    _places: dict[str, Places] = field(default_factory=dict)
    _fitted: dict[tuple[int, int, int], SparseAutoencoder] = field(default_factory=dict)

    def places(self, split: str) -> Places:
        """Return labelled positions of the scenes of a split."""
        if split not in self._places:
            number = SPLITS.index(split)
            seed = self.plan.seed + SCENES_SEED + number
            scenes = random_scenes(self.plan.count(split), seed, split)
            key = {"part": "units", "block": self.block, "step": self.step, "split": split}

            def compute() -> dict[str, Tensor]:
                cells = collect(
                    self.model, scenes, self.block, [self.step], "positions",
                    seed=10_000_000 * (number + 1) + seed, progress=False,
                )  # fmt: skip
                return {"x": cells[self.block, self.step, "positions"].half()}

            x = self.cache.tensors(key, compute)["x"].float()
            self._places[split] = label_places(scenes, x)
        return self._places[split]

    def fitted(self, units: int, k: int, seed: int = 0) -> SparseAutoencoder:
        """Return the autoencoder of this width, sparsity and seed, fitted once."""
        if (units, k, seed) not in self._fitted:
            key = {
                "sae": self.block, "step": self.step, "units": units, "k": k, "seed": seed,
                "fit": self.plan.fit_steps,
            }  # fmt: skip
            x = self.places("train").features
            sae = SparseAutoencoder(x.shape[1], units, k)

            def compute() -> dict[str, Tensor]:
                found = fit_autoencoder(
                    x, units, k, steps=self.plan.fit_steps, seed=seed, progress=False
                )
                return dict(found.state_dict())

            sae.load_state_dict(self.cache.tensors(key, compute))
            self._fitted[units, k, seed] = sae.requires_grad_(False)
        return self._fitted[units, k, seed]

    def validated(self, encode: Encode, levels: bool = False) -> float:
        """Return the mean F1 on the validation positions on which units are chosen."""
        places = self.places("validation")
        return judge_units(encode, places, places, levels).mean(draws=2).value

    def tested(self, encode: Encode, levels: bool = False) -> Found:
        """Return what the units chosen on validation positions get on test positions."""
        return judge_units(encode, self.places("validation"), self.places("test"), levels)

    def best(self) -> tuple[int, int]:
        """Return width and sparsity of the autoencoder with the best F1 on validation."""
        tried = [(u, k) for u in self.plan.units for k in self.plan.k]
        return max(tried, key=lambda way: self.validated(self.fitted(*way).encode))

    def chosen(self) -> tuple[SparseAutoencoder, Found]:
        """Return the chosen autoencoder, and what its units get."""
        sae = self.fitted(*self.best())
        return sae, self.tested(sae.encode)


def unit_items(units: Units) -> list[Item]:
    """Return everything that is measured of units, as one item."""
    key = {
        "part": "units", "block": units.block, "step": units.step, "method": "sae",
        "attribute": "all", "measure": "f1",
    }  # fmt: skip
    passes = (units.plan.train + 2 * units.plan.n) / 1000
    return [Item(key, partial(unit_rows, units), passes)]


@torch.no_grad()
def unit_rows(units: Units) -> list[Row]:
    """Return F1 by attribute of every family of units, and differences to single neurons."""
    width, k = units.best()
    found: dict[str, tuple[Found, str]] = {}
    for name, make in BASES.items():
        basis = make(units.places("train").features)
        ways = {k: partial(basis.encode, k=k) for k in units.plan.k}
        kept = max(ways, key=lambda k: units.validated(ways[k]))
        found[name] = units.tested(ways[kept]), f"k {kept}"
        found[f"{name} level"] = units.tested(basis.drive, True), ""
    sae, text = units.fitted(width, k), f"{width} units, k {k}"
    idle = SparseAutoencoder(sae.center.shape[0], width, k, seed=1).requires_grad_(False)
    idle.start_at(units.places("train").features)
    found["untrained"] = units.tested(idle.encode), text
    found["untrained level"] = units.tested(idle.encode, True), text
    found["sae level"] = units.tested(sae.encode, True), text
    for seed in range(units.plan.seeds):
        name = "sae" if seed == 0 else f"sae seed {seed}"
        found[name] = units.tested(units.fitted(width, k, seed).encode), text
    rivals = ("neurons", "neurons level")
    best = max(rivals, key=lambda name: found[name][0].mean(draws=2).value)
    where = {"part": "units", "block": units.block, "step": units.step}
    rows = []
    for name, (one, chosen) in found.items():
        for kind in KINDS:
            key = where | {"method": name, "attribute": kind or "all", "chosen": chosen}
            rows.append(key | {"measure": "f1"} | one.mean(kind).as_dict())
            gap = one.above(found[best][0], kind).as_dict()
            rows.append(key | {"measure": "above neurons"} | gap)
    return rows + fit_rows(units, sae, where, text)


def fit_rows(units: Units, sae: SparseAutoencoder, where: Row, chosen: str) -> list[Row]:
    """Return how well the autoencoder rebuilds test positions, and how many units lie idle."""
    x = units.places("test").features
    idle = float((~(sae.encode(x) > 0).any(0)).float().mean())
    key = where | {"method": "sae", "attribute": "all", "chosen": chosen, "n": units.plan.n}
    return [
        key | {"measure": name, "value": value, "low": value, "high": value}
        for name, value in (("unexplained", sae.unexplained(x)), ("idle", idle))
    ]
