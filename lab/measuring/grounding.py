"""Measures which box a phrase finds: `python -m lab measure grounding` -> results/grounding.csv.

Everything that passes through a model is computed once for each test expression and kept; methods
and traps are then read off it. Wording, margin, layers, time steps and the power of an area were
chosen on validation expressions.

proposals   boxes: the things' own boxes and three distractors, where only the right box counts;
            regions, grid: boxes of a detector that knows no words, where an overlap (IoU) of a half
            counts
method      random, clip, attention, gain (where in the whole scene the phrase lowers the error of
            the empty prompt), error (VGDiffZero), error_base (the empty prompt's error taken
            off), pairs (two boxes left standing, for relations; else as error_base)
trap        own_noise, centre_crop, black, overwritten: `error` with one thing done as the released
            code does it; crop, mask: with one isolation alone
kind        all, those of `EXPRESSIONS`, and where the choice fell of phrases without a relation
            (`FATES`): there `value` is the share of such phrases
value       accuracy; found: how often the overlap is at least a half, whatever the proposals
passes      U-Net passes per expression

Differences are paired, on the same expressions: to `clip` and to `error` of the same proposals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor
from tqdm.auto import tqdm
from typer import Option

from dsd_tutorial.grounding import (
    box_heat,
    crop_boxes,
    detect,
    gain_map,
    grid_boxes,
    ground_by_clip,
    iou,
    isolation_errors,
    mask_boxes,
    phrase_heat,
    propose,
    vote,
)
from dsd_tutorial.grounding.boxes import pair_masks
from dsd_tutorial.grounding.grounding import pair_scores
from dsd_tutorial.matching import accuracy, paired_difference
from dsd_tutorial.shapes import EXPRESSIONS, Expression, boxes_of, referring_expressions, render
from dsd_tutorial.shapes.captions import Description
from lab.measuring.plans import Plan
from lab.measuring.runner import Item, Runner, measures
from lab.measuring.tables import Row, bounds

KEYS = ("proposals", "method", "kind")
COLUMNS = (
    *KEYS, "settings", "value", "low", "high", "n", "found", "passes", "to_clip", "to_clip_low",
    "to_clip_high", "to_error", "to_error_low", "to_error_high",
)  # fmt: skip
PROPOSALS = ("boxes", "regions", "grid")
FATES = ("another color", "another shape", "no thing's box")
VERSION = 1  # one more when the tensors of the cache change
BLOCK = 10  # expressions computed and saved at a time
Numbers = dict[str, Tensor]
Methods = dict[str, tuple[Tensor, int]]


class GroundingPlan(Plan):
    """How many expressions, and what was chosen on validation."""

    n_items: Annotated[
        PositiveInt, Option("--n", min=3, help="Test expressions, three kinds in turn.")
    ] = 300
    steps: Annotated[PositiveInt, Option(min=2, help="Time steps of the errors.")] = 6
    traps: PositiveInt = 150  # expressions, the first of all, on which traps are measured
    margin: float = 0.25
    layers: tuple[str, ...] = ("up.1.1", "up.2.0", "up.2.1")
    heat_steps: tuple[int, ...] = (100, 300, 500)
    join: str = "noun"
    power: float = 0.75
    gain_steps: tuple[int, ...] = (300, 500, 700)
    gain_power: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class Said:
    """How an expression is worded: the whole, what it says of each thing, and from the other end.

    The last thing of `turned` is the one that is meant.
    """

    whole: str
    parts: tuple[str, ...]
    turned: str

    @classmethod
    def of(cls, e: Expression) -> Said:
        """Return the wordings that were best on validation: those the model was trained on."""
        parts = tuple(Description((p,)).text() for p in e.said.things)
        return cls(e.said.text(), parts, e.turned.text())


@measures("grounding", GroundingPlan, version=2, unit="expressions")
def evaluate_grounding(runner: Runner, plan: GroundingPlan) -> Path:
    """Return the path of grounding.csv after measuring what it lacks."""
    made = referring_expressions(plan.n_items, "test", plan.seed)

    def measured() -> list[Row]:
        found = computed("grounded", _block, runner, plan, made)
        first = computed("grounded_traps", _trap_block, runner, plan, made[: plan.traps])
        for numbers, more in zip(found, first, strict=False):
            numbers |= more
        return judged(made, found, plan)

    key = {"proposals": "boxes", "method": "random", "kind": "all"}
    return runner.write([Item(key, measured, len(made))], COLUMNS, KEYS, stamped=True)


def computed(
    name: str, compute: Callable[..., list[Numbers]], runner: Runner, plan: GroundingPlan,
    made: list[Expression],
) -> list[Numbers]:  # fmt: skip
    """Return what the models said of each expression; block by block it lies on the disk."""
    known = plan.model_dump(exclude={"n_items", "traps", "power", "gain_power"})
    cache = runner.open_cache(name, version=VERSION, **known)

    def block(part: list[Expression]) -> Numbers:
        each = enumerate(compute(runner.model, part, plan))
        return {f"{i}/{k}": x.contiguous() for i, numbers in each for k, x in numbers.items()}

    off = not runner.options.progress
    found = []
    for start in tqdm(range(0, len(made), BLOCK), "blocks of expressions", disable=off):
        part = made[start : start + BLOCK]
        how = {"start": start, "n": len(part)}
        kept = cache.tensors(how, partial(block, part))
        for i in range(len(part)):
            own = f"{i}/"
            found.append({k.removeprefix(own): x for k, x in kept.items() if k.startswith(own)})
    return found


def _block(model: Any, made: list[Expression], plan: GroundingPlan) -> list[Numbers]:
    images, masks = render([e.scene for e in made], model.resolution)
    turned, whole = [Said.of(e).turned for e in made], [Said.of(e).whole for e in made]
    heat = phrase_heat(
        model, images, turned, thing=-1, join=plan.join, steps=plan.heat_steps, layers=plan.layers
    )
    gain = gain_map(model, images, whole, steps=plan.gain_steps)
    found = []
    for i, e in enumerate(made):
        truth = boxes_of(masks[i, : len(e.scene.things)])
        numbers = {"truth": truth, "heat": heat[i], "gain": gain[i]}
        boxes = {
            "boxes": propose(truth, e.seed), "regions": detect(images[i]), "grid": grid_boxes(),
        }  # fmt: skip
        for name, own in boxes.items():
            one = _numbers(model, images[i], own, e, plan, name)
            numbers |= {f"{name}.{key}": value for key, value in one.items()}
        found.append(numbers)
    return found


def _numbers(
    model: Any, image: Tensor, boxes: Tensor, e: Expression, plan: GroundingPlan, name: str
) -> Numbers:
    """Return what is read off later: CLIP's cosines, and mean errors by time step."""
    said, side = Said.of(e), model.resolution
    clip = ground_by_clip(model, image, boxes, said.whole, margin=plan.margin).scores
    found = {"boxes": boxes, "clip": clip}
    if name == "grid":  # too many boxes for errors
        return found
    run = partial(isolation_errors, model, steps=plan.steps, seed=plan.seed)
    crops, masked = crop_boxes(image, boxes, side, plan.margin), mask_boxes(image, boxes)
    texts = [*dict.fromkeys((said.whole, *said.parts)), ""]
    found["crop"] = run(crops, texts)  # (boxes, texts, steps)
    found["mask"] = run(masked, [said.whole, ""])
    if len(said.parts) > 1 and len(boxes) > 1:
        both = pair_masks(boxes, *image.shape[-2:])
        found["pairs"] = run(mask_boxes(image, both), [said.whole, ""])
    return found


