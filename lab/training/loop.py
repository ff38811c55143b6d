"""The training loop that all three trainers share: schedule, precision, EMA, checkpoints, progress.

A trainer says what one step's loss is; the loop does the rest, on CPU or CUDA, on one device or
several (through accelerate), and resumes where it stopped. Ctrl-C writes a checkpoint first.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn
from tqdm.auto import tqdm

from dsd_tutorial.saving import replacing
from dsd_tutorial.stable_diffusion.loading import pick_device
from dsd_tutorial.stable_diffusion.precision import pick_dtype
from lab.checked import Checked
from lab.training.optimizer import OPTIMIZERS, make_optimizer

SETTLED = 50  # steps; before that a loss may rise
WORST = 1.5  # times the loss before training: a model above it has been ruined, not trained


class TrainingDiverged(RuntimeError):
    """The loss or a weight is no longer a number, or the model got worse; nothing was replaced."""


class Options(Checked):
    """What every trainer accepts.

    `minutes` is an optional limit in wall time: the learning rate then decays with the larger of
    the shares of steps and of minutes used, so that a run that is cut short still ends well.
    """

    output: Path
    steps: PositiveInt
    batch: PositiveInt
    lr: FiniteFloat = Field(gt=0, le=10)
    seed: int = Field(0, ge=0, lt=2**32)
    device: str = "auto"
    resume: bool = True
    minutes: FiniteFloat | None = Field(None, gt=0)
    init: Path | None = None
    pool: PositiveInt = 60_000
    checkpoint_every: PositiveInt = 500
    warmup: NonNegativeInt = 200
    weight_decay: FiniteFloat = Field(0.01, ge=0)
    ema: FiniteFloat | None = Field(None, ge=0, lt=1)
    optimizer: Literal[OPTIMIZERS] = "adamw"
    compile: bool = False
    work: Path = Path("build/training")

    @model_validator(mode="after")
    def _pool_holds_a_batch(self) -> Options:
        if self.pool < self.batch:
            raise ValueError(f"pool={self.pool}: it must hold at least one batch, {self.batch}")
        return self


class Ema:
    """An exponential moving average of a model's parameters, with a warm-up of the decay."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.model = decay, copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        ours = [p.data for p in self.model.parameters()]
        theirs = [p.detach() for p in model.parameters()]
        torch._foreach_lerp_(ours, theirs, 1 - decay)
        for mine, other in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(other)


def not_finite(tensors: dict[str, Tensor]) -> str | None:
    """The name of the first tensor with a number that is not finite; None if all are."""
    bad = (k for k, v in tensors.items() if v.is_floating_point() and not v.isfinite().all())
    return next(bad, None)


