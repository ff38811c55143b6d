"""Sums of structured readings: what they read of a pair, and the plain sum that validation chooses.

    chosen = choose_readings(model, validation_set("winoground"))
    scores = chosen.scores(model, make_task("winoground", 300))       # (items, candidates)

Each pair of an image and a text has a number for each reading and layer (`attention.readings`),
computed once; the score is their weighted sum. `choose_readings` takes a plain sum of a few, in
units of their spread, whose names were chosen on validation items: zero-shot but for that choice.
`reading_weights` fits the weights to labelled items. *Ours*, not of the papers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.attention import cross_attention_layers
from dsd_tutorial.matching.cost import Cost, measure
from dsd_tutorial.matching.items import item_hits, item_pairs
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
MOST = 8  # picks for a sum that is chosen
ERROR = "error"  # the name of the error term among readings
HEADS = "heads"  # and of the log-sum-exp of each head


@dataclass(frozen=True)
class ReadingSet:
    """Which numbers are read of a pair of an image and a text.

    Attributes:
        readings: Names in `attention.READINGS`; "heads" is the log-sum-exp of each head by itself,
            "error" the error term.
        layers: Names of layers; each reading is read at each.
        steps: Time steps; the mean over them is taken.
        error_steps: Those of the error term, which are read one by one.
        by_step: Whether readings are read one by one at each of `steps`, too.
    """

    readings: tuple[str, ...]
    layers: tuple[str, ...]
    steps: tuple[int, ...]
    error_steps: tuple[int, ...]
    by_step: bool = False

    @classmethod
    def of(
        cls,
        model: Any,
        readings: Sequence[str],
        layers: Sequence[str] | None,
        steps: Sequence[int],
        error_steps: Sequence[int] | None,
        by_step: bool = False,
    ) -> ReadingSet:
        """Return a set whose layers, if None, are the last `LATE` on the way up."""
        if layers is None:
            up = [name for name in cross_attention_layers(model) if name.startswith("up")]
            layers = up[-LATE:]
        alone = steps if error_steps is None else error_steps
        return cls(tuple(readings), tuple(layers), tuple(steps), tuple(alone), by_step)

    def components(self, model: Any, items: Any, prior: Any = None, **how: Any) -> Components:
        """Return the readings of all pairs of `items`; prior and `how` as in `components`."""
        error = ERROR in self.readings
        return components(
            model, items.images(model.resolution), items.texts, item_pairs(items).flatten(0, 1),
            steps=tuple(sorted({*self.steps, *(self.error_steps if error else ())})),
            layers=self.layers,
            token_mask=("all",) if HEADS in self.readings else (),
            readings=[name for name in self.readings if name not in (ERROR, HEADS)],
            prior=prior, errors=error, **how,
        )  # fmt: skip

    def columns(self, parts: Components) -> dict[tuple[str, str], Float[Tensor, " pairs"]]:
        """Return each number: (reading, where it is read) -> its value for every pair."""
        found: dict[tuple[str, str], Tensor] = {}
        for name in self.readings:
            if name == ERROR:
                errors: Any = parts.select(steps=self.error_steps).errors
                found |= {(name, str(t)): errors[:, i] for i, t in enumerate(self.error_steps)}
                continue
            key = "all" if name == HEADS else name
            # (pairs, steps, layers, heads)
            read = parts.select(key, self.layers, self.steps).scores
            for j, layer in enumerate(self.layers):
                if name == HEADS:
                    by_head = read[:, :, j].mean(1).T
                    found |= {(name, f"{layer} {h}"): x for h, x in enumerate(by_head)}
                elif self.by_step:
                    alone = read[:, :, j].nanmean(-1).T
                    found |= {(name, f"{layer} {t}"): x
                              for t, x in zip(self.steps, alone, strict=True)}  # fmt: skip
                else:
                    found[name, layer] = read[:, :, j].nanmean(-1).mean(1)
        return {key: x for key, x in found.items() if not x.isnan().any()}  # a head that is none

    def features(self, parts: Components) -> Float[Tensor, "pairs features"]:
        """Return the same as one table."""
        return stacked(self.columns(parts))


def stacked(columns: Mapping[Any, Tensor]) -> Float[Tensor, "pairs features"]:
    """Return the columns of a `ReadingSet` side by side."""
    return torch.stack(list(columns.values()), dim=1)


@dataclass(frozen=True)
class ReadingWeights:
    """A weighted sum of readings, in units of their spread among the candidates of an item.

    Attributes:
        reads: Which numbers.
        prior: What is taken off, as in `matching.components`.
        names: (reading, where it is read) of each number.
        weights: One for each.
        scale: The spread of the same numbers.
        cost: Of fitting.
    """

    reads: ReadingSet
    prior: TextPrior | None
    names: tuple[tuple[str, str], ...]
    weights: Float[Tensor, " features"]
    scale: Float[Tensor, " features"]
    cost: Cost = field(default_factory=Cost)

    @property
    def readings(self) -> tuple[str, ...]:
        """Return the names of the readings."""
        return self.reads.readings

    def components(self, model: Any, items: Any, **how: Any) -> Components:
        """Return what this sum reads of the pairs of `items`; `how` as in `components`."""
        return self.reads.components(model, items, self.prior, **how)

    def score(self, parts: Components) -> Float[Tensor, " pairs"]:
        """Return the score of each pair."""
        return self.reads.features(parts) / self.scale @ self.weights

    def scores(self, model: Any, items: Any, **how: Any) -> Float[Tensor, "items candidates"]:
        """Return the score of every candidate of a task's items."""
        return self.score(self.components(model, items, **how)).view(len(items.items), -1)

    def table(self) -> Mapping[tuple[str, str], float]:
        """Return the weight of each (reading, where it is read)."""
        return dict(zip(self.names, self.weights.tolist(), strict=True))


