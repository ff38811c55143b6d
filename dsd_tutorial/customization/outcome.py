"""What a result of customisation tells of itself: how tuning went, and what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from dsd_tutorial.customization.tuning import Tuning

if TYPE_CHECKING:
    import pandas as pd


class Outcome:
    """Reads `module` (what was learned) and `tuning` (how it went), which its subclasses hold."""

    module: nn.Module
    tuning: Tuning

    @property
    def history(self) -> pd.DataFrame:
        """Return one row per step: step, seconds, loss, its parts, checked (on fixed noises)."""
        return self.tuning.history

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