def in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 pays: a CPU that emulates it takes tens of times as long as in float32."""
    return pick_dtype("auto", device) == torch.bfloat16


def make_accelerator(device: str):
    """An `Accelerator` for 'auto', 'cpu' or 'cuda'; ValueError where CUDA is missing."""
    from accelerate import Accelerator

    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {device!r}; choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device is visible; use --device cpu, or check the driver")
    precision = "bf16" if in_bfloat16(pick_device(device)) else "no"
    return Accelerator(mixed_precision=precision, cpu=device == "cpu")


class Loop:
    """Runs `step_loss(step) -> (loss, numbers to show)` for `options.steps` steps.

    `model` must already be on its device. Attributes: `generator` (CPU, seeded; its state is in
    the checkpoint), `ema` (or None), `history` (list of dicts, written to <work>/<name>.jsonl).
    """

    def __init__(self, name: str, model: nn.Module, options: Options, accelerator):
        self.name, self.options, self.accelerator = name, options, accelerator
        self.raw = model
        self.ema = Ema(model, options.ema) if options.ema else None
        self.model = accelerator.prepare(model)
        self.optimizer = make_optimizer(options.optimizer, model, options.lr, options.weight_decay)
        seed = options.seed * 1000 + accelerator.process_index
        self.generator = torch.Generator().manual_seed(seed)
        self.step, self.elapsed, self.history = 0, 0.0, []
        options.work.mkdir(parents=True, exist_ok=True)
        if options.resume and self._file.exists():
            self._load()

    @property
    def _file(self) -> Path:
        return self.options.work / f"{self.name}.pt"

    def _load(self) -> None:
        state = torch.load(self._file, map_location="cpu", weights_only=True)
        if bad := not_finite(state["model"]):
            raise TrainingDiverged(
                f"the checkpoint {self._file} holds numbers that are not finite ({bad}): "
                "delete it, or start anew with --no-resume"
            )
        self.raw.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.model.load_state_dict(state["ema"])
        self.step, self.elapsed = state["step"], state["elapsed"]
        self.generator.set_state(state["generator"])
        tqdm.write(f"{self.name}: resumed at step {self.step} from {self._file}")

    def _require_sound(self, loss: float) -> None:
        """Raise TrainingDiverged, before anything is written, if a number is not finite."""
        bad = not_finite(self.raw.state_dict())
        if self.ema and not bad:
            bad = not_finite(self.ema.model.state_dict())
        if bad is None and math.isfinite(loss):
            return
        kept = "holds the last good ones" if self._file.exists() else "was not written either"
        what = f"{bad} is not finite" if bad else "all weights are finite"
        raise TrainingDiverged(
            f"{self.name}: at step {self.step} the loss is {loss} and {what}. No weights were "
            f"written; {self._file} {kept}. Take a lower --lr."
        )

    def save(self, loss: float = 0.0) -> None:
        """Writes the checkpoint whole or not at all; raises TrainingDiverged, as above."""
        self._require_sound(loss)
        if not self.accelerator.is_main_process:
            return
        state = {
            "model": self.raw.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.model.state_dict() if self.ema else None,
            "step": self.step,
            "elapsed": self.elapsed,
            "generator": self.generator.get_state(),
        }
        with replacing(self._file) as partial:
            torch.save(state, partial)

    def progress(self) -> float:
        """Share of the run that is done, in [0, 1]: by steps or by minutes, whichever is more."""
        share = self.step / self.options.steps
        if self.options.minutes:
            share = max(share, self.elapsed / 60 / self.options.minutes)
        return min(1.0, share)

    def _agreed(self, elapsed: float) -> float:
        """The first process's clock: all must stop after the same step, or the others wait."""
        if self.accelerator.num_processes == 1:
            return elapsed
        from accelerate.utils import broadcast

        clock = torch.tensor([elapsed], device=self.accelerator.device)
        return float(broadcast(clock))

    def _rate(self) -> float:
        warm = min(1.0, (self.step + 1) / max(1, self.options.warmup))
        fall = 0.5 * (1 + math.cos(math.pi * self.progress()))
        return self.options.lr * warm * (0.02 + 0.98 * fall)

    def run(self, step_loss: Callable[[int], tuple[Tensor, dict[str, float]]]) -> nn.Module:
        """The trained model: the EMA weights where there are any.

        Raises TrainingDiverged where the loss or a weight stops being a number, or where the
        trained model is worse than what was begun with (anew, its first steps may be): then the
        caller writes nothing.
        """
        begun_with = self._measure(step_loss, self.raw)
        bar = tqdm(
            total=self.options.steps, initial=self.step, desc=self.name, mininterval=5,
            disable=not self.accelerator.is_main_process,
        )  # fmt: skip
        begun, before = time.monotonic(), self.elapsed
        loss = torch.tensor(begun_with)
        try:
            while self.progress() < 1.0:
                shown = self._one(step_loss)
                loss = shown["loss"]
                self.elapsed = self._agreed(before + time.monotonic() - begun)
                bar.update()
                if self.step % 50 == 0:
                    self._log(bar, shown)
                    self._require_sound(float(loss))
                if self.step % self.options.checkpoint_every == 0:
                    self.save(float(loss))
        except TrainingDiverged:
            raise
        except BaseException:
            self.save(float(loss))
            bar.write(f"{self.name}: stopped at step {self.step}; run again to continue")
            raise
        finally:
            bar.close()
        self.save(float(loss))
        trained = self.ema.model if self.ema else self.raw
        ended_with = self._measure(step_loss, trained)
        judged = self.options.init or self.step >= max(self.options.warmup, SETTLED)
        if judged and not ended_with <= WORST * begun_with:
            raise TrainingDiverged(
                f"{self.name}: after {self.step} steps the loss is {ended_with:.4g}, and it was "
                f"{begun_with:.4g} at the start of this run; no weights were written, "
                f"{self._file} holds what was trained. Take a lower --lr, or more steps."
            )
        return trained

    @torch.no_grad()
    def _measure(self, step_loss: Callable, model: nn.Module, batches: int = 4) -> float:
        """The mean loss of `model` on a few batches that are the same at every call.

        The loss reads our own model: for a moment that one gets the weights of `model`.
        """
        own = {name: value.clone() for name, value in self.raw.state_dict().items()}
        generator, self.generator = self.generator, torch.Generator().manual_seed(12345)
        try:
            self.raw.load_state_dict(model.state_dict())
            with torch.random.fork_rng(devices=[]), self.accelerator.autocast():
                torch.manual_seed(12345)
                losses = [float(step_loss(self.step)[0]) for _ in range(batches)]
        finally:
            self.raw.load_state_dict(own)
            self.generator = generator
        return sum(losses) / batches

    def _one(self, step_loss) -> dict[str, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        with self.accelerator.autocast():
            loss, shown = step_loss(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        if self.ema:
            self.ema.update(self.raw, self.step)
        return {"loss": loss.detach(), **shown}

    def _log(self, bar: tqdm, shown: dict) -> None:
        numbers = {k: round(float(v), 4) for k, v in shown.items()}
        bar.set_postfix(numbers)
        if self.accelerator.is_main_process:
            row = {"step": self.step, "minutes": round(self.elapsed / 60, 2), **numbers}
            self.history.append(row)
            with open(self.options.work / f"{self.name}.jsonl", "a") as log:
                log.write(json.dumps(row) + "\n")