def reading_components(
    model: Any,
    items: Any,
    readings: Sequence[str] = STRUCTURE,
    layers: Sequence[str] | None = None,
    steps: Sequence[int] = STEPS,
    prior: TextPrior | Tensor | str | None = None,
    error_steps: Sequence[int] | None = None,
    **how: Any,
) -> Components:
    """Return the readings of all pairs of `items`; `how` as in `matching.components`."""
    reads = ReadingSet.of(model, readings, layers, steps, error_steps)
    return reads.components(model, items, prior, **how)


def choose_readings(
    model: Any,
    items: Any,
    *,
    readings: Sequence[str] = STRUCTURE,
    layers: Sequence[str] | None = None,
    steps: Sequence[int] = STEPS,
    prior: TextPrior | Tensor | str | None = None,
    error_steps: Sequence[int] | None = None,
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
        error_steps: Time steps of the error term; None: the same.
        most: Picks, at the most.
        parts: What `reading_components` gave for `items`, where it was computed before.
        progress: Whether a progress bar is shown.
    """
    reads = ReadingSet.of(model, readings, layers, steps, error_steps)
    prior, begun = TextPrior.given(prior), perf_counter()
    with measure(model) as meter:
        parts = parts or reads.components(model, items, prior, progress=progress)
    values = {n: replace(reads, readings=(n,)).features(parts).mean(1) for n in reads.readings}
    spreads = {name: _spread(x.view(len(items.items), -1)) for name, x in values.items()}
    picks: list[str] = []
    reached: list[tuple[float, float]] = []  # after each pick: accuracy and its standard error
    total = torch.zeros(len(parts.pairs))
    for _ in range(most):
        tried = {
            name: item_hits(items, total + values[name] / spreads[name])
            for name in reads.readings
            if spreads[name] > 1e-9
        }
        best = max(tried, key=lambda name: tried[name].mean())
        hits, total = tried[best], total + values[best] / spreads[best]
        picks.append(best)
        reached.append((float(hits.mean()), float(hits.std() / len(hits) ** 0.5)))
    top, error = max(reached)
    enough = next(i for i, (value, _) in enumerate(reached) if value >= top - error)
    picked = Counter(picks[: enough + 1])
    reads = replace(reads, readings=tuple(picked))
    names = tuple(reads.columns(parts))
    each = Counter(name for name, _ in names)
    weights = torch.tensor([picked[name] / each[name] for name, _ in names])
    scale = torch.tensor([spreads[name] for name, _ in names])
    spent = replace(meter.cost(0, len(items.items)), seconds=perf_counter() - begun)
    return ReadingWeights(reads, prior, names, weights, scale, spent)


def _spread(scores: Float[Tensor, "items candidates"]) -> float:
    """The standard deviation of a reading among the candidates of an item."""
    return float((scores - scores.mean(1, keepdim=True)).std())
