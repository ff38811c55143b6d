"""The part `steering` of results/features.csv: what is drawn when a direction is added.

For each value of shape, colour and background the unit that stands for it is added to the features
of its block, at the strength and over the time steps that work best on validation prompts. Prompts
leave the attribute unsaid. What is counted: images that show the value, as judged by programme.

none      nothing is added
unit      the value's unit
mean      told: from the mean of all things, or backgrounds, to that of those that have the value
other     the unit of another value of the same attribute: the same kind of push elsewhere
random    a random direction of equal length
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.features import VALUES, random_direction, shows, steer
from dsd_tutorial.features.units import choose_units
from dsd_tutorial.matching import accuracy, paired_difference
from dsd_tutorial.shapes import COLORS, SHAPES, Description, Phrase, judge
from lab.measuring.features_units import Units
from lab.measuring.runner import Item
from lab.measuring.tables import Row

STEERED = ("shape", "color", "background")
METHODS = ("none", "random", "other", "mean", "unit")
STRENGTHS = (0.5, 1.0)
RANGES = {"all": (0, 1000), "early": (500, 1000)}  # time steps
TRIED = 32  # validation images for each strength and range
Value = tuple[str, str]


def steering_items(units: Units) -> list[Item]:
    """Return the item of steering; U-Net passes are twice those without guidance."""
    plan = units.plan
    ways = len(STRENGTHS) * len(RANGES)
    passes = 2 * plan.sampling * (ways * min(TRIED, plan.images) + len(METHODS) * plan.images)
    key = {
        "part": "steering", "block": units.block, "step": units.step, "method": "unit",
        "attribute": "all", "measure": "share",
    }  # fmt: skip
    return [Item(key, partial(steering_rows, units), passes / 1000)]


def requests(n: int, seed: int) -> list[tuple[Value, Value, str]]:
    """Return n triples: the value that is wanted, another one, a prompt that leaves both unsaid."""
    rng = random.Random(seed)
    values = [value for value in VALUES if value[0] in STEERED]
    made = []
    for i in range(n):
        attribute, value = values[i % len(values)]
        other = rng.choice([v for v in values if v[0] == attribute and v[1] != value])
        said = Phrase(
            shape=None if attribute == "shape" else rng.choice(SHAPES),
            color=None if attribute == "color" else rng.choice(list(COLORS)),
        )
        made.append(((attribute, value), other, Description((said,)).text()))
    return made


def steering_rows(units: Units) -> list[Row]:
    """Return the share of images that show what was wanted, and differences between conditions."""
    plan, tried = units.plan, requests(min(TRIED, units.plan.images), units.plan.seed + 1)
    sae, known = units.fitted(*units.best()), units.places("validation")
    unit = choose_units(sae.drive(known.features), known.labels, levels=True).unit[0]
    direction = {value: sae.decoder[i] for value, i in zip(VALUES, unit.tolist(), strict=True)}
    means = mean_directions(units)
    ways = [(strength, name) for strength in STRENGTHS for name in RANGES]
    reached = {way: sum(draw(units, tried, "unit", direction, way, 90_000)) for way in ways}
    way = max(ways, key=reached.__getitem__)
    wanted = requests(plan.images, plan.seed)
    hits = {
        m: draw(units, wanted, m, means if m == "mean" else direction, way, 50_000) for m in METHODS
    }
    rows = []
    where = {"part": "steering", "block": units.block, "step": units.step}
    chosen = f"strength {way[0]:g}, {way[1]} steps"
    for attribute in (*STEERED, "all"):
        own = [i for i, (value, *_) in enumerate(wanted) if attribute in ("all", value[0])]
        got = {m: [float(hits[m][i]) for i in own] for m in METHODS}
        for method in METHODS:
            key = where | {"method": method, "attribute": attribute, "chosen": chosen}
            rows.append(key | {"measure": "share"} | accuracy(got[method]).as_dict())
            if method != "unit":
                gap = paired_difference(got["unit"], got[method]).as_dict()
                rows.append(key | {"measure": "unit above"} | gap)
    return rows


def mean_directions(units: Units) -> dict[Value, Tensor]:
    """Return where the rows that have a value lie, seen from the mean of all of their kind."""
    places, found = units.places("train"), {}
    for value in VALUES:
        own = [i for i, (attribute, _) in enumerate(VALUES) if attribute == value[0]]
        kind = places.labels[:, own].any(1)
        mean = places.features[kind].mean(0)
        found[value] = places.features[places.labels[:, VALUES.index(value)]].mean(0) - mean
    return found


def draw(
    units: Units, wanted: Sequence[tuple[Value, Value, str]], method: str,
    direction: dict[Value, Tensor], way: tuple[float, str], seed: int,
) -> list[bool]:  # fmt: skip
    """Return whether each image shows the value that was wanted of it.

    Image i starts from the same noise under every condition.
    """
    strength, name = way
    shown = [False] * len(wanted)
    groups: dict[Value, list[int]] = {}
    for i, (value, other, _) in enumerate(wanted):
        groups.setdefault(other if method == "other" else value, []).append(i)
    for number, (pushed, members) in enumerate(groups.items()):
        model: Any = units.model
        way_in = direction[pushed]
        if method == "random":
            way_in = random_direction(len(way_in), seed + number)
        amount = 0.0 if method == "none" else strength
        when = RANGES[name]
        with steer(model, units.block, way_in, amount, steps=when, guided=True), torch.no_grad():
            images = model.sample(
                [wanted[i][2] for i in members], steps=units.plan.sampling,
                seed=[seed + i for i in members], progress=False,
            )  # fmt: skip
        verdicts = judge(images)
        for i, verdict in zip(members, verdicts, strict=True):
            shown[i] = shows([verdict], *wanted[i][0])[0]
    return shown
