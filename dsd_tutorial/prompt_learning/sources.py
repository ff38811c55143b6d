"""Where the scores of a training step come from: U-Net passes with gradients, or a cache.

Both answer the same three questions for `fit`: how well does the adapter do on the few-shot set at
the start, what are the scores of the next batch, and how well does it do on validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.matching.parts import Components
from dsd_tutorial.prompt_learning.adapters import Adapter, seeded
from dsd_tutorial.prompt_learning.choosing import judge
from dsd_tutorial.prompt_learning.objectives import decisions, spread
from dsd_tutorial.prompt_learning.scoring import (
    Scoring,
    evaluate_items,
    item_components,
    item_pairs,
    pass_scores,
    pooled,
    table_of,
)
from dsd_tutorial.stable_diffusion.noising import shared_noise

TRAINING_NOISE = 10_000  # training noises count from here, so that no evaluation shares one


@dataclass(frozen=True)
class Batch:
    """Scores (decisions, candidates) in zero-shot spreads, the right ones, and a drawing loss."""

    scores: Tensor
    positive: Tensor
    drawing: Tensor | float = 0.0


class Cached:
    """Components computed once, before and instead of all passes: for `HeadWeights`."""

    def __init__(
        self,
        model: Any,
        adapter: Any,
        items: Any,
        validation: Any | None,
        scoring: Scoring,
        parts: tuple[Components, Components | None] | None,
        progress: bool,
    ):
        self.adapter, self.items, self.validation = adapter, items, validation
        self.scoring = scoring
        if parts is None:
            wanted = [x for x in (items, validation) if x is not None]
            found = [item_components(model, x, adapter, scoring, progress=progress) for x in wanted]
            parts = (found[0], found[1] if len(found) > 1 else None)
        self.parts, self.validation_parts = parts
        adapter.calibrate(table_of(self.parts, scoring), self.parts.errors, items, scoring)
        with torch.no_grad():
            self.start = self._scores()
        self.scale = spread(self._decide(self.start)[0])

    def _scores(self) -> Tensor:
        scores = pooled(self.parts, self.adapter, self.scoring)
        return scores.view(len(self.items.items), -1)

    def _decide(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        return decisions(scores, self.items.shape, [i.correct for i in self.items.items])

    def batch(self, step: int) -> Batch:
        """Return all few-shot items at once; they cost next to nothing."""
        rows, positive = self._decide(self._scores())
        return Batch(rows / self.scale, positive)

    @torch.no_grad()
    def validate(self) -> tuple[float, float] | None:
        """Return (accuracy, InfoNCE loss) on the validation items, or None without any."""
        if self.validation is None:
            return None
        scores = pooled(self.validation_parts, self.adapter, self.scoring)
        return judge(self.validation, scores.view(len(self.validation.items), -1), self.scale)


class Passes:
    """A U-Net pass with gradients per step, for everything that changes the pass itself.

    Images are encoded once. A step takes as many items as give about `batch_pairs` pairs; of a long
    list of candidates it takes the right one and `negatives` drawn others. All pairs of a step
    share one time step and one noise.
    """

    def __init__(
        self,
        model: Any,
        adapter: Adapter,
        items: Any,
        validation: Any | None,
        scoring: Scoring,
        *,
        seed: int,
        batch_pairs: int,
        negatives: int | None,
        drawing: bool,
        progress: bool,
    ):
        self.model, self.adapter, self.items, self.validation = model, adapter, items, validation
        self.scoring, self.seed, self.drawing, self.progress = scoring, seed, drawing, progress
        self.pairs = item_pairs(items)  # (items, images * texts, 2)
        self.correct = torch.tensor([item.correct for item in items.items])
        columns = self.pairs.shape[1]
        narrow = 1 in items.shape and negatives is not None and negatives + 1 < columns
        self.columns = negatives + 1 if narrow else columns
        self.count = max(1, min(len(self.pairs), batch_pairs // self.columns))
        self.numbers, self.waiting, self.grid = seeded(seed), [], scoring.grid(model)
        with torch.no_grad():
            self.latents = model.encode_image(items.images(model.resolution))
            texts = list(items.texts)
            self.contexts = None if adapter.changes_text else model.encode_text(texts)
        self.start = evaluate_items(model, items, adapter, scoring, progress=progress)
        self.scale = spread(decisions(self.start, items.shape, self.correct)[0])

    def _next_items(self) -> Tensor:
        """Return the next items of an endless shuffled row, (count,)."""
        while len(self.waiting) < self.count:
            self.waiting += torch.randperm(len(self.pairs), generator=self.numbers).tolist()
        chosen, self.waiting = self.waiting[: self.count], self.waiting[self.count :]
        return torch.tensor(chosen)

    def _candidates(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the candidates that count, (items, columns), and the place of the right one."""
        total, correct = self.pairs.shape[1], self.correct[chosen]
        if self.columns == total:
            return torch.arange(total).expand(len(chosen), -1), correct
        order = torch.rand(len(chosen), total, generator=self.numbers)
        order[torch.arange(len(chosen)), correct] = -1.0  # the right one is always among the kept
        kept = order.argsort(1)[:, : self.columns].sort(1).values
        return kept, (kept == correct[:, None]).int().argmax(1)

    def batch(self, step: int) -> Batch:
        """Return the scores of the next items under the (t, e) of this step, with gradients."""
        chosen = self._next_items()
        kept, correct = self._candidates(chosen)
        pairs = self.pairs[chosen[:, None], kept].flatten(0, 1)  # (items * columns, 2)
        used, text = pairs[:, 1].unique(return_inverse=True)
        t = self.grid[int(torch.randint(len(self.grid), (1,), generator=self.numbers))]
        e = shared_noise(self.latents.shape[1:], self.seed, step, TRAINING_NOISE)
        e = e.to(self.latents.device)
        contexts = None if self.contexts is None else self.contexts[used]
        scores, eps = pass_scores(
            self.model, self.adapter, self.latents, [self.items.texts[i] for i in used],
            torch.stack([pairs[:, 0], text], 1), t, e, self.scoring, contexts=contexts,
        )  # fmt: skip
        shape = self.items.shape if 1 not in self.items.shape else (1, self.columns)
        rows, positive = decisions(scores.view(len(chosen), -1), shape, correct.to(scores.device))
        drawing = self._drawing(eps, e, correct, len(chosen)) if self.drawing else 0.0
        return Batch(rows / self.scale, positive, drawing)

    def _drawing(self, eps: Tensor, e: Tensor, correct: Tensor, items: int) -> Tensor:
        """Return the diffusion loss of the right pairs: does the model still draw them?"""
        squares = (eps - e).square().flatten(1).mean(1).view(items, -1)  # (items, columns)
        if 1 in self.items.shape:
            return squares[torch.arange(items), correct].mean()
        both = torch.stack([correct, 3 - correct], 1)  # image 0 with its text, image 1 with its own
        return squares.gather(1, both.to(squares.device)).mean()

    def validate(self) -> tuple[float, float] | None:
        """Return (accuracy, InfoNCE loss) on the validation items, or None without any."""
        if self.validation is None:
            return None
        scores = evaluate_items(
            self.model, self.validation, self.adapter, self.scoring, progress=self.progress
        )
        return judge(self.validation, scores, self.scale)
