"""Weights over structured readings of attention, from a handful of labelled items, in a second.

    fitted = fit_readings(model, few_shot("winoground", 16), start=chosen)
    scores = fitted.scores(model, make_task("winoground", 300))       # (items, candidates)

The weights of a `ReadingWeights` maximise the likelihood of the right candidates (conditional
logit) less a penalty on their distance from where they start (*ours*): a convex problem without a
gradient through the U-Net; an infinite penalty leaves the zero-shot score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dsd_tutorial.matching.cost import measure
from dsd_tutorial.matching.items import correct_of, decisions, item_hits
from dsd_tutorial.matching.parts import Components
from dsd_tutorial.matching.prior import TextPrior
from dsd_tutorial.prompt_learning.reading_sums import (
    STEPS,
    STRUCTURE,
    ReadingSet,
    ReadingWeights,
    stacked,
)

PENALTY = 10.0


def fit_readings(
    model: Any,
    items: Any,
    *,
    readings: Sequence[str] = STRUCTURE,
    layers: Sequence[str] | None = None,
    steps: Sequence[int] = STEPS,
    prior: TextPrior | Tensor | str | None = None,
    error_steps: Sequence[int] | None = None,
    by_step: bool = False,
    start: ReadingWeights | None | Sequence[ReadingWeights | None] = None,
    penalty: float | Sequence[float] = PENALTY,
    parts: Components | None = None,
    validation: tuple[Any, Components] | None = None,
    progress: bool = True,
) -> ReadingWeights:
    """Return the `ReadingWeights` of a few labelled items.

    Args:
        model: A `StableDiffusion`.
        items: A `Task`, such as `few_shot("winoground", 16)`.
        readings: Names in `attention.READINGS`; "error" among them adds the error term.
        layers: Where they are read; None for the last `LATE` on the way up.
        steps: Time steps.
        prior: As in `matching.components`.
        error_steps: Time steps of the error term, one weight each; None: the same.
        by_step: Whether readings have a weight at each time step, too.
        start: What it starts from, such as `choose_readings` gives it; None starts from no
            reading at all; or several, of which `validation` takes one.
        penalty: On the squared distance from the start, against the sum of the log likelihoods; or
            several, of which `validation` takes one.
        parts: What `reading_components` gave for `items`, where it was computed before.
        validation: Other items and their components. Where start or penalty are several, the first
            of them is taken that decides these items no worse than the best does (`simplest`): name
            the simplest first, the start before the penalty.
        progress: Whether a progress bar is shown.

    Raises:
        ValueError: a penalty that is no number from 0 up, a start that reads something else, or
            several of them without validation items.
    """
    starts = start if isinstance(start, Sequence) else (start,)
    penalties = penalty if isinstance(penalty, Sequence) else (penalty,)
    if bad := [x for x in penalties if not x >= 0]:
        raise ValueError(f"penalty={bad[0]}: must be a number from 0 up")
    tried = list(product(starts, penalties))
    if not tried or (len(tried) > 1 and validation is None):
        raise ValueError(
            f"{len(tried)} combinations of start and penalty: give one of each, or "
            "validation=(items, components) to choose by"
        )
    reads = ReadingSet.of(model, readings, layers, steps, error_steps, by_step)
    prior, begun = TextPrior.given(prior), perf_counter()
    with measure(model) as meter:
        parts = parts or reads.components(model, items, prior, progress=progress)
    columns = reads.columns(parts)
    names = tuple(columns)
    values, right = _decisions(items, stacked(columns))
    scale = (values - values.mean(1, keepdim=True)).flatten(0, 1).std(0)
    scale = scale.masked_fill(scale < 1e-9, 1.0)
    found = []
    for begin, strength in tried:
        first = torch.zeros(len(names), dtype=torch.double)
        if begin is not None:
            first = torch.tensor(_raw(begin, names)).double() * scale
        found.append(_conditional_logit(values / scale, right, first, strength))
    weights = found[0]
    if validation is not None:
        others = reads.features(validation[1]).double() / scale
        weights = found[simplest([item_hits(validation[0], others @ w) for w in found])]
    labels = len(items.items) + (len(validation[0].items) if validation else 0)
    spent = replace(meter.cost(len(names), labels), seconds=perf_counter() - begun)
    return ReadingWeights(reads, prior, names, weights.float(), scale.float(), spent)


def simplest(hits: Sequence[np.ndarray]) -> int:
    """Return the first of several methods that is no worse than the best of them.

    The one-standard-error rule on paired differences: `hits` are those of each method on the same
    items, the simplest method first; one is no worse if it loses at most one standard error of the
    difference.
    """
    best = max(hits, key=np.mean)
    for i, each in enumerate(hits):
        gap = np.asarray(best, float) - np.asarray(each, float)
        error = gap.std(ddof=1) / len(gap) ** 0.5 if len(gap) > 1 else 0.0
        if gap.mean() <= error + 1e-9:
            return i
    raise AssertionError("the best is no worse than itself")


def _decisions(
    items: Any, values: Float[Tensor, "pairs features"]
) -> tuple[Float[Tensor, "decisions candidates features"], Int[Tensor, " decisions"]]:
    """Return the features of the candidates of each decision, and which is right."""
    rows = torch.arange(len(values)).view(len(items.items), -1)
    rows, right = decisions(rows, items.shape, correct_of(items))
    return values[rows].double(), right


def _raw(start: ReadingWeights, names: Sequence[tuple[str, str]]) -> list[float]:
    """The weights of another sum for these readings and layers, not in units of any spread."""
    known = {
        name: float(w / s)
        for name, w, s in zip(start.table(), start.weights, start.scale, strict=True)
    }
    if strange := [name for name, w in known.items() if w and name not in names]:
        raise ValueError(f"start reads {strange[0]}, which is not among the readings and layers")
    return [known.get(name, 0.0) for name in names]


def _conditional_logit(
    values: Float[Tensor, "decisions candidates features"],
    right: Tensor,
    start: Float[Tensor, " features"],
    penalty: float,
) -> Float[Tensor, " features"]:
    """Return the weights with the least -log likelihood + penalty * |weights - start|^2 / 2."""
    weights = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([weights], max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(values @ weights, right, reduction="sum")
        loss = loss + penalty / 2 * (weights - start).square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    return weights.detach()
