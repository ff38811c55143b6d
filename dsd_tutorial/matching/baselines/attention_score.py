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

from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.attention import choose_layers, cross_attention_layers
from dsd_tutorial.attention.token_masks import TOKEN_MASKS
from dsd_tutorial.matching.baselines.method import Method
from dsd_tutorial.matching.batches import BatchSize
from dsd_tutorial.matching.items import item_pairs, merit
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

    def score(self, parts: Components) -> Float[Tensor, " pairs"]:
        """Return the score of components that hold at least these layers, steps and mask."""
        chosen = parts.select(self.token_mask, self.layers, self.steps)
        return chosen.score(error_weight=self.error_weight)


class ZeroShotAttention(Method):
    """log-sum-exp of the logits over tokens, mean over the rest; fit chooses what is read.

    After `fit`, `choice` tells what is read, and only that is computed. `history` has one row per
    choice tried: (Choice, accuracy, margin).

    Args:
        steps: Time steps that are chosen from.
        noises: Noises per time step.
        token_masks: Token masks that are chosen from; unfitted, the first is read.
        batch_size: Rows per U-Net pass, or "auto".
    """

    name = "attention"
    needs = "validation"
    error_weights: tuple[float, ...] = (0.0,)  # that are chosen from; unfitted, the first is read

    def __init__(
        self,
        steps: int = 8,
        noises: int = 1,
        token_masks: Sequence[str] = tuple(TOKEN_MASKS),
        *,
        batch_size: BatchSize = "auto",
    ):
        unknown = sorted(set(token_masks) - set(TOKEN_MASKS))
        if unknown or not token_masks:
            known = ", ".join(TOKEN_MASKS)
            raise ValueError(f"token_masks {unknown or token_masks}: choose one or more of {known}")
        self.steps, self.noises, self.token_masks = steps, noises, tuple(token_masks)
        self.batch_size = batch_size
        self.choice: Choice | None = None
        self.history: list[tuple[Choice, float, float]] = []

    def default(self, model: Any) -> Choice:
        """Return what an unfitted method reads: the released code's layers, every step."""
        grid = time_grid(self.steps, model.scheduler.config.num_train_timesteps)
        layers = tuple(choose_layers(model, "last"))
        return Choice(self.token_masks[0], layers, grid, self.error_weights[0])

    def options(self, model: Any) -> list[Choice]:
        """Return every choice that is tried.

        Layers: all, the released code's three, each path, each one. Time steps: all, each third.
        """
        names, steps = tuple(cross_attention_layers(model)), self.default(model).steps
        paths = [tuple(n for n in names if n.startswith(path)) for path in ("down", "mid", "up")]
        last = tuple(choose_layers(model, "last"))
        ordered, third = tuple(sorted(steps)), max(1, round(len(steps) / 3))
        thirds = ordered[:third], ordered[third : len(steps) - third], ordered[-third:]
        layer_sets = dict.fromkeys([names, last, *paths, *((name,) for name in names)])
        step_sets = dict.fromkeys([steps, *thirds])
        subsets = product(self.token_masks, filter(None, layer_sets), filter(None, step_sets))
        return [Choice(*subset, weight) for subset in subsets for weight in self.error_weights]

    def _fit(self, model: Any, items: Any, validation: Task, seed: int, progress: bool) -> int:
        steps = self.default(model).steps
        parts = self._parts(model, validation, self.token_masks, None, steps, seed, progress)
        self.history = [
            (choice, *merit(choice.score(parts), validation)) for choice in self.options(model)
        ]
        self.choice = max(self.history, key=lambda row: row[1:])[0]
        return 0

    def _score(self, model: Any, items: Task, seed: int, progress: bool) -> Tensor:
        choice = self.choice or self.default(model)
        masks, layers, steps = (choice.token_mask,), choice.layers, choice.steps
        return choice.score(self._parts(model, items, masks, layers, steps, seed, progress))

    def _parts(
        self, model: Any, items: Task, masks: tuple[str, ...], layers: tuple[str, ...] | None,
        steps: tuple[int, ...], seed: int, progress: bool,
    ) -> Components:  # fmt: skip
        return components(
            model, items.images(model.resolution), items.texts, item_pairs(items).flatten(0, 1),
            steps=steps, noises=self.noises, layers=layers, token_mask=masks,
            errors=any(self.error_weights), seed=seed, batch_size=self.batch_size,
            progress=progress,
        )  # fmt: skip


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
        self.error_weights = ERROR_WEIGHTS if error_weight is None else (error_weight,)
