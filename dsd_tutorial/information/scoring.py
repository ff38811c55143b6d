"""Information as a matching score, and how DSD's error term is the same integrand, weighted.

With f(a) the integrand of i_s (half of |e - eps(z)|^2 - |e - eps(z | y)|^2) at the level a,

    i_s                   = integral of f(a) da                            weight 1 over a
    diffusion classifier  = mean over time steps t of 2 f(a_t)             weight 2 |dt / da| / T
    DSD's error term      = mean over t of |e - eps(z)| - |e - eps(z | y)|
                          = mean over t of 2 f(a_t) / (|e - eps(z)| + |e - eps(z | y)|)

since u^2 - v^2 = (u - v) (u + v). The last is He et al., arXiv 2305.10722, the released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from dsd_tutorial.information.estimates import KINDS, Information
from dsd_tutorial.information.levels import Levels, level_grid
from dsd_tutorial.information.passes import information
from dsd_tutorial.matching.items import item_pairs
from dsd_tutorial.shapes.tasks import Task


def error_term(found: Information) -> Float[Tensor, " pairs"]:
    """Return DSD's error term of each pair: the mean over levels of a difference of norms."""
    norms = found.errors.double().sqrt()
    return (norms[..., 0] - norms[..., 1]).mean(1).float()


def error_weights(found: Information) -> Float[Tensor, "pairs levels"]:
    """Return w with error term = sum over levels of w times the integrand of i_s.

    It is exact for one noise per level; with several, norms and their sum belong to each noise.
    """
    norms = found.errors.double().sqrt().sum(2)  # |e - eps| + |e - eps(y)|
    return (2 / (norms * norms.shape[1])).float()


def information_scores(
    model: Any,
    items: Task,
    *,
    levels: Levels | int | Sequence[int] = 12,
    noises: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Float[Tensor, "items pairs"]]:
    """Return i_s, i_o and DSD's error term of every pair of a task, of the same passes.

    Nothing is kept but sums: maps of thousands of pairs would be large. Pairs go item by item, as
    in `items.pairs()`; all else is as in `information`.
    """
    grid = levels if isinstance(levels, Levels) else level_grid(model, levels)
    images, texts = items.images(model.resolution), items.texts
    scores: dict[str, list[Tensor]] = {kind: [] for kind in (*KINDS, "error")}
    for pairs in tqdm(item_pairs(items).split(10), "items, ten at once", disable=not progress):
        shown, image = pairs[..., 0].flatten().unique(return_inverse=True)
        said, text = pairs[..., 1].flatten().unique(return_inverse=True)
        found = information(
            model, images[shown], [texts[i] for i in said], pairs=torch.stack([image, text], 1),
            levels=grid, noises=noises, seed=seed, progress=False,
        )  # fmt: skip
        scores["error"].append(error_term(found))
        for kind in KINDS:
            scores[kind].append(found.total(kind))
    return {name: torch.cat(x).view(len(items.items), -1) for name, x in scores.items()}
