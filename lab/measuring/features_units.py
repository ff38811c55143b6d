"""What single units stand for, as F1 on test rows: parts of results/features.csv.

In the part `units` a row is a thing or a background, its features the mean over its exact mask; in
the part `positions` it is a position.

sae          a sparse autoencoder; width and k are those with the best F1 on validation scenes
untrained    as many random directions, as many active: what width alone brings
neurons, pca, rotation   bases of the features, of which as many directions are active
linear       told the labels: the bound for directions
NAME level   the same directions, each with its own best level instead of "among the k largest"
NAME 3       up to three of them together, each with a level

"above neurons" and "above neurons level" are differences on the same scenes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.features import SparseAutoencoder, fit_autoencoder, neurons
from dsd_tutorial.features.places import Places
from dsd_tutorial.features.rivals import BASES
from dsd_tutorial.features.units import Found, judge_units
from lab.measuring.runner import Cache, Item
from lab.measuring.tables import Row

RIVALS = ("neurons", "neurons level")
BATCH = 256  # rows in a step
SEVERAL = 3  # units that may stand for one value together
KINDS = ("shape", "color", "relation", "background", None)  # None: all of them
Encode = Callable[[Tensor], Tensor]


@dataclass
class Units:
    """Things and backgrounds at one block and time step, and what is fitted to them.

    `labelled` returns those of a split.
    """

    model: Any
    plan: Any
    cache: Cache
    labelled: Callable[[str], Places]
    block: str
    step: int
    part: str = "units"
    _places: dict[str, Places] = field(default_factory=dict)
    _fitted: dict[tuple[int, int, int], SparseAutoencoder] = field(default_factory=dict)

    @property
    def where(self) -> Row:
        """Return the first columns of its rows."""
        return {"part": self.part, "block": self.block, "step": self.step}

    def places(self, split: str) -> Places:
        """Return the labelled rows of a split."""
        if split not in self._places:
            self._places[split] = self.labelled(split)
        return self._places[split]

    def fitted(self, units: int, k: int, seed: int = 0) -> SparseAutoencoder:
        """Return the autoencoder of this width, sparsity and seed, fitted once."""
        if (units, k, seed) not in self._fitted:
            x = self.places("train").features
            key = {
                "sae": self.block, "step": self.step, "units": units, "k": k, "seed": seed,
                "fit": self.plan.fit_steps, "rows": len(x), "part": self.part,
            }  # fmt: skip
            sae = SparseAutoencoder(x.shape[1], units, k)

            def compute() -> dict[str, Tensor]:
                found = fit_autoencoder(
                    x, units, k, steps=self.plan.fit_steps, batch_size=BATCH, seed=seed,
                    progress=False,
                )  # fmt: skip
                return dict(found.state_dict())

            sae.load_state_dict(self.cache.tensors(key, compute))
            self._fitted[units, k, seed] = sae.requires_grad_(False)
        return self._fitted[units, k, seed]

    def validated(self, encode: Encode) -> float:
        """Return the mean F1 on the validation rows on which units are chosen."""
        places = self.places("validation")
        return judge_units(encode, places, places).mean(draws=2).value

    def tested(self, encode: Encode, levels: bool = False, count: int = 1) -> Found:
        """Return what the units chosen on validation rows get on test rows."""
        return judge_units(encode, self.places("validation"), self.places("test"), levels, count)

    def best(self) -> tuple[int, int]:
        """Return width and sparsity of the autoencoder with the best F1 on validation."""
        tried = [(u, k) for u in self.plan.units for k in self.plan.k]
        return max(tried, key=lambda way: self.validated(self.fitted(*way).encode))


def unit_item(units: Units) -> Item:
    """Return everything that is measured of units, as one item."""
    key = units.where | {"method": "sae", "attribute": "all", "measure": "f1"}
    return Item(key, partial(unit_rows, units))


@torch.no_grad()
def unit_rows(units: Units) -> list[Row]:
    """Return F1 by attribute of every family of units, and differences to single neurons."""
    width, k = units.best()
    x, text = units.places("train").features, f"{width} units, k {k}"
    found: dict[str, tuple[Found, str]] = {}
    for name, make in BASES.items():
        basis = make(x)
        found[name] = units.tested(partial(basis.encode, k=k)), f"k {k}"
        found[f"{name} level"] = units.tested(basis.drive, True), ""
    found[f"neurons {SEVERAL}"] = units.tested(neurons(x).drive, True, SEVERAL), ""
    idle = SparseAutoencoder(x.shape[1], width, k, seed=1).requires_grad_(False)
    idle.start_at(x)
    found["untrained"] = units.tested(idle.encode), text
    found["untrained level"] = units.tested(idle.drive, True), text
    sae = units.fitted(width, k)
    found["sae level"] = units.tested(sae.drive, True), text
    found[f"sae {SEVERAL}"] = units.tested(sae.drive, True, SEVERAL), text
    found["linear level"] = units.tested(linear(units.places("train")), True), ""
    for seed in range(units.plan.seeds):
        name = "sae" if seed == 0 else f"sae seed {seed}"
        found[name] = units.tested(units.fitted(width, k, seed).encode), text
    rows = []
    for (name, (one, chosen)), kind in product(found.items(), KINDS):
        key = units.where | {"method": name, "attribute": kind or "all", "chosen": chosen}
        rows.append(key | {"measure": "f1"} | one.mean(kind).as_dict())
        for rival in RIVALS:
            gap = one.above(found[rival][0], kind).as_dict()
            rows.append(key | {"measure": f"above {rival}"} | gap)
    return rows + fit_rows(units, sae, text)


def linear(places: Places) -> Encode:
    """Return the bound: for each value the direction that a ridge regression finds, told labels."""
    from sklearn.linear_model import RidgeCV

    penalties = [10.0**i for i in range(-2, 5)]
    x, y = places.features.double().numpy(), places.labels.double().numpy()
    model = RidgeCV(alphas=penalties).fit(x, y)
    return lambda rows: torch.from_numpy(model.predict(rows.double().numpy())).float()


def fit_rows(units: Units, sae: SparseAutoencoder, chosen: str) -> list[Row]:
    """Return how well the autoencoder rebuilds test rows, and how many units lie idle."""
    places = units.places("test")
    x, n = places.features, len(places.scene.unique())
    idle = float((~(sae.encode(x) > 0).any(0)).float().mean())
    key = units.where | {"method": "sae", "attribute": "all", "chosen": chosen, "n": n}
    return [
        key | {"measure": name, "value": value, "low": value, "high": value}
        for name, value in (("unexplained", sae.unexplained(x)), ("idle", idle))
    ]
