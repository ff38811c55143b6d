"""The part `steering` of results/features.csv: what is drawn when a direction is added.

For each value of shape, colour and background the unit that stands for it is added to the features
of its block. Prompts leave the attribute unsaid. What is counted: images that show the value, as
judged by programme.

none      nothing is added
unit      the value's unit
mean      told: from the mean of all things, or backgrounds, to that of those that have the value
other     the unit of another value of the same attribute: the same kind of push elsewhere
random    a random direction
NAME there  only where the image that "none" draws has its things, or its background

A direction comes from features at one time step, which need not be the one where most can be read.
That step, and the strength, are those that work best on validation prompts, for `unit` and `mean`,
each everywhere and there; `other` and `random` act as `unit`, `random there` as `unit there`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.features import VALUES, random_direction, shows, steer
from dsd_tutorial.features.units import choose_units
from dsd_tutorial.matching import accuracy, paired_difference
from dsd_tutorial.shapes import COLORS, SHAPES, Description, Phrase, judge, render
from lab.measuring.features_units import Units
from lab.measuring.runner import Item
from lab.measuring.tables import Row

STEERED = ("shape", "color", "background")
THERE = " there"
CHOSEN = ("unit", "unit there", "mean", "mean there")  # each at its own strength, from its own step
LIKE = {"none": "unit", "random": "unit", "other": "unit", "random there": "unit there"}
METHODS = (*LIKE, *CHOSEN)
STRENGTHS = (0.5, 1.0)
TRIED = 32  # validation images for each strength and step
AT_ONCE = 16  # images in a batch
TRIED_SEED, SEED = 90_000, 50_000  # of the first image of validation prompts, and of test prompts
Value = tuple[str, str]
Request = tuple[Value, Value, str]  # what is wanted, another value, a prompt that leaves both out
Way = tuple[float, int]  # strength, and the time step that the direction comes from


def steering_item(units: Units, at: dict[int, Units]) -> Item:
    """Return the item of steering; U-Net passes are twice those without guidance.

    `at` has the same block at all time steps that directions may come from.
    """
    plan = units.plan
    ways = len(STRENGTHS) * len(at)
    drawn = ways * len(CHOSEN) * min(TRIED, plan.images) + len(METHODS) * plan.images
    passes = 2 * plan.sampling * drawn
    key = units.where | {"part": "steering", "method": "unit", "attribute": "all"}
    return Item(key | {"measure": "share"}, partial(steering_rows, units, at), passes / 1000)


def requests(n: int, seed: int) -> list[Request]:
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


def steering_rows(units: Units, at: dict[int, Units]) -> list[Row]:
    """Return the share of images that show what was wanted, and differences between conditions."""
    plan, tried = units.plan, requests(min(TRIED, units.plan.images), units.plan.seed + 1)
    width, k = units.best()
    told = {step: mean_directions(one) for step, one in at.items()}
    found = {step: unit_directions(one, width, k) for step, one in at.items()}
    ways = [(strength, step) for strength in STRENGTHS for step in at]

    def drawing(requested: list[Request], seed: int) -> Callable[[str, Way], list[bool]]:
        parts = [sample(units, requested[r.start : r.stop], seed + r.start)
                 for r in batched(range(len(requested)))]  # fmt: skip
        plain = torch.cat(parts)
        there = places_of(plain, [value[0] for value, *_ in requested])

        def drawn(method: str, way: Way) -> list[bool]:
            if method == "none":
                return shown(plain, requested)
            towards = (told if method.startswith("mean") else found)[way[1]]
            return draw(units, requested, method, towards, way[0], seed, there)

        return drawn

    chosen, drawn = {}, drawing(tried, TRIED_SEED)
    for method in CHOSEN:
        reached = {way: sum(drawn(method, way)) for way in ways}
        chosen[method] = max(ways, key=reached.__getitem__)
    chosen |= {method: chosen[like] for method, like in LIKE.items()}
    wanted = requests(plan.images, plan.seed)
    drawn = drawing(wanted, SEED)
    hits = {m: drawn(m, chosen[m]) for m in METHODS}
    rows = []
    where = units.where | {"part": "steering"}
    for attribute in (*STEERED, "all"):
        own = [i for i, (value, *_) in enumerate(wanted) if attribute in ("all", value[0])]
        got = {m: [float(hits[m][i]) for i in own] for m in METHODS}
        for method in METHODS:
            strength, step = chosen[method]
            key = where | {"method": method, "attribute": attribute}
            if method != "none":
                key |= {"strength": strength, "from_step": step}
            rows.append(key | {"measure": "share"} | accuracy(got[method]).as_dict())
            rival = "random there" if method.endswith(THERE) else "random"
            if method not in ("none", rival):
                gap = paired_difference(got[method], got[rival]).as_dict()
                rows.append(key | {"measure": f"above {rival}"} | gap)
    return rows


def unit_directions(units: Units, width: int, k: int) -> dict[Value, Tensor]:
    """Return the decoder direction of the unit that stands for each value on validation scenes."""
    sae, known = units.fitted(width, k), units.places("validation")
    unit = choose_units(sae.drive(known.features), known.labels, levels=True).unit[0]
    return {value: sae.decoder[i] for value, i in zip(VALUES, unit.tolist(), strict=True)}


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
    units: Units, wanted: Sequence[Request], method: str, direction: dict[Value, Tensor],
    strength: float, seed: int, there: Tensor,
) -> list[bool]:  # fmt: skip
    """Return whether each image shows the value that was wanted of it.

    Image i starts from the same noise under every condition. `there` are the masks (images, rows,
    columns) within which the methods of that name push.
    """
    pushed = [other if method == "other" else value for value, other, _ in wanted]
    ways_in = direction
    if method.startswith("random"):
        width = len(next(iter(direction.values())))
        ways_in = {
            value: random_direction(width, seed + number)
            for number, value in enumerate(dict.fromkeys(pushed))
        }
    images = []
    for rows in batched(range(len(wanted))):
        towards = torch.stack([ways_in[pushed[i]] for i in rows])
        how: dict[str, Any] = {"guided": True}
        if method.endswith(THERE):
            how["places"] = there[list(rows)].to(units.model.device)
        with steer(units.model, units.block, towards, strength, **how):
            images.append(sample(units, [wanted[i] for i in rows], seed + rows[0]))
    return shown(torch.cat(images), wanted)


def shown(images: Tensor, wanted: Sequence[Request]) -> list[bool]:
    """Return whether each image shows the value that was wanted of it."""
    verdicts = zip(judge(images), wanted, strict=True)
    return [yes for verdict, (value, *_) in verdicts for yes in shows([verdict], *value)]


def batched(rows: range) -> list[range]:
    """Return them in parts of AT_ONCE."""
    return [rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)]


@torch.no_grad()
def sample(units: Units, wanted: Sequence[Request], seed: int) -> Tensor:
    """Return the image of each request, the i-th from the noise of seed + i, in one batch."""
    return units.model.sample(
        [text for *_, text in wanted], steps=units.plan.sampling, seed=seed,
        batch_size=len(wanted), progress=False,
    )  # fmt: skip


def places_of(images: Tensor, attributes: Sequence[str]) -> Tensor:
    """Return (images, rows, columns): where things are, or background; nowhere if nobody can say.

    The masks are those of the scene that the judge reads.
    """
    places = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
    for i, (verdict, attribute) in enumerate(zip(judge(images), attributes, strict=True)):
        if verdict.scene is not None:
            things = render([verdict.scene], images.shape[-1])[1][0].any(0)
            places[i] = ~things if attribute == "background" else things
    return places
