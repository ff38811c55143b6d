"""Choices made on validation items, and only there: which fit, which layers, steps and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from torch import Tensor

from dsd_tutorial.attention.token_masks import TOKEN_MASKS
from dsd_tutorial.prompt_learning.adapters import Adapter
from dsd_tutorial.prompt_learning.objectives import decisions, headline, infonce, spread
from dsd_tutorial.prompt_learning.scoring import Scoring, item_components


def judge(items: Any, scores: Tensor, scale: float | None = None) -> tuple[float, float]:
    """Return the task's accuracy and the InfoNCE loss of scores (items, images * texts).

    `scale` is the spread that the loss divides by; None is the scores' own.
    """
    rows, positive = decisions(scores, items.shape, [item.correct for item in items.items])
    return headline(items, scores), float(infonce(rows / (scale or spread(rows)), positive))


def choose(fits: Mapping[str, Any]) -> str:
    """Return the name of the `Fit` with the best validation accuracy; ties go to the lower loss.

    Raises ValueError for no fits, or one that was made without validation items.
    """
    blind = [name for name, fit in fits.items() if fit.accuracy is None]
    if blind or not fits:
        raise ValueError(f"cannot choose: {blind or 'no fits'} without a validation accuracy")
    return max(fits, key=lambda name: (fits[name].accuracy, -fits[name].loss))


def choose_scoring(
    model: Any,
    items: Any,
    *,
    time_steps: int | Sequence[int] = 4,
    token_masks: Sequence[str] | None = None,
    mixes: Sequence[tuple[float, float]] = ((1.0, 0.0),),
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> Scoring:
    """Return the zero-shot `Scoring` that does best on `items`, which should be validation items.

    One computation of components, then all token masks x layers (all, the released code's, each
    alone) x time steps (all, each alone) x `mixes` are compared; a mix is (attention_weight,
    error_weight): (1, 0) attention only, (0, 1) error only, (1, 1) both. `token_masks` None are
    all there are. The best of so many is partly luck: report it on other items.
    """
    base = Scoring(time_steps=time_steps, seed=seed)
    masks = list(token_masks or TOKEN_MASKS)
    parts = item_components(
        model, items, None, base, token_masks=masks, errors=any(e for _, e in mixes),
        batch_size=batch_size, progress=progress,
    )  # fmt: skip
    last = {name.split(".")[0]: name for name in parts.layers}
    layers = {None: parts.layers, "last": tuple(last.values())}
    layers |= {(name,): (name,) for name in parts.layers}
    steps = [parts.steps, *[(t,) for t in parts.steps if len(parts.steps) > 1]]
    best = None
    for (attention, error), mask, (asked, names), times in product(
        mixes, masks, layers.items(), steps
    ):
        scoring = Scoring(
            times, layers=asked, token_mask=mask, attention_weight=attention, error_weight=error,
            seed=seed,
        )  # fmt: skip
        rows = [parts.steps.index(t) for t in times]
        columns = [parts.layers.index(name) for name in names]
        table = parts.by_reading[mask][:, rows][:, :, columns]
        errors = None if parts.errors is None else parts.errors[:, rows]
        scores = Adapter().pool(table, errors, scoring).view(len(items.items), -1)
        accuracy, loss = judge(items, scores)
        if best is None or (accuracy, -loss) > best[0]:
            best = (accuracy, -loss), scoring
    return best[1]
