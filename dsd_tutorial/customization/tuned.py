"""What every result of tuning on a reference has in common: how it prompts, draws and is kept."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dsd_tutorial.customization import files
from dsd_tutorial.customization.outcome import Outcome
from dsd_tutorial.customization.sequences import ALPHA
from dsd_tutorial.customization.tuning import Tuning


@dataclass
class Tuned(Outcome, ABC):
    """Learned numbers (`module`), what made them (`settings`), and how it went (`tuning`)."""

    module: nn.ModuleDict
    settings: dict[str, Any]
    tuning: Tuning = field(repr=False, default_factory=Tuning)

    kind = "tuned"

    @abstractmethod
    def prompt(self, model: Any, text: str | None = None) -> Tensor:
        """Return the prompt (1, L, d) of the reference; with `text`, edited by it."""

    @abstractmethod
    def edit_prompt(
        self, model: Any, text: str, alpha: float = ALPHA, *, gone: str | None = None
    ) -> Tensor:
        """Return the prompt (1, L, d) of the reference changed as `text` says.

        `gone` says what is to go, as `variation.edit_prompt` takes it; None is the paper's sum.
        """

    def applied(self, model: Any) -> AbstractContextManager:
        """Return a context in which `model` draws with what was added to it, if anything was."""
        return nullcontext()

    def draw(self, model: Any, n: int = 4, text: str | None = None, **sampling: Any) -> Tensor:
        """Return `n` pictures (n, 3, height, width); `sampling` as `model.sample` takes it."""
        with self.applied(model):
            return model.sample(embeddings=self.prompt(model, text), n=n, **sampling)

    def at(self, step: int) -> Tuned:
        """Return the state that was kept at `step`. Raises ValueError where none was."""
        if step not in self.tuning.snapshots:
            raise ValueError(
                f"no state was kept at step {step}, only at {sorted(self.tuning.snapshots)}: name "
                "it in at=(...) when tuning"
            )
        module = copy.deepcopy(self.module)
        module.load_state_dict(self.tuning.snapshots[step])
        return replace(self, module=module)

    def save(self, model: Any, folder: str | Path) -> Path:
        """Return `folder` after writing custom.safetensors and custom.json to it."""
        about = {"settings": self.settings, "tuning": files.record(self.tuning)}
        return files.write(folder, self.kind, self.module.state_dict(), about, model)
