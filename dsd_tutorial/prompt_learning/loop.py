"""The training loop: a step, a look at validation, the best state kept, Ctrl-C obeyed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.matching.cost import Memory, Meter
from dsd_tutorial.prompt_learning.adapters import Adapter
from dsd_tutorial.prompt_learning.objectives import Objective, right


@dataclass
class Loop:
    """How to train, and what came of it so far.

    Attributes:
        adapter: Is trained in place.
        source: Of batches and validation figures: `Cached`, `Passes`, or what has their methods.
        objective: (scores, positive) -> scalar.
        steps: How many.
        every: Steps from one look at validation to the next.
        lr: Learning rate.
        diffusion_weight: Of the diffusion loss of right pairs.
        meter: Counts U-Net passes.
        memory: Is looked at while the graph is alive.
        rows: Of the history.
        best: (accuracy, -loss) on validation; without validation the step.
        best_step: The step of `best`.
        state: The parameters at `best_step`.
        stopped: "end" or "interrupted".
    """

    adapter: Adapter
    source: Any
    objective: Objective
    steps: int
    every: int
    lr: float
    diffusion_weight: float
    meter: Meter
    memory: Memory
    rows: list[dict[str, float]] = field(default_factory=list)
    best: tuple[float, float] = (-math.inf, -math.inf)
    best_step: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)
    stopped: str = "end"

    def run(self, start: float, progress: bool) -> None:
        """Train from the zero-shot accuracy `start`; the adapter ends in its best state."""
        from tqdm.auto import tqdm

        self._note(0, math.nan, start)
        optimiser, share = self.adapter.optimiser(self.lr), None
        bar = tqdm(total=self.steps, desc=f"fitting {self.adapter.kind}", disable=not progress)
        try:
            for step in range(1, self.steps + 1):
                loss, won = self._step(optimiser, step)
                share = won if share is None else 0.9 * share + 0.1 * won
                self._note(step, loss, share)
                bar.update()
                best = f"{self.best[0]:.2f}"
                bar.set_postfix(accuracy=f"{share:.2f}", best=best, refresh=False)
        except KeyboardInterrupt:
            self.stopped = "interrupted"
        finally:
            bar.close()
            self.adapter.load_state_dict(self.state)

    def _step(self, optimiser: torch.optim.Optimizer, step: int) -> tuple[float, float]:
        """Return the loss and the share of right decisions of one step."""
        with torch.enable_grad():
            batch = self.source.batch(step)
            loss = self.objective(batch.scores, batch.positive)
            total = loss + self.diffusion_weight * batch.drawing
        if not bool(torch.isfinite(total)):
            raise RuntimeError(
                f"the loss is {float(total)} at step {step}: take a smaller lr than {self.lr}"
            )
        self.memory.look()
        optimiser.zero_grad(set_to_none=True)
        if total.requires_grad:
            total.backward()
            torch.nn.utils.clip_grad_norm_(self.adapter.learned(), 1.0)
            optimiser.step()
            self.adapter.project()
        return float(loss.detach()), float(right(batch.scores, batch.positive).float().mean())

    def _note(self, step: int, loss: float, share: float) -> None:
        """Add a row, now and then with validation; keep the state if it is the best, or later."""
        checked = None
        if step % self.every == 0 or step == self.steps:
            checked = self.source.validate()
            key = (float(step), 0.0) if checked is None else (checked[0], -checked[1])
            if key > self.best:
                self.best, self.best_step = key, step
                self.state = {k: v.detach().clone() for k, v in self.adapter.state_dict().items()}
        accuracy, validation_loss = checked or (math.nan, math.nan)
        self.rows.append(
            {
                "step": step, "loss": loss, "accuracy": share, "validation_accuracy": accuracy,
                "validation_loss": validation_loss, "unet_passes": self.meter.unet_passes,
            }
        )  # fmt: skip
