"""Weights over structured readings of attention, from a handful of labelled items, in a second.

    fitted = fit_readings(model, few_shot("winoground", 16), prior="validation")
    scores = fitted.scores(model, make_task("winoground", 300))       # (items, candidates)

Each pair of an image and a text has a number for each reading and layer (`attention.readings`),
computed once; the score is their weighted sum. The weights maximise the likelihood of the right
candidates (conditional logit) less a penalty on their distance from where they start (*ours*): a
convex problem without a gradient through the U-Net; an infinite penalty leaves the zero-shot score.

`choose_readings` is that zero-shot score: a plain sum of a few readings, in units of their spread,
whose names were chosen on validation items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.attention import cross_attention_layers
from dsd_tutorial.matching.cost import Cost, measure
from dsd_tutorial.matching.items import correct_of, decisions, item_hits, item_pairs
from dsd_tutorial.matching.parts import Components
from dsd_tutorial.matching.prior import TextPrior
from dsd_tutorial.matching.scoring import components

STRUCTURE = (
    "log_sum_exp", "word_log_sum_exp", "noun_logit", "adjective_logit", "peak", "spread", "apart",
    "agreement", "adjective_at_noun", "binding", "direction", "place", "size", "ground",
    "ground_apart",
)  # fmt: skip
LATE = 3  # layers, the last ones of the way up: where the embedded model is read best
STEPS = (200, 400, 600)
PENALTY = 10.0
MOST = 8  # picks for a sum that is chosen
ERROR = "error"  # the name of the error term among the features


@dataclass(frozen=True)
class ReadingWeights:
    """A weighted sum of readings, in units of their spread among the candidates of an item.

    Attributes:
        readings: Names in `attention.READINGS`; with "error" among them the error term, too.
        layers: Names of layers; each reading is read at each.
        steps: Time steps; the mean is taken over them.
        prior: What is taken off, as in `matching.components`.
        weights: One per reading and layer, reading by reading, and one for the error term.
        scale: The spread of the same numbers.
        cost: Of fitting.
    """

    readings: tuple[str, ...]
    layers: tuple[str, ...]
    steps: tuple[int, ...]
    prior: TextPrior | None
    weights: Float[Tensor, " features"]
    scale: Float[Tensor, " features"]
    cost: Cost = field(default_factory=Cost)

    def components(self, model: Any, items: Any, **how: Any) -> Components:
        """Return what this sum reads of the pairs of `items`; `how` as in `components`."""
        return reading_components(
            model, items, self.readings, self.layers, self.steps, self.prior, **how
        )

    def score(self, parts: Components) -> Float[Tensor, " pairs"]:
        """Return the score of each pair."""
        return features(parts, self.readings, self.layers, self.steps) / self.scale @ self.weights

    def scores(self, model: Any, items: Any, **how: Any) -> Float[Tensor, "items candidates"]:
        """Return the score of every candidate of a task's items."""
        return self.score(self.components(model, items, **how)).view(len(items.items), -1)

    def table(self) -> Mapping[tuple[str, str], float]:
        """Return the weight of each (reading, layer); that of the error term has the layer ""."""
        return dict(zip(_names(self.readings, self.layers), self.weights.tolist(), strict=True))


def reading_components(
    model: Any,
    items: Any,
    readings: Sequence[str] = STRUCTURE,
    layers: Sequence[str] | None = None,
    steps: Sequence[int] = STEPS,
    prior: TextPrior | Tensor | str | None = None,
    **how: Any,
) -> Components:
    """Return the readings of all pairs of `items`; `how` as in `matching.components`."""
    return components(
        model, items.images(model.resolution), items.texts, item_pairs(items).flatten(0, 1),
        steps=steps,
        layers=late_layers(model, layers),
        token_mask=(),
        readings=[name for name in readings if name != ERROR], prior=prior,
        errors=ERROR in readings, **how,
    )  # fmt: skip


