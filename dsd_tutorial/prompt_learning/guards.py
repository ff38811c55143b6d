"""What is watched while an adapter is fitted: the model's own weights, and memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dsd_tutorial.stable_diffusion.checksums import state_sha256

WATCHED = ("unet", "text_encoder")  # what adapters hook into


@contextmanager
def unchanged(model: Any) -> Iterator[None]:
    """Yield, and check at the end that the weights are what they were.

    Raises RuntimeError, naming the part, if digests of the tensors differ or a tensor came or went.
    """
    before = {name: state_sha256(getattr(model, name).state_dict()) for name in WATCHED}
    yield
    for name, digest in before.items():
        if state_sha256(getattr(model, name).state_dict()) != digest:
            raise RuntimeError(
                f"the weights of {name} changed while an adapter was fitted: only the adapter's "
                "own parameters may learn; load the model again"
            )


class Memory:
    """The most memory seen, in bytes: `peak`. Asked by `look`, best while a graph is alive."""

    def __init__(self, device: torch.device):
        import psutil

        self.device, self.process, self.peak = device, psutil.Process(), 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def look(self) -> None:
        """Update `peak`: the process on a CPU, the allocator on CUDA."""
        if self.device.type == "cuda":
            now = torch.cuda.max_memory_allocated(self.device)
        else:
            now = self.process.memory_info().rss
        self.peak = max(self.peak, now)
