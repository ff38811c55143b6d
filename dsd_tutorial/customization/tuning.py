"""The loop of customisation: a step, a look at fixed noises, the best kept, Ctrl-C obeyed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from dsd_tutorial.matching.cost import Memory, measure
from dsd_tutorial.prompt_learning.adapters import unchanged
from dsd_tutorial.stable_diffusion.checksums import state_sha256

Preview = Callable[[int, Tensor], None]  # step, picture (3, height, width)
CHECKS = 10  # looks at fixed noises in a run, unless told otherwise


@dataclass(frozen=True)
class Plan:
    """How to tune.

    steps, rates (learning rate of each child of the module), `decay` (rates fall to zero in a
    straight line), `every` so many steps a check (None: ten in all), `at` steps that are checked
    and whose state is kept for later, preview every so many steps, progress bar with `name`.
    """

    steps: int
    rates: Mapping[str, float]
    decay: bool = False
    every: int | None = None
    at: Sequence[int] = ()
    preview_every: int = 10
    progress: bool = True
    name: str = "tuning"

    def __post_init__(self) -> None:
        wrong = [f"{k}={v}" for k, v in self.rates.items() if not 0 <= v < math.inf]
        wrong += [f"{k}={v}" for k, v in (("every", self.every),) if v is not None and v < 1]
        wrong += [f"preview_every={self.preview_every}"] * (self.preview_every < 1)
        wrong += [f"steps={self.steps}"] * (self.steps < 0)
        wrong += [f"at={s}" for s in self.at if not 0 <= s <= self.steps]
        if wrong:
            raise ValueError(
                f"{', '.join(wrong)}: need steps >= 0, lr >= 0, check and preview every 1 or more "
                "steps, and `at` between 0 and steps"
            )


@dataclass
class Tuning:
    """What came of it: one row of `rows` per step, and the module in the state of `best_step`.

    rows         step, seconds, loss and its parts; `checked` (error on fixed noises) where asked
    snapshots    step -> state, for the steps of `Plan.at` that were reached
    stopped      "end" or "interrupted"
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    snapshots: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    best: float = math.inf
    best_step: int = 0
    stopped: str = "end"
    seconds: float = 0.0
    unet_passes: int = 0
    peak_memory: int = 0

    @property
    def history(self) -> Any:
        """Return `rows` as a data frame."""
        import pandas as pd

        return pd.DataFrame(self.rows)


def tune(
    model: Any,
    module: nn.Module,
    plan: Plan,
    loss: Callable[[int], dict[str, Tensor]],
    check: Callable[[], Tensor],
    active: Callable[[], Any] = nullcontext,
    picture: Callable[[], Tensor] | None = None,
    preview: Preview | None = None,
) -> Tuning:
    """Return the `Tuning` of `module`, which ends in the best state that `check` has seen.

    loss(step)   scalars by name; their sum is made small
    check()      error on fixed noises, which decides what is best
    active()     context in which all of it runs: what is added to the model is at work there
    picture()    what `preview(step, picture)` is given, every so many steps

    Raises RuntimeError where the model's own weights changed, or the loss is no number.
    """
    run = _Run(model, module, plan, loss, check, picture, preview)
    with frozen(model), measure(model) as meter, active():
        run.go()
    found = run.found
    found.seconds, found.unet_passes = meter.seconds, meter.unet_passes
    found.peak_memory = run.memory.peak
    return found


class _Run:
    def __init__(
        self,
        model: Any,
        module: nn.Module,
        plan: Plan,
        loss: Callable[[int], dict[str, Tensor]],
        check: Callable[[], Tensor],
        picture: Callable[[], Tensor] | None,
        preview: Preview | None,
    ):
        self.module, self.plan, self.loss, self.check = module, plan, loss, check
        self.picture, self.preview = picture, preview
        self.memory, self.found = Memory(model.device), Tuning()
        self.every = plan.every or max(1, plan.steps // CHECKS)
        self.state, self.started = _copy(module), perf_counter()

    def go(self) -> None:
        from tqdm.auto import tqdm

        plan, found = self.plan, self.found
        groups = [
            {"params": list(part.parameters()), "lr": plan.rates[name]}
            for name, part in self.module.named_children()
        ]
        optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
        first = [group["lr"] for group in groups]
        bar = tqdm(total=plan.steps, desc=plan.name, disable=not plan.progress)
        try:
            self._look(0, {})
            for step in range(1, plan.steps + 1):
                for group, rate in zip(optimiser.param_groups, first, strict=True):
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

    def _look(self, step: int, parts: dict[str, float]) -> None:
        """Check, keep, show: what is due after a step."""
        plan, found, checked = self.plan, self.found, math.nan
        if step in plan.at:
            found.snapshots[step] = _copy(self.module)
        if step % self.every == 0 or step == plan.steps or step in plan.at:
            with torch.no_grad():
                checked = float(self.check())
            if checked < found.best:
                found.best, found.best_step, self.state = checked, step, _copy(self.module)
        seconds = perf_counter() - self.started
        found.rows.append({"step": step, "seconds": seconds, **parts, "checked": checked})
        due = step % plan.preview_every == 0 or step == plan.steps
        if self.preview is not None and self.picture is not None and due:
            with torch.no_grad():
                self.preview(step, self.picture())


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Yield, and check at the end that no weight of any part of the model has changed.

    Raises RuntimeError, naming the part.
    """
    others = {name: getattr(model, name) for name in ("clip", "vae")}
    before = {n: state_sha256(p.state_dict()) for n, p in others.items() if p is not None}
    with unchanged(model):  # U-Net and text encoder
        yield
    for name, digest in before.items():
        if state_sha256(others[name].state_dict()) != digest:
            raise RuntimeError(
                f"the weights of {name} changed during customisation: only what is added to the "
                "model may learn; load the model again"
            )
