"""How a score is read, and the one entry by which every method scores the items of a task.

    scores = evaluate_items(model, make_task("comvg", 300), adapter)   # (items, candidates)
    task.accuracy(scores.flatten())

The score is DSD's (He et al., arXiv 2305.10722; `matching`), read while an adapter is active.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsd_tutorial.attention.token_masks import TOKEN_MASKS, token_mask
from dsd_tutorial.matching import Components, components, pass_components
from dsd_tutorial.matching.scoring import distance
from dsd_tutorial.prompt_learning.adapters import Adapter
from dsd_tutorial.stable_diffusion.noising import time_grid


@dataclass(frozen=True)
class Scoring:
    """The settings of a score that nothing is learned about.

    time_steps       n for the middles of n equal cells, or a list of time steps
    noises           noises per time step; `seed` draws them
    layers           as in `attention.observe`: names, None for all, "last" for the released code's
    token_mask       "all", "words", "no_start", "no_padding" or "eos"
    lam              lambda of the log-sum-exp over tokens
    attention_weight, error_weight    score = attention_weight * attention + error_weight * error,
                     where error = ||e - eps(z_t, empty)|| - ||e - eps(z_t, text)||
    """

    time_steps: int | tuple[int, ...] = 4
    noises: int = 1
    layers: str | tuple[str, ...] | None = None
    token_mask: str = "all"
    lam: float = 1.0
    attention_weight: float = 1.0
    error_weight: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("time_steps", "layers"):  # lists become tuples: a Scoring is a fixed thing
            value = getattr(self, name)
            if not isinstance(value, (int, str, type(None))):
                object.__setattr__(self, name, tuple(value))
        if self.token_mask not in TOKEN_MASKS:
            known = ", ".join(TOKEN_MASKS)
            raise ValueError(f"unknown token_mask {self.token_mask!r}; choose one of {known}")
        if self.attention_weight == 0 == self.error_weight:
            raise ValueError("attention_weight and error_weight are both 0: nothing is scored")

    def grid(self, model: Any) -> tuple[int, ...]:
        """Return the time steps as a list of numbers."""
        return time_grid(self.time_steps, model.scheduler.config.num_train_timesteps)

    def changed(self, **changes: Any) -> Scoring:
        """Return a copy with other values. Raises ValueError for a setting that is none of its."""
        strange = sorted(set(changes) - set(asdict(self)))
        if strange:
            known = ", ".join(asdict(self))
            raise ValueError(f"unknown setting {', '.join(strange)}; a scoring has {known}")
        return replace(self, **changes)

    def needs_error(self, adapter: Adapter | None = None) -> bool:
        """Return whether the error term must be computed (one more pass per image)."""
        return self.error_weight != 0 or (adapter is not None and adapter.reads_error)


def item_pairs(items: Any) -> Tensor:
    """Return (items, images * texts, 2): scene and text index of every pair of a task's items."""
    pairs = torch.as_tensor(np.stack(items.pairs(), axis=1))
    return pairs.view(len(items.items), -1, 2)


def item_components(
    model: Any,
    items: Any,
    adapter: Adapter | None = None,
    scoring: Scoring | None = None,
    *,
    token_masks: Sequence[str] | None = None,
    errors: bool | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> Components:
    """Return the `Components` of all pairs of `items`, row by row as `items.pairs()` has them.

    `items` is a `Task`, or anything with `images(size)`, `texts`, `pairs()`, `items`, `shape`.
    `token_masks` None is the scoring's own; several are had in the same passes. `errors` None
    computes the error term where scoring or adapter want it.
    """
    scoring, adapter = scoring or Scoring(), adapter or Adapter()
    with adapter.active(model):
        return components(
            model,
            items.images(model.resolution),
            items.texts,
            item_pairs(items).flatten(0, 1),
            steps=scoring.time_steps,
            noises=scoring.noises,
            layers=scoring.layers,
            token_mask=token_masks or scoring.token_mask,
            lam=scoring.lam,
            errors=scoring.needs_error(adapter) if errors is None else errors,
            seed=scoring.seed,
            batch_size=batch_size,
            progress=progress,
        )


def table_of(parts: Components, scoring: Scoring) -> Tensor:
    """Return (pairs, steps, layers, heads) of the scoring's token mask; ValueError if not there."""
    if scoring.token_mask not in parts.by_reading:
        raise ValueError(
            f"the components hold the token masks {', '.join(parts.by_reading)}, not "
            f"{scoring.token_mask!r}: compute them with token_masks=[{scoring.token_mask!r}]"
        )
    return parts.by_reading[scoring.token_mask]


def pooled(parts: Components, adapter: Adapter | None, scoring: Scoring) -> Tensor:
    """Return one score per pair, (pairs,), from components computed while `adapter` was active."""
    return (adapter or Adapter()).pool(table_of(parts, scoring), parts.errors, scoring)


@torch.no_grad()
def evaluate_items(
    model: Any,
    items: Any,
    adapter: Adapter | None = None,
    scoring: Scoring | None = None,
    *,
    batch_size: int = 32,
    progress: bool = True,
    **changes: Any,
) -> Tensor:
    """Return the score of every candidate, (items, images * texts), higher is a better match.

    Columns go image by image, then text by text, so `items.accuracy(scores.flatten())` counts them.
    `adapter` None is zero-shot DSD. `changes` are settings of the `Scoring`, such as token_mask=.
    """
    scoring = (scoring or Scoring()).changed(**changes)
    parts = item_components(
        model, items, adapter, scoring, batch_size=batch_size, progress=progress
    )
    return pooled(parts, adapter, scoring).view(len(items.items), -1)


def pass_scores(
    model: Any,
    adapter: Adapter,
    latents: Tensor,
    texts: Sequence[str],
    pairs: Tensor,
    t: int,
    e: Tensor,
    scoring: Scoring,
    *,
    contexts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the scores (pairs,) of one U-Net pass with gradients, and its epsilon of the pairs.

    latents (images, 4, h, w) encoded before; pairs (pairs, 2) image and text index; one time step
    `t` and one noise `e` (1, 4, h, w) for all of them, so that no candidate is luckier than another
    (METHODS: share (t, e) between positive and negatives). `contexts` (texts, L, d) spare the text
    encoder where the adapter leaves it alone. With the error term, the empty prompt of each image
    joins the pass.
    """
    image, text = pairs.to(latents.device).unbind(1)
    with adapter.active(model):
        if contexts is None or adapter.changes_text:
            contexts = model.encode_text(list(texts))
        states, noisy = contexts[text], model.add_noise(latents, e.expand_as(latents), t)
        mask = token_mask(model, texts, scoring.token_mask)
        mask = None if mask is None else mask.to(text.device)[text]
        fields, error = noisy[image], scoring.needs_error(adapter)
        used, place = image.unique(return_inverse=True)
        if error:
            empty = model.encode_text([""]).expand(len(used), -1, -1)
            states, fields = torch.cat([states, empty]), torch.cat([fields, noisy[used]])
            if mask is not None:  # nobody reads what the empty prompts score
                mask = torch.cat([mask, mask.new_ones(len(used), mask.shape[1])])
        parts, eps = pass_components(
            model, fields, t, states, layers=scoring.layers, token_masks=[mask],
            lam=scoring.lam, grad=True,
        )  # fmt: skip
    n = len(pairs)
    gaps = None
    if error:
        far = distance(e.expand_as(eps), eps)
        gaps = (far[n:][place] - far[:n])[:, None]
    return adapter.pool(parts[0, :n, None], gaps, scoring), eps[:n]