def _trap_block(model: Any, made: list[Expression], plan: GroundingPlan) -> list[Numbers]:
    """Return the errors with one thing done as the released code does it."""
    images, masks = render([e.scene for e in made], model.resolution)
    found, side = [], model.resolution
    for image, things, e in zip(images, masks, made, strict=True):
        boxes = propose(boxes_of(things[: len(e.scene.things)]), e.seed)
        text = [Said.of(e).whole]
        run = partial(isolation_errors, model, texts=text, steps=plan.steps, seed=plan.seed)
        crops, masked = crop_boxes(image, boxes, side, plan.margin), mask_boxes(image, boxes)
        found.append({
            "boxes.own_noise": run(torch.cat([crops, masked]), own_noise=True),
            "boxes.centre_crop": run(crop_boxes(image, boxes, side, fit="centre")),
            "boxes.tight_crop": run(crop_boxes(image, boxes, side)),
            "boxes.black": run(mask_boxes(image, boxes, "black")),
        })  # fmt: skip
    return found


# -- from numbers to rows --------------------------------------------------------------------------


def scores_of(numbers: Numbers, e: Expression, name: str, plan: GroundingPlan) -> Methods:
    """Return method -> (scores of the boxes, U-Net passes) for one expression."""
    boxes = numbers[f"{name}.boxes"]
    drawn = torch.rand(len(boxes), generator=torch.Generator().manual_seed(e.seed))
    found: Methods = {
        "random": (drawn, 0),
        "clip": (numbers[f"{name}.clip"], 0),
        "attention": (box_heat(numbers["heat"], boxes, plan.power), len(plan.heat_steps)),
        "gain": (box_heat(numbers["gain"], boxes, plan.gain_power), 2 * len(plan.gain_steps)),
    }
    if f"{name}.crop" not in numbers:
        return found
    crop, mask = numbers[f"{name}.crop"], numbers[f"{name}.mask"]
    each = 2 * len(boxes) * plan.steps
    plain = torch.stack([crop[:, 0], mask[:, 0]])  # (isolations, boxes, steps)
    empty = torch.stack([crop[:, -1], mask[:, -1]])
    found |= {
        "error": (vote(plain.mean(-1)), each),
        "error_base": (vote((plain - empty).mean(-1)), 2 * each),
        "crop": (-plain[0].mean(-1), each // 2),
        "mask": (-plain[1].mean(-1), each // 2),
        "crop_base": ((empty - plain)[0].mean(-1), each),
        "mask_base": ((empty - plain)[1].mean(-1), each),
    }
    found["pairs"] = found["crop_base"]
    if f"{name}.pairs" in numbers:
        together, pairs = numbers[f"{name}.pairs"], list(combinations(range(len(boxes)), 2))
        passes = 2 * len(pairs) * plan.steps + 3 * len(boxes) * plan.steps
        found["pairs"] = pair_scores(pairs, together.mean(-1), crop[:, 1:].mean(-1)), passes
    if f"{name}.own_noise" in numbers:
        own, centre, black = (numbers[f"boxes.{k}"] for k in ("own_noise", "centre_crop", "black"))
        tight, new = numbers["boxes.tight_crop"], slice(1, None, 2)
        found |= {
            "own_noise": (vote(own[:, 0].mean(-1).view(2, -1)), each),
            "tight_crop": (vote(torch.stack([tight[:, 0], plain[1]]).mean(-1)), each),
            "centre_crop": (vote(torch.stack([centre[:, 0], plain[1]]).mean(-1)), each),
            "black": (vote(torch.stack([plain[0], black[:, 0]]).mean(-1)), each),
            "overwritten": (vote(plain[..., new].mean(-1)), each),
        }
    return found


def judged(made: list[Expression], found: list[Numbers], plan: GroundingPlan) -> list[Row]:
    """Return the rows of all proposals, methods and kinds."""
    rows, kinds = [], np.array([e.kind for e in made])
    for name in PROPOSALS:
        right: dict[str, list[tuple[bool, bool, int]]] = {}
        fates: dict[str, list[str]] = {}
        for e, numbers in zip(made, found, strict=True):
            overlap = iou(numbers[f"{name}.boxes"], numbers["truth"][e.target][None])[:, 0]
            for method, (scores, passes) in scores_of(numbers, e, name, plan).items():
                chosen = int(scores.argmax())
                exact = chosen == e.target if name == "boxes" else bool(overlap[chosen] >= 0.5)
                got = exact, bool(overlap[chosen] >= 0.5), passes
                right.setdefault(method, []).append(got)
                fates.setdefault(method, []).append(fate(e, chosen))
        hits = {method: np.array(values, dtype=float) for method, values in right.items()}
        counted = [
            (kind, hits, (kinds == kind) | (kind == "all")) for kind in ("all", *EXPRESSIONS)
        ]
        for kind in FATES if name == "boxes" else ():
            fell = {m: np.column_stack([np.array(fates[m]) == kind, hits[m][:, 1:]]) for m in hits}
            counted.append((kind, fell, kinds != "relation"))
        for kind, some, those in counted:
            rows += [_row(name, m, kind, some, those) for m in some if those[: len(some[m])].any()]
    return rows


def fate(e: Expression, chosen: int) -> str:
    """Return what is wrong with a chosen box, one of `FATES`; "" where nothing is."""
    if chosen == e.target:
        return ""
    if chosen >= len(e.scene.things):
        return FATES[2]
    same = e.scene.things[chosen].shape == e.scene.things[e.target].shape
    return FATES[0] if same else FATES[1]


def _row(
    proposals: str, method: str, kind: str, hits: dict[str, np.ndarray], chosen: np.ndarray
) -> Row:
    own = hits[method][chosen[: len(hits[method])]]  # traps: on the first expressions alone
    reached = accuracy(own[:, 0])
    row = {"proposals": proposals, "method": method, "kind": kind, **reached.as_dict()}
    row |= {"found": own[:, 1].mean(), "passes": own[:, 2].mean()}
    for rival in ("clip", "error"):
        theirs = hits.get(rival, hits["clip"])[chosen][: len(own), 0]
        row |= bounds(f"to_{rival}", paired_difference(own[:, 0], theirs))
    return row
