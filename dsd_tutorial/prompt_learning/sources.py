"""Where the scores of a training step come from: U-Net passes with gradients, or a cache.

Both answer the same three questions for `fit`: how well does the adapter do on the few-shot set at
the start, what are the scores of the next batch, and how well does it do on validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsd_tutorial.matching import Components
from dsd_tutorial.matching.items import correct_of, decisions, item_pairs
from dsd_tutorial.prompt_learning.adapters import Adapter, Scoring
from dsd_tutorial.prompt_learning.objectives import judge, spread
from dsd_tutorial.prompt_learning.scoring import evaluate_items, item_components, pass_scores
from dsd_tutorial.prompt_learning.weights import HeadWeights
from dsd_tutorial.shapes.tasks import Task
from dsd_tutorial.stable_diffusion.noising import shared_noise

TRAINING_NOISE = 10_000  # training noises count from here, so that no evaluation shares one


@dataclass(frozen=True)
class Batch:
    """Scores in zero-shot spreads, the right ones, and a diffusion loss."""

    scores: Float[Tensor, "decisions candidates"]
    positive: Int[Tensor, " decisions"]
    drawing: Float[Tensor, ""] | float = 0.0


class Cached:
    """Components computed once, before and instead of all passes: for `HeadWeights`.

    Attributes:
        start: Zero-shot scores of the few-shot items, (items, pairs).
        scale: The zero-shot spread.
    """

    def __init__(
        self,
        model: Any,
        adapter: HeadWeights,
        items: Task,
        validation: Task | None,
        scoring: Scoring,
        parts: tuple[Components, Components | None] | None,
        progress: bool,
    ):
        self.adapter, self.items, self.validation = adapter, items, validation
        self.scoring = scoring

        def compute(task: Task) -> Components:
            return item_components(model, task, adapter, scoring, progress=progress)

        if parts is None:
            parts = compute(items), None if validation is None else compute(validation)
        self.parts, self.validation_parts = parts
        adapter.calibrate(self.parts, items, scoring)
        with torch.no_grad():
            self.start = self._scores(self.parts, items)
        self.scale = spread(decisions(self.start, items.shape, correct_of(items))[0])

    def _scores(self, parts: Components, items: Task) -> Float[Tensor, "items pairs"]:
        return self.adapter.pool(parts, self.scoring).view(len(items.items), -1)

    def batch(self, step: int) -> Batch:
        """Return all few-shot items at once; they cost next to nothing."""
        scores = self._scores(self.parts, self.items)
        rows, positive = decisions(scores, self.items.shape, correct_of(self.items))
        return Batch(rows / self.scale, positive)

    @torch.no_grad()
    def validate(self) -> tuple[float, float] | None:
        """Return (accuracy, InfoNCE loss) on the validation items, or None without any."""
        if self.validation is None or self.validation_parts is None:
            return None
        scores = self._scores(self.validation_parts, self.validation)
        return judge(self.validation, scores, self.scale)


class Passes:
    """A U-Net pass with gradients per step, for everything that changes the pass itself.

    Images are encoded once. A step takes as many items as give about `batch_pairs` pairs; of a long
    list of candidates it takes the right one and `negatives` drawn others. All pairs of a step
    share one time step and one noise.

    Attributes:
        start: Zero-shot scores of the few-shot items, (items, pairs).
        scale: The zero-shot spread.
    """

    def __init__(
        self,
        model: Any,
        adapter: Adapter,
        items: Task,
        validation: Task | None,
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
        self.pairs, self.correct = item_pairs(items), correct_of(items)
        self.columns = self.pairs.shape[1]
        if 1 in items.shape and negatives is not None:
            self.columns = min(self.columns, negatives + 1)
        self.count = max(1, min(len(self.pairs), batch_pairs // self.columns))
        self.numbers = torch.Generator().manual_seed(seed)
        self.waiting, self.grid = [], scoring.grid(model)
        with torch.no_grad():
            self.latents = model.encode_image(items.images(model.resolution))
            texts = list(items.texts)
            self.prompts = None if adapter.changes_text else model.encode_text(texts)
        self.start = evaluate_items(model, items, adapter, scoring, progress=progress)
        self.scale = spread(decisions(self.start, items.shape, self.correct)[0])

    def _next_items(self) -> Int[Tensor, " items"]:
        """Return the next items of an endless shuffled row."""
        while len(self.waiting) < self.count:
            self.waiting += torch.randperm(len(self.pairs), generator=self.numbers).tolist()
        chosen, self.waiting = self.waiting[: self.count], self.waiting[self.count :]
        return torch.tensor(chosen)

    def _candidates(
        self, chosen: Int[Tensor, " items"]
    ) -> tuple[Int[Tensor, "items candidates"], Int[Tensor, " items"]]:
        """Return the candidates that count, and the place of the right one."""
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
        prompts = None if self.prompts is None else self.prompts[used]
        scores, eps = pass_scores(
            self.model, self.adapter, self.latents, [self.items.texts[i] for i in used],
            torch.stack([pairs[:, 0], text], 1), t, e, self.scoring, prompts=prompts,
        )  # fmt: skip
        shape = self.items.shape if 1 not in self.items.shape else (1, self.columns)
        rows, positive = decisions(scores.view(len(chosen), -1), shape, correct)
        drawing = self._drawing(eps, e, correct) if self.drawing else 0.0
        return Batch(rows / self.scale, positive, drawing)

    def _drawing(
        self,
        eps: Float[Tensor, "pairs channels height width"],
        e: Float[Tensor, "1 channels height width"],
        correct: Int[Tensor, " items"],
    ) -> Float[Tensor, ""]:
        """Return the diffusion loss of the right pairs: does the model still draw them?"""
        squares = (eps - e).square().flatten(1).mean(1).view(len(correct), -1)  # (items, columns)
        if 1 in self.items.shape:
            return squares[torch.arange(len(correct)), correct].mean()
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
