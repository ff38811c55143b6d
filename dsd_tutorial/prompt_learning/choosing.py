"""Choices made on validation items, and only there: which fit, which layers, steps and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from dsd_tutorial.attention.token_masks import TOKEN_MASKS
from dsd_tutorial.matching.batches import BatchSize
from dsd_tutorial.prompt_learning.adapters import Adapter, Scoring
from dsd_tutorial.prompt_learning.objectives import judge
from dsd_tutorial.prompt_learning.scoring import item_components
from dsd_tutorial.shapes.tasks import Task


def choose(fits: Mapping[str, Any]) -> str:
    """Return the name of the `Fit` with the best validation accuracy; ties go to the lower loss.

    Raises:
        ValueError: no fits, or one that was made without validation items.
    """
    blind = [name for name, fit in fits.items() if fit.accuracy is None]
    if blind or not fits:
        raise ValueError(f"cannot choose: {blind or 'no fits'} without a validation accuracy")
    return max(fits, key=lambda name: (fits[name].accuracy, -fits[name].loss))


def choose_scoring(
    model: Any,
    items: Task,
    *,
    time_steps: int | Sequence[int] = 4,
    token_masks: Sequence[str] | None = None,
    mixes: Sequence[tuple[float, float]] = ((1.0, 0.0),),
    seed: int = 0,
    batch_size: BatchSize = "auto",
    progress: bool = True,
) -> Scoring:
    """Return the zero-shot `Scoring` that does best on `items`, which should be validation items.

    One computation of components, then all token masks x layers (all, the released code's, each
    alone) x time steps (all, each alone) x mixes are compared. The best of so many is partly luck:
    report it on other items.

    Args:
        model: A `StableDiffusion`.
        items: On which readings are compared.
        time_steps: As in `Scoring`.
        token_masks: That are compared; None are all there are.
        mixes: (attention_weight, error_weight): (1, 0) attention only, (0, 1) error only, (1, 1)
            both.
        seed: Draws the noises.
        batch_size: Pairs per U-Net pass.
        progress: Whether a progress bar is shown.
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
    found = []
    for (attention, error), mask, (reading, names), times in product(
        mixes, masks, layers.items(), steps
    ):
        scoring = Scoring(
            times, layers=reading, token_mask=mask, attention_weight=attention, error_weight=error,
            seed=seed,
        )  # fmt: skip
        scores = Adapter().pool(parts.select(mask, names, times), scoring)
        accuracy, loss = judge(items, scores.view(len(items.items), -1))
        found.append((accuracy, -loss, scoring))
    return max(found, key=lambda row: row[:2])[2]  # of equals the first
