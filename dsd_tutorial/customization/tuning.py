"""The loop of customisation: a step, a check on fixed noises, the best kept, Ctrl-C obeyed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dsd_tutorial.customization.denoising import Denoising, training_pass
from dsd_tutorial.matching.cost import Memory, measure
from dsd_tutorial.prompt_learning.adapters import unchanged
from dsd_tutorial.stable_diffusion import StableDiffusion

if TYPE_CHECKING:
    import pandas as pd

CHECKS = 10  # checks on fixed noises in a run, unless told otherwise


@dataclass(frozen=True)
class Plan:
    """How to tune; raises ValueError for settings out of range.

    Args:
        steps: of AdamW.
        rates: learning rate of each child of the module.
        name: of the progress bar.
        decay: the rates fall to zero in a straight line.
        seed: of images, time steps and noises.
        batch_size: noises in a step.
        time_steps: (first, end) from which they are drawn; None: `usual_time_steps`.
        at: steps that are checked and whose state is kept for later.
        check_every: so many steps the error on fixed noises; None: ten times in all.
        preview: called as preview(step, image), image (3, height, width).
        preview_every: so many steps.
        dtype: bfloat16 or float16 for the U-Net passes (autocast).
        gradient_checkpointing: slower, in less memory.
        progress: whether a bar is shown.
    """

    steps: int
    rates: Mapping[str, float]
    name: str = "tuning"
    decay: bool = False
    seed: int = 0
    batch_size: int = 8
    time_steps: tuple[int, int] | None = None
    at: Sequence[int] = ()
    check_every: int | None = None
    preview: Callable[[int, Tensor], Any] | None = None
    preview_every: int = 10
    dtype: torch.dtype | str | None = None
    gradient_checkpointing: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        every = {"check_every": self.check_every, "preview_every": self.preview_every}
        wrong = [f"{k}={v}" for k, v in self.rates.items() if not 0 <= v < math.inf]
        wrong += [f"{k}={v}" for k, v in every.items() if v is not None and v < 1]
        wrong += [f"steps={self.steps}"] * (self.steps < 0)
        wrong += [f"at={s}" for s in self.at if not 0 <= s <= self.steps]
        if wrong:
            raise ValueError(
                f"{', '.join(wrong)}: need steps >= 0, lr >= 0, check and preview every 1 or more "
                "steps, and `at` between 0 and steps"
            )

    def denoising(self, model: StableDiffusion, images: Tensor | Sequence[Any]) -> Denoising:
        """Return the errors on these images."""
        return Denoising(
            model, model.encode_image(images), batch_size=self.batch_size,
            time_steps=self.time_steps, seed=self.seed, dtype=self.dtype,
        )  # fmt: skip


@dataclass
class Tuning:
    """What came of it: one row of `rows` per step, and the module in the state of `best_step`.

    rows         step, seconds, loss and its parts; `checked` (error on fixed noises) where due
    snapshots    step -> state, for the steps of `Plan.at` that were reached
    stopped      "end" or "interrupted"
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    snapshots: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    best: float = math.inf
    best_step: int = 0
    stopped: str = "end"
    seconds: float = 0.0
    unet_passes: int = 0
    peak_memory: int = 0


class Outcome:
    """Reads `module` (what was learned) and `tuning` (how it went), which its subclasses hold."""

    module: nn.ModuleDict
    tuning: Tuning

    @property
    def history(self) -> pd.DataFrame:
        """Return one row per step: step, seconds, loss, its parts, checked (on fixed noises)."""
        import pandas as pd

        return pd.DataFrame(self.tuning.rows)

    @property
    def parameters(self) -> int:
        """Return how many numbers were learned."""
        return sum(p.numel() for p in self.module.parameters())

    @property
    def seconds(self) -> float:
        """Return the wall time of tuning."""
        return self.tuning.seconds

    @property
    def peak_memory(self) -> int:
        """Return bytes at the most: of the process (CPU) or of the allocator (CUDA)."""
        return self.tuning.peak_memory


