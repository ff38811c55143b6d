"""What a frozen U-Net says about the pairs of a task, computed once and kept on disk.

The attention score by token mask, time step, layer and head, and the noise error with and without
the text, come out of the same passes. Whatever does not change the U-Net (zero-shot scores, learned
weights over heads, a diffusion classifier) reads them; which method needs how much of them is
counted all the same (`PairData.cost`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from dsd_tutorial.attention import choose_layers
from dsd_tutorial.attention.token_masks import TOKEN_MASKS
from dsd_tutorial.matching import Components
from dsd_tutorial.matching.batches import BatchSize
from dsd_tutorial.matching.cost import Cost
from dsd_tutorial.matching.items import item_pairs
from dsd_tutorial.matching.passes import Passes
from dsd_tutorial.matching.tally import Tally
from dsd_tutorial.shapes.tasks import Task
from dsd_tutorial.stable_diffusion.noising import time_grid
from lab.measuring.runner import CACHE, Cache

BLOCK = 20  # items computed and saved at a time: the most that kill -9 can lose
VERSION = 1  # one more when the tensors of a block change


@dataclass(frozen=True)
class PairData:
    """Items, and what the U-Net said about their pairs, row by row as `items.pairs()` has them.

    table    (masks, pairs, steps, layers, heads), the masks in the order of `TOKEN_MASKS`
    squares  (pairs, steps) mean squared error of the predicted noise under the text
    empties  (pairs, steps) the same under the empty prompt, which an image's pairs share
    seconds  (items,) that computing them took
    size     how many numbers one noise has; layers, steps name the axes
    """

    items: Task
    table: Tensor
    squares: Tensor
    empties: Tensor
    seconds: Tensor
    layers: tuple[str, ...]
    steps: tuple[int, ...]
    size: int

    @cached_property
    def components(self) -> Components:
        """Return what `matching.components` of these pairs gives, error term included."""
        by_reading = dict(zip(TOKEN_MASKS, self.table, strict=True))
        # ||e - eps(empty)|| - ||e - eps(text)||, from means of squares
        errors = (self.size * self.empties).sqrt() - (self.size * self.squares).sqrt()
        pairs = torch.stack([torch.from_numpy(index) for index in self.items.pairs()], 1)
        return Components(by_reading, errors, self.layers, self.steps, pairs)

    def evidence(self) -> Tensor:
        """Return the diffusion classifier's scores (items, images * texts), without elimination.

        Its own rule (`baselines.DiffusionClassifier`): -error where texts compete for one image,
        error(empty) - error(text) where images compete.
        """
        one_image = self.items.shape[0] == 1
        gains = -self.squares if one_image else self.empties - self.squares
        return gains.mean(1).view(len(self.items.items), -1)

    def pick(self, which: Sequence[int]) -> PairData:
        """Return the items of these numbers alone."""
        size = self.items.shape[0] * self.items.shape[1]
        rows = torch.tensor([i * size + j for i in which for j in range(size)])
        return replace(
            self, items=_part(self.items, which), table=self.table[:, rows],
            squares=self.squares[rows], empties=self.empties[rows],
            seconds=self.seconds[list(which)],
        )  # fmt: skip

    def cost(self, steps: int | None = None, error: bool = False) -> Cost:
        """Return what these pairs cost a method that reads `steps` time steps (None: all).

        The error term takes a pass of the empty prompt more, per image and time step. Seconds are
        those of as many passes here.
        """
        images, texts = self.items.shape
        count, all_steps = len(self.items.items), len(self.steps)
        passes = (all_steps if steps is None else steps) * count * images * (texts + error)
        whole = all_steps * count * images * (texts + 1)
        return Cost(unet_passes=passes, seconds=float(self.seconds.sum()) * passes / whole)


@dataclass
class PairCache:
    """Computes and keeps `PairData`, in blocks of `BLOCK` items.

    steps  the number of time steps, on the grid of `time_grid`; `seed` draws the shared noise
    """

    model: Any
    folder: Path = CACHE
    steps: int = 6
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        """Open the cache of these weights and settings."""
        self.cache = Cache(
            self.folder, "pairs", weights=self.model.sha256, version=VERSION, steps=self.steps,
            seed=self.seed,
        )  # fmt: skip

    @property
    def grid(self) -> tuple[int, ...]:
        """Return the time steps."""
        return time_grid(self.steps, self.model.scheduler.config.num_train_timesteps)

    def get(self, items: Task, label: str) -> PairData:
        """Return what the U-Net says about `items`; `label` names their files, such as "test"."""
        starts = tqdm(
            range(0, len(items.items), BLOCK), f"U-Net on {items.name}, {label}", leave=False,
            disable=not self.progress,
        )  # fmt: skip
        found = [self._block(items, label, start) for start in starts]
        rows = {
            name: torch.cat([block[name] for block in found], dim=1 if name == "table" else 0)
            for name in found[0]
        }
        channels, height, width = self.model.latent_shape
        layers = tuple(choose_layers(self.model, None))
        return PairData(
            items, **rows, layers=layers, steps=self.grid, size=channels * height * width
        )

    def _block(self, items: Task, label: str, start: int) -> dict[str, Tensor]:
        part = _part(items, range(start, min(start + BLOCK, len(items.items))))
        digest = hashlib.sha256(repr(part.items).encode()).hexdigest()
        key = {"task": items.name, "label": label, "start": start, "items": digest}
        return self.cache.tensors(
            key, lambda: measure_pairs(self.model, part, self.grid, self.seed)
        )


def _part(items: Task, which: Sequence[int]) -> Task:
    return replace(items, items=tuple(items.items[i] for i in which))


@torch.no_grad()
def measure_pairs(
    model: Any, items: Task, grid: Sequence[int], seed: int = 0, batch_size: BatchSize = "auto"
) -> dict[str, Tensor]:
    """Return {"table", "squares", "empties", "seconds"} of all pairs of `items`, as in `PairData`.

    The passes of `matching.components` with `errors=True` and all token masks (a test holds both
    equal), of which the errors are kept as squares: a diffusion classifier averages those.
    """
    started = perf_counter()
    passes = Passes(
        model, items.images(model.resolution), items.texts, item_pairs(items).flatten(0, 1),
        steps=grid, token_masks=tuple(TOKEN_MASKS), errors=True, seed=seed, batch_size=batch_size,
    )  # fmt: skip
    tally = Tally(passes, power=2)
    for batch in passes.run(passes.rows()):
        tally.add(*batch)
    squares, empties = (x / passes.noise[0, 0].numel() for x in tally.distances())
    place = passes.once.place
    each = torch.full((len(items.items),), (perf_counter() - started) / len(items.items))
    return {
        "table": tally.components()[:, place], "squares": squares[place],
        "empties": empties[place], "seconds": each,
    }  # fmt: skip