def late_layers(model: Any, layers: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the layers that are named, or the last `LATE` of the way up."""
    if layers is not None:
        return tuple(layers)
    return tuple(name for name in cross_attention_layers(model) if name.startswith("up"))[-LATE:]


def features(
    parts: Components, readings: Sequence[str], layers: Sequence[str], steps: Sequence[int]
) -> Float[Tensor, "pairs features"]:
    """Return one number for each reading and layer, the mean over heads and steps."""
    columns = []
    for name in readings:
        if name == ERROR:
            errors: Any = parts.select(steps=steps).errors
            columns.append(errors.mean(-1, keepdim=True))
        else:
            columns.append(parts.select(name, layers, steps).scores.nanmean(-1).mean(1))
    return torch.cat(columns, dim=-1)


def _names(readings: Sequence[str], layers: Sequence[str]) -> list[tuple[str, str]]:
    return [
        pair
        for name in readings
        for pair in ([(name, "")] if name == ERROR else [(name, layer) for layer in layers])
    ]


def fit_readings(
    model: Any,
    items: Any,
    *,
    readings: Sequence[str] = STRUCTURE,
    layers: Sequence[str] | None = None,
    steps: Sequence[int] = STEPS,
    prior: TextPrior | Tensor | str | None = None,
    start: ReadingWeights | None = None,
    penalty: float = PENALTY,
    parts: Components | None = None,
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
        start: What it starts from, such as `choose_readings` gives it; None starts from no
            reading at all.
        penalty: On the squared distance from the start, against the sum of the log likelihoods.
        parts: What `reading_components` gave for `items`, where it was computed before.
        progress: Whether a progress bar is shown.

    Raises:
        ValueError: a penalty that is no number from 0 up, or a start that reads something else.
    """
    if not penalty >= 0:
        raise ValueError(f"penalty={penalty}: must be a number from 0 up")
    readings, layers, steps = tuple(readings), late_layers(model, layers), tuple(steps)
    prior, begun = TextPrior.given(prior), perf_counter()
    with measure(model) as meter:
        if parts is None:
            parts = reading_components(
                model, items, readings, layers, steps, prior, progress=progress
            )
    rows = torch.arange(len(parts.pairs)).view(len(items.items), -1)
    rows, right = decisions(rows, items.shape, correct_of(items))
    values = features(parts, readings, layers, steps)[rows].double()  # (decisions, candidates, f)
    scale = (values - values.mean(1, keepdim=True)).flatten(0, 1).std(0)
    scale = scale.masked_fill(scale < 1e-9, 1.0)
    names = _names(readings, layers)
    first = torch.zeros(len(names), dtype=torch.double)
    if start is not None:
        first = torch.tensor(_raw(start, names)).double() * scale
    weights = _conditional_logit(values / scale, right, first, penalty)
    spent = replace(meter.cost(len(names), len(items.items)), seconds=perf_counter() - begun)
    return ReadingWeights(
        readings, layers, steps, prior, weights.float(), scale.float(), cost=spent
    )


def _raw(start: ReadingWeights, names: Sequence[tuple[str, str]]) -> list[float]:
    """The weights of another sum for these readings and layers, not in units of any spread."""
    known = {
        name: float(w / s)
        for name, w, s in zip(start.table(), start.weights, start.scale, strict=True)
    }
    if strange := [name for name, w in known.items() if w and name not in names]:
        raise ValueError(f"start reads {strange[0]}, which is not among the readings and layers")
    return [known.get(name, 0.0) for name in names]


def choose_readings(
    model: Any,
    items: Any,
    *,
    readings: Sequence[str] = STRUCTURE,
    layers: Sequence[str] | None = None,
    steps: Sequence[int] = STEPS,
    prior: TextPrior | Tensor | str | None = None,
    most: int = MOST,
    parts: Components | None = None,
    progress: bool = True,
) -> ReadingWeights:
    """Return a plain sum of a few readings, picked one after the other on validation `items`.

    Each time the reading that helps most is added, in units of its spread; one that is picked twice
    counts twice (ensemble selection, Caruana et al. 2004). Of these sums the shortest is taken that
    lies within one standard error of the best.

    Args:
        model: A `StableDiffusion`.
        items: A `Task` on which choices are made, such as `validation_set("winoground")`.
        readings: Names to choose from.
        layers: Each reading is the mean over these; None for the last `LATE` on the way up.
        steps: Time steps.
        prior: As in `matching.components`.
        most: Picks, at the most.
        parts: What `reading_components` gave for `items`, where it was computed before.
        progress: Whether a progress bar is shown.
    """
    readings, layers, steps = tuple(readings), late_layers(model, layers), tuple(steps)
    prior, begun = TextPrior.given(prior), perf_counter()
    with measure(model) as meter:
        if parts is None:
            parts = reading_components(
                model, items, readings, layers, steps, prior, progress=progress
            )
    values = {name: features(parts, (name,), layers, steps).mean(1) for name in readings}
    spreads = {name: _spread(x.view(len(items.items), -1)) for name, x in values.items()}
    picks: list[str] = []
    reached: list[tuple[float, float]] = []  # after each pick: accuracy and its standard error
    total = torch.zeros(len(parts.pairs))
    for _ in range(most):
        tried = {
            name: item_hits(items, total + values[name] / spreads[name])
            for name in readings
            if spreads[name] > 1e-9
        }
        best = max(tried, key=lambda name: tried[name].mean())
        hits, total = tried[best], total + values[best] / spreads[best]
        picks.append(best)
        reached.append((float(hits.mean()), float(hits.std() / len(hits) ** 0.5)))
    top, error = max(reached)
    enough = next(i for i, (value, _) in enumerate(reached) if value >= top - error)
    picked = Counter(picks[: enough + 1])
    names = tuple(picked)
    shares = [picked[n] / (1 if n == ERROR else len(layers)) for n, _ in _names(names, layers)]
    scale = torch.tensor([spreads[name] for name, _ in _names(names, layers)])
    spent = replace(meter.cost(0, len(items.items)), seconds=perf_counter() - begun)
    return ReadingWeights(names, layers, steps, prior, torch.tensor(shares), scale, spent)


def _spread(scores: Float[Tensor, "items candidates"]) -> float:
    """The standard deviation of a reading among the candidates of an item."""
    return float((scores - scores.mean(1, keepdim=True)).std())


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