def tune(
    model: StableDiffusion,
    module: nn.ModuleDict,
    plan: Plan,
    loss: Callable[[int], dict[str, Tensor]],
    check: Callable[[], Tensor],
    image: Callable[[], Tensor],
    active: Callable[[], AbstractContextManager] = nullcontext,
) -> Tuning:
    """Return the `Tuning` of `module`, which ends in the best state that `check` has seen.

    Args:
        model: no weight of which may change.
        module: what learns.
        plan: how.
        loss: of a step, scalars by name, whose sum is made small.
        check: the error on fixed noises, which decides what is best.
        image: what `plan.preview` is given.
        active: context in which all of it runs: what is added to the model is in use there.

    Raises:
        RuntimeError: the model's own weights changed, or the loss is not finite.
    """
    run = _Run(module, plan, loss, check, image, Memory(model.device))
    parts = ("unet", "text_encoder", "clip", "vae")
    with unchanged(model, parts), measure(model) as meter:
        with training_pass(model, plan.gradient_checkpointing), active():
            run.go()
    found = run.found
    found.seconds, found.unet_passes = meter.seconds, meter.unet_passes
    found.peak_memory = run.memory.peak
    return found


@dataclass
class _Run:
    module: nn.ModuleDict
    plan: Plan
    loss: Callable[[int], dict[str, Tensor]]
    check: Callable[[], Tensor]
    image: Callable[[], Tensor]
    memory: Memory
    found: Tuning = field(default_factory=Tuning)

    def __post_init__(self) -> None:
        self.every = self.plan.check_every or max(1, self.plan.steps // CHECKS)
        self.state, self.started = _copy(self.module), perf_counter()

    def go(self) -> None:
        from tqdm.auto import tqdm

        plan, found = self.plan, self.found
        groups = [
            {"params": list(part.parameters()), "lr": plan.rates[name]}
            for name, part in self.module.items()
        ]
        optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
        rates = [group["lr"] for group in groups]
        bar = tqdm(total=plan.steps, desc=plan.name, disable=not plan.progress)
        try:
            self._look(0, {})
            for step in range(1, plan.steps + 1):
                for group, rate in zip(optimiser.param_groups, rates, strict=True):
                    group["lr"] = rate * ((1 - (step - 1) / plan.steps) if plan.decay else 1)
                parts = self._step(optimiser, step)
                self._look(step, parts)
                bar.update()
                bar.set_postfix(error=f"{found.best:.4f}", best=found.best_step, refresh=False)
        except KeyboardInterrupt:
            found.stopped = "interrupted"
        finally:
            bar.close()
            self.module.load_state_dict(self.state)

    def _step(self, optimiser: torch.optim.Optimizer, step: int) -> dict[str, float]:
        with torch.enable_grad():
            parts = self.loss(step)
            total = torch.stack(list(parts.values())).sum()
            if not bool(torch.isfinite(total)):
                raise RuntimeError(
                    f"the loss is {float(total)} at step {step}: take smaller learning rates than "
                    f"{dict(self.plan.rates)}"
                )
            self.memory.look()
            optimiser.zero_grad(set_to_none=True)
            total.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        optimiser.step()
        return {"loss": float(total.detach()), **{k: float(v.detach()) for k, v in parts.items()}}

    @torch.no_grad()
    def _look(self, step: int, parts: dict[str, float]) -> None:
        """Check, keep, show: what is due after a step."""
        plan, found, checked = self.plan, self.found, math.nan
        if step in plan.at:
            found.snapshots[step] = _copy(self.module)
        if step % self.every == 0 or step == plan.steps or step in plan.at:
            checked = float(self.check())
            if checked < found.best:
                found.best, found.best_step, self.state = checked, step, _copy(self.module)
        seconds = perf_counter() - self.started
        found.rows.append({"step": step, "seconds": seconds, **parts, "checked": checked})
        if plan.preview is not None and (step % plan.preview_every == 0 or step == plan.steps):
            plan.preview(step, self.image())


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
