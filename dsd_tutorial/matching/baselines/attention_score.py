"""The zero-shot attention score as a method, alone and with the error term.

Layers, time steps and token positions differ widely in what they know; which to read is chosen on
the validation items, from one computation of all parts (*ours*; He et al., arXiv 2305.10722, fix
the last layer of each path and all positions, which is what an unfitted method reads).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.attention.layers import choose_layers, cross_attention_layers
from dsd_tutorial.attention.token_masks import TOKEN_MASKS
from dsd_tutorial.matching.baselines.features import merit
from dsd_tutorial.matching.baselines.method import Method
from dsd_tutorial.matching.parts import Components
from dsd_tutorial.matching.scoring import components
from dsd_tutorial.shapes.tasks import Task
from dsd_tutorial.stable_diffusion.noising import time_grid

ERROR_WEIGHTS = (1.0, 0.3, 3.0, 0.1, 10.0)


@dataclass(frozen=True)
class Choice:
    """Which parts of the score are read, and the weight of the error term (beta)."""

    token_mask: str
    layers: tuple[str, ...]
    steps: tuple[int, ...]
    error_weight: float = 0.0

    def score(self, parts: Components) -> Tensor:
        """Return (pairs,) from components that hold at least these layers, steps and mask."""
        steps = [parts.steps.index(t) for t in self.steps]
        layers = [parts.layers.index(name) for name in self.layers]
        seen = parts.by_mask[self.token_mask].nanmean(-1)  # (pairs, steps, layers)
        attention = seen[:, steps][:, :, layers].mean((-1, -2))
        if self.error_weight == 0:
            return attention
        return attention + self.error_weight * parts.errors[:, steps].mean(-1)


class ZeroShotAttention(Method):
    """log-sum-exp of the logits over tokens, mean over the rest; fit chooses what is read.

    steps, noises  the grid that is chosen from; token_masks  likewise, the first being the default
    After `fit`, `choice` tells what is read, and only that is computed. `history` has one row per
    choice tried: (Choice, accuracy, margin).
    """

    name = "attention"
    needs = "validation"

    def __init__(
        self,
        steps: int = 8,
        noises: int = 1,
        token_masks: Sequence[str] = tuple(TOKEN_MASKS),
        *,
        batch_size: int = 32,
    ):
        unknown = sorted(set(token_masks) - set(TOKEN_MASKS))
        if unknown or not token_masks:
            known = ", ".join(TOKEN_MASKS)
            raise ValueError(f"token_masks {unknown or token_masks}: choose one or more of {known}")
        self.steps, self.noises, self.token_masks = steps, noises, tuple(token_masks)
        self.batch_size = batch_size
        self.choice: Choice | None = None
        self.history: list[tuple[Choice, float, float]] = []

    def weights(self) -> tuple[float, ...]:
        """Return the weights of the error term that are tried; the first is the default."""
        return (0.0,)

    def default(self, model: Any) -> Choice:
        """Return what an unfitted method reads: the released code's layers, every step."""
        grid = time_grid(self.steps, model.scheduler.config.num_train_timesteps)
        layers = tuple(choose_layers(model, "last"))
        return Choice(self.token_masks[0], layers, grid, self.weights()[0])

    def options(self, model: Any) -> list[Choice]:
        """Return every choice that is tried."""
        default = self.default(model)
        subsets = product(self.token_masks, _layer_sets(model), _step_sets(default.steps))
        return [Choice(*subset, weight) for subset in subsets for weight in self.weights()]

    def _fit(self, model: Any, items: Task, validation: Task, seed: int, progress: bool) -> int:
        parts = self._components(
            model, validation, self.token_masks, None, self.default(model).steps, seed, progress
        )
        self.history = [
            (choice, *merit(choice.score(parts), validation)) for choice in self.options(model)
        ]
        self.choice = max(self.history, key=lambda row: row[1:])[0]
        return 0

    def _score(self, model: Any, items: Task, seed: int, progress: bool) -> Tensor:
        choice = self.choice or self.default(model)
        parts = self._components(
            model, items, (choice.token_mask,), choice.layers, choice.steps, seed, progress
        )
        return choice.score(parts)

    def _components(
        self, model: Any, items: Task, masks: Sequence[str], layers: Any, steps: Any, seed: int,
        progress: bool,
    ) -> Components:  # fmt: skip
        pairs = torch.from_numpy(items.pairs()[0]), torch.from_numpy(items.pairs()[1])
        return components(
            model,
            items.images(model.resolution),
            items.texts,
            torch.stack(pairs, dim=1),
            steps=steps,
            noises=self.noises,
            layers=layers,
            token_mask=masks,
            errors=any(self.weights()),
            seed=seed,
            batch_size=self.batch_size,
            progress=progress,
        )


class AttentionPlusError(ZeroShotAttention):
    """Attention + beta (||e - eps(empty)|| - ||e - eps(text)||), both from the same passes.

    `error_weight` is beta: 1 in the released code, where it is on by default; None has it chosen
    on the validation items from `ERROR_WEIGHTS`. Costs one empty pass more per image and (t, e).
    """

    name = "attention_error"

    def __init__(self, *args: Any, error_weight: float | None = None, **settings: Any):
        super().__init__(*args, **settings)
        if error_weight is not None and not error_weight > 0:
            raise ValueError(f"error_weight={error_weight}: must be > 0, or None to have it chosen")
        self.error_weight = error_weight

    def weights(self) -> tuple[float, ...]:
        """Return the weights of the error term that are tried; the first is the default."""
        return ERROR_WEIGHTS if self.error_weight is None else (self.error_weight,)


def _layer_sets(model: Any) -> list[tuple[str, ...]]:
    """Return all layers, the released code's three, each path, each layer."""
    names = tuple(cross_attention_layers(model))
    paths = [tuple(n for n in names if n.startswith(path)) for path in ("down", "mid", "up")]
    sets = [names, tuple(choose_layers(model, "last")), *paths, *((name,) for name in names)]
    return [s for s in dict.fromkeys(sets) if s]


def _step_sets(steps: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return all time steps and each third of them."""
    third = max(1, round(len(steps) / 3))
    ordered = tuple(sorted(steps))
    sets = [steps, ordered[:third], ordered[third : len(steps) - third], ordered[-third:]]
    return [s for s in dict.fromkeys(sets) if s]
