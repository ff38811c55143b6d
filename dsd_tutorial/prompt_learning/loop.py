"""The training loop: a step, a look at validation, the best state kept, Ctrl-C obeyed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.matching.cost import Meter
from dsd_tutorial.prompt_learning.adapters import Adapter
from dsd_tutorial.prompt_learning.guards import Memory
from dsd_tutorial.prompt_learning.objectives import right


@dataclass
class Loop:
    """How to train, and what came of it so far.

    Settings: the source of batches, the objective (scores, positive) -> scalar, steps, `every` how
    often validation is asked, `patience` checks without gain (None: no end but the last step).
    Results: `rows` of the history, the `best` key and step, `stopped`.
    """

    adapter: Adapter
    source: Any
    objective: Any
    steps: int
    every: int
    patience: int | None
    lr: float
    weight_decay: float
    diffusion_weight: float
    meter: Meter
    memory: Memory
    rows: list[dict[str, float]] = field(default_factory=list)
    best: tuple[float, float] = (-math.inf, -math.inf)
    best_step: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)
    running: float | None = None
    stopped: str = "end"

    def run(self, start: float, progress: bool) -> None:
        """Train from the zero-shot accuracy `start`; the adapter ends in its best state."""
        from tqdm.auto import tqdm

        self._check(0, math.nan, start)
        optimiser = self.adapter.optimiser(self.lr, self.weight_decay)
        bar = tqdm(total=self.steps, desc=f"fitting {self.adapter.kind}", disable=not progress)
        try:
            for step in range(1, self.steps + 1):
                loss, won = self._step(optimiser, step)
                share = won if self.running is None else 0.9 * self.running + 0.1 * won
                self.running = share
                if step % self.every == 0 or step == self.steps:
                    self._check(step, loss, share)
                else:
                    self._note(step, loss, share, None)
                bar.update()
                bar.set_postfix(accuracy=f"{share:.2f}", **self._shown(), refresh=False)
                if self.patience is not None and self._idle() >= self.patience:
                    self.stopped = "patience"
                    break
        except KeyboardInterrupt:
            self.stopped = "interrupted"
        finally:
            bar.close()
            if self.state:
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

    def _check(self, step: int, loss: float, share: float) -> None:
        """Ask validation and keep the state if it is the best; without validation, the last."""
        checked = self.source.validate()
        key = (float(step), 0.0) if checked is None else (checked[0], -checked[1])
        if key > self.best:
            self.best, self.best_step = key, step
            self.state = {k: v.detach().clone() for k, v in self.adapter.state_dict().items()}
        self._note(step, loss, share, checked)

    def _note(
        self, step: int, loss: float, share: float, checked: tuple[float, float] | None
    ) -> None:
        accuracy, validation_loss = checked or (math.nan, math.nan)
        self.rows.append(
            {
                "step": step, "loss": loss, "accuracy": share, "validation_accuracy": accuracy,
                "validation_loss": validation_loss, "unet_passes": self.meter.unet_passes,
            }
        )  # fmt: skip

    def _idle(self) -> int:
        """Return how many checks have passed since the best one."""
        later = [r for r in self.rows if r["step"] > self.best_step]
        return sum(not math.isnan(r["validation_accuracy"]) for r in later)

    def _shown(self) -> dict[str, str]:
        return {} if math.isinf(self.best[0]) else {"best": f"{self.best[0]:.2f}"}
