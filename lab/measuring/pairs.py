"""What a frozen U-Net says about the pairs of a task, computed once and kept on disk.

The attention score by token mask, time step, layer and head, the structured readings, and the noise
error with and without the text, come out of the same passes. Whatever does not change the U-Net
(zero-shot scores, learned weights, a diffusion classifier) reads them; which method needs how much
of them is counted all the same (`PairData.cost`). The text prior takes passes of its own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from dsd_tutorial.attention import READINGS, choose_layers
from dsd_tutorial.attention.token_masks import TOKEN_MASKS
from dsd_tutorial.matching import Components
from dsd_tutorial.matching.batches import BatchSize
from dsd_tutorial.matching.cost import Cost
from dsd_tutorial.matching.items import item_pairs
from dsd_tutorial.matching.passes import Passes
from dsd_tutorial.matching.prior import REFERENCES, reference_images
from dsd_tutorial.matching.tally import Tally
from dsd_tutorial.shapes.tasks import Task
from dsd_tutorial.stable_diffusion.noising import time_grid
from lab.measuring.plans import CACHE
from lab.measuring.runner import Cache, Runner

BLOCK = 20  # items computed and saved at a time: the most that kill -9 can lose
ALL = "all"  # the token mask whose log-sum-exp is read by head
AXES = {"readings": 1, "heads": 0}  # of the texts, or pairs, in a prior
TEXTS = 100  # texts whose prior is computed and saved at a time
VERSION = 3  # one more when the tensors of a block change


@dataclass(frozen=True)
class PairData:
    """Items, and what the U-Net said about their pairs, row by row as `items.pairs()` has them.

    table    (masks, pairs, steps, layers, heads), the masks in the order of `TOKEN_MASKS`
    readings (readings, pairs, steps, layers), in the order of `READINGS`, no prior taken off
    prior    what each pair's text scores on reference images at `prior_steps`: "readings" as above,
             "heads" (pairs, steps, layers, heads) the log-sum-exp of all tokens; None where
             several images compete, among which it is no difference
    squares  (pairs, steps) mean squared error of the predicted noise under the text
    empties  (pairs, steps) the same under the empty prompt, which an image's pairs share
    seconds  (items,) that computing them took
    size     how many numbers one noise has; layers, steps name the axes
    """

    items: Task
    table: Tensor
    readings: Tensor
    prior: dict[str, Tensor] | None
    squares: Tensor
    empties: Tensor
    seconds: Tensor
    layers: tuple[str, ...]
    steps: tuple[int, ...]
    prior_steps: tuple[int, ...]
    size: int

    @cached_property
    def components(self) -> Components:
        """Return what `matching.components` of these pairs gives, error term included."""
        by_reading = dict(zip(TOKEN_MASKS, self.table, strict=True))
        # ||e - eps(empty)|| - ||e - eps(text)||, from means of squares
        errors = (self.size * self.empties).sqrt() - (self.size * self.squares).sqrt()
        pairs = torch.stack([torch.from_numpy(index) for index in self.items.pairs()], 1)
        return Components(by_reading, errors, self.layers, self.steps, pairs)

    @cached_property
    def plain_structure(self) -> Components:
        """Return the readings of these pairs, the log-sum-exp also by head, and the error term."""
        by_reading = dict(zip(READINGS, self.readings[..., None], strict=True))
        return replace(self.components, by_reading=by_reading | {ALL: self._all})

    @cached_property
    def structure(self) -> Components:
        """Return the same with the prior taken off, NaN at time steps of which it is not known."""
        if self.prior is None:
            return self.plain_structure
        read, heads = (torch.full_like(x, float("nan")) for x in (self.readings, self._all))
        rows = [self.steps.index(t) for t in self.prior_steps]
        read[:, :, rows] = self.readings[:, :, rows] - self.prior["readings"]
        heads[:, rows] = self._all[:, rows] - self.prior["heads"]
        by_reading = dict(zip(READINGS, read[..., None], strict=True))
        return replace(self.components, by_reading=by_reading | {ALL: heads})

    @property
    def _all(self) -> Tensor:
        return self.table[list(TOKEN_MASKS).index(ALL)]

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
            readings=self.readings[:, rows],
            prior=None if self.prior is None else _of_pairs(self.prior, rows),
            squares=self.squares[rows], empties=self.empties[rows],
            seconds=self.seconds[list(which)],
        )  # fmt: skip

    def cost(self, steps: int | None = None, error: bool = False) -> Cost:
        """Return what these pairs cost a method that reads `steps` time steps (None: all).

        The error term takes a pass of the empty prompt more, per image and time step. Seconds are
        those of as many passes here.
        """
        images, texts = self.items.shape
        steps = len(self.steps) if steps is None else steps
        return self._cost(steps * len(self.items.items) * images * (texts + error))

    def prior_cost(self, steps: int) -> Cost:
        """Return what the prior of these texts costs at so many time steps, if there is one."""
        distinct = 0 if self.prior is None else len(set(self.items.texts))
        return self._cost(steps * REFERENCES * distinct)

    def _cost(self, passes: int) -> Cost:
        images, texts = self.items.shape
        whole = len(self.steps) * len(self.items.items) * images * (texts + 1)
        return Cost(unet_passes=passes, seconds=float(self.seconds.sum()) * passes / whole)


@dataclass
class PairCache:
    """Computes and keeps `PairData`, in blocks of `BLOCK` items.

    steps  the number of time steps, on the grid of `time_grid`; `seed` draws the shared noise
    """

    model: Any
    folder: Path | str = CACHE
    steps: int = 6
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        self.cache = Cache(
            self.folder, "pairs", weights=self.model.sha256, version=VERSION, steps=self.steps,
            seed=self.seed,
        )  # fmt: skip

    @classmethod
    def of(cls, runner: Runner, **settings: int) -> PairCache:
        """Return the cache of a measurement."""
        how = runner.options
        return cls(runner.model, how.cache, progress=how.progress, **settings)

    @property
    def grid(self) -> tuple[int, ...]:
        """Return the time steps."""
        return time_grid(self.steps, self.model.scheduler.config.num_train_timesteps)

    @property
    def inner(self) -> tuple[int, ...]:
        """Return the time steps at which structure is read: half of the grid, from the second on.

        The late ones read worst (results/readings.csv).
        """
        return self.grid[1 : 1 + max(1, len(self.grid) // 2)] or self.grid

    def get(self, items: Task, label: str) -> PairData:
        """Return what the U-Net says about `items`; `label` names their files, such as "test".

        If one image chooses among texts, the text prior is computed at the time steps `inner`.
        """
        starts = self._starts(len(items.items), BLOCK, f"U-Net on {items.name}, {label}")
        found = [self._block(items, label, start) for start in starts]
        rows = {
            name: torch.cat([b[name] for b in found], int(name in ("table", "readings")))
            for name in found[0]
        }
        layers = tuple(choose_layers(self.model, None))
        prior = self._prior(items) if items.shape[0] == 1 else None
        return PairData(
            items, **rows, prior=prior, layers=layers, steps=self.grid, prior_steps=self.inner,
            size=math.prod(self.model.latent_shape),
        )  # fmt: skip

    def _starts(self, count: int, size: int, said: str) -> Iterable[int]:
        return tqdm(range(0, count, size), said, leave=False, disable=not self.progress)

    def _prior(self, items: Task) -> dict[str, Tensor]:
        texts = list(dict.fromkeys(items.texts))
        starts = self._starts(len(texts), TEXTS, f"prior of the texts of {items.name}")
        found = [self._prior_block(items.name, texts[i : i + TEXTS]) for i in starts]
        of_text = {name: torch.cat([x[name] for x in found], axis) for name, axis in AXES.items()}
        place = {text: i for i, text in enumerate(texts)}
        return _of_pairs(of_text, [place[items.texts[i]] for i in items.pairs()[1]])

    def _prior_block(self, task: str, texts: list[str]) -> dict[str, Tensor]:
        """Return what these texts read in the mean over the references, as in `PairData.prior`."""

        @torch.no_grad()
        def compute() -> dict[str, Tensor]:
            images = reference_images(self.model)
            pairs = torch.cartesian_prod(torch.arange(len(images)), torch.arange(len(texts)))
            passes = Passes(
                self.model, images, texts, pairs, steps=self.grid, token_masks=(ALL,),
                readings=tuple(READINGS), seed=self.seed,
            )  # fmt: skip
            tally, places = Tally(passes), [self.grid.index(t) for t in self.inner]
            for batch in passes.run(passes.rows(steps=places)):
                tally.add(*batch)
            found = tally.components()[:, passes.once.place][:, :, places]
            mean = found.unflatten(1, (len(images), len(texts))).mean(1)
            return {"readings": mean[1:, ..., 0].contiguous(), "heads": mean[0]}

        digest = hashlib.sha256(repr((texts, tuple(self.inner), "heads")).encode()).hexdigest()
        return self.cache.tensors({"prior": task, "texts": digest}, compute)

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
    """Return the tensors of a `PairData` for all pairs of `items`.

    The passes of `matching.components` with `errors=True`, all token masks and all readings (a test
    holds both equal), of which the errors are kept as squares: a diffusion classifier averages
    those.
    """
    started = perf_counter()
    passes = Passes(
        model, items.images(model.resolution), items.texts, item_pairs(items).flatten(0, 1),
        steps=grid, token_masks=tuple(TOKEN_MASKS), readings=tuple(READINGS), errors=True,
        seed=seed, batch_size=batch_size,
    )  # fmt: skip
    tally = Tally(passes, power=2)
    for batch in passes.run(passes.rows()):
        tally.add(*batch)
    squares, empties = (x / passes.noise[0, 0].numel() for x in tally.distances())
    place, masks = passes.once.place, len(TOKEN_MASKS)
    found = tally.components()[:, place]
    each = torch.full((len(items.items),), (perf_counter() - started) / len(items.items))
    return {
        "table": found[:masks].contiguous(), "readings": found[masks:, ..., 0].contiguous(),
        "squares": squares[place], "empties": empties[place], "seconds": each,
    }  # fmt: skip


def _of_pairs(prior: dict[str, Tensor], rows: list[int] | Tensor) -> dict[str, Tensor]:
    rows = torch.as_tensor(rows)
    return {name: x.index_select(AXES[name], rows) for name, x in prior.items()}
