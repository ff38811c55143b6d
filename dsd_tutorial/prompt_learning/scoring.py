"""How items are scored while an adapter is active: by components, or by one pass with gradients.

    scores = evaluate_items(model, make_task("comvg", 300), adapter)   # (items, candidates)
    task.accuracy(scores.flatten())

The score is DSD's (He et al., arXiv 2305.10722; `matching`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsd_tutorial.attention import choose_layers, token_mask
from dsd_tutorial.matching import Components, components, pass_components
from dsd_tutorial.matching.batches import BatchSize
from dsd_tutorial.matching.items import item_pairs
from dsd_tutorial.matching.passes import distance
from dsd_tutorial.prompt_learning.adapters import Adapter, Scoring
from dsd_tutorial.shapes.tasks import Task


def item_components(
    model: Any,
    items: Task,
    adapter: Adapter | None = None,
    scoring: Scoring | None = None,
    *,
    token_masks: Sequence[str] | None = None,
    errors: bool | None = None,
    prior: Tensor | str | None = None,
    batch_size: BatchSize = "auto",
    progress: bool = True,
) -> Components:
    """Return the `Components` of all pairs of `items`, row by row as `items.pairs()` has them.

    `adapter` None is zero-shot DSD. `token_masks` None is the scoring's own; several cost no more
    passes. `errors` None computes the error term where scoring or adapter read it. `prior` as in
    `matching.components`, of the adapted model.
    """
    scoring, adapter = scoring or Scoring(), adapter or Adapter()
    with adapter.active(model):
        return components(
            model, items.images(model.resolution), items.texts, item_pairs(items).flatten(0, 1),
            steps=scoring.time_steps, noises=scoring.noises, layers=scoring.layers,
            token_mask=token_masks or scoring.token_mask, lam=scoring.lam,
            errors=adapter.needs_error(scoring) if errors is None else errors,
            prior=prior, seed=scoring.seed, batch_size=batch_size, progress=progress,
        )  # fmt: skip


@torch.no_grad()
def evaluate_items(
    model: Any,
    items: Task,
    adapter: Adapter | None = None,
    scoring: Scoring | None = None,
    *,
    prior: Tensor | str | None = None,
    batch_size: BatchSize = "auto",
    progress: bool = True,
    **changes: Any,
) -> Float[Tensor, "items pairs"]:
    """Return the score of every candidate, higher is a better match.

    Columns go image by image, then text by text, so `items.accuracy(scores.flatten())` counts them.
    `adapter` None is zero-shot DSD, `prior` as in `item_components`. `changes` are settings of the
    `Scoring`, such as token_mask=.
    """
    scoring, adapter = (scoring or Scoring()).changed(**changes), adapter or Adapter()
    parts = item_components(
        model, items, adapter, scoring, prior=prior, batch_size=batch_size, progress=progress
    )
    return adapter.pool(parts, scoring).view(len(items.items), -1)


def pass_scores(
    model: Any,
    adapter: Adapter,
    latents: Float[Tensor, "images channels height width"],
    texts: Sequence[str],
    pairs: Int[Tensor, "pairs 2"],
    t: int,
    e: Float[Tensor, "1 channels height width"],
    scoring: Scoring,
    *,
    prompts: Float[Tensor, "texts tokens states"] | None = None,
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, "pairs channels height width"]]:
    """Return the scores of one U-Net pass with gradients, and its epsilon of the pairs.

    One time step and one noise for all pairs, so that no candidate is luckier than another. With
    the error term, the empty prompt of each image joins the pass.

    Args:
        model: A `StableDiffusion`.
        adapter: Is active meanwhile.
        latents: Of the images, encoded before.
        texts: Captions.
        pairs: Image and text index.
        t: The time step.
        e: The noise.
        scoring: How the components are read.
        prompts: Spare the text encoder where the adapter leaves it alone.
    """
    image, text = pairs.to(latents.device).unbind(1)
    with adapter.active(model):
        if prompts is None or adapter.changes_text:
            states = model.encode_text(list(texts))[text]
        else:
            states = prompts[text]
        noisy = model.add_noise(latents, e.expand_as(latents), t)
        mask = token_mask(model, texts, scoring.token_mask)
        mask = None if mask is None else mask.to(text.device)[text]
        fields, error = noisy[image], adapter.needs_error(scoring)
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
        far = distance(e, eps)
        gaps = (far[n:][place] - far[:n])[:, None]
    layers = tuple(choose_layers(model, scoring.layers))
    found = Components({scoring.token_mask: parts[0, :n, None]}, gaps, layers, (t,), pairs)
    return adapter.pool(found, scoring), eps[:n]
