"""What a method's answer cost, so that comparisons can be made at equal cost (*ours*).

with measure(model) as meter:
    scores = score(model, images, texts)
meter.cost(labels=16)                                    # Cost(unet_passes=..., seconds=...)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import torch


@dataclass(frozen=True)
class Cost:
    """Four counts of what an answer took, fitting included; two costs add up.

    Attributes:
        unet_passes: Items that went through the U-Net: a batch of 32 counts 32, also when fitting.
        parameters: Learned numbers.
        labels: Labelled items that were looked at, for fitting and for choosing.
        seconds: Wall time.
    """

    unet_passes: int = 0
    parameters: int = 0
    labels: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        wrong = {name: value for name, value in asdict(self).items() if value < 0}
        if wrong:
            raise ValueError(f"a cost counts from 0 up, not {wrong}")

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{name: value + getattr(other, name) for name, value in asdict(self).items()})

    def as_dict(self) -> dict[str, int | float]:
        """Return the columns of a results table."""
        return asdict(self)


@dataclass
class Meter:
    """What `measure` has counted so far; `seconds` is filled in when the block ends."""

    unet_passes: int = 0
    seconds: float = 0.0

    def cost(self, parameters: int = 0, labels: int = 0) -> Cost:
        """Return the `Cost` with what cannot be counted from outside."""
        return Cost(self.unet_passes, parameters, labels, self.seconds)


@contextmanager
def measure(model: Any) -> Iterator[Meter]:
    """Yield a `Meter` that counts every item `model.unet` sees inside the block, and its seconds.

    Blocks nest: an outer one counts what an inner one does. The hook is taken off afterwards.
    """
    meter, started = Meter(), perf_counter()

    def count(unet: Any, args: tuple, kwargs: dict) -> None:
        meter.unet_passes += len(args[0] if args else kwargs["sample"])

    handle = model.unet.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield meter
    finally:
        handle.remove()
        meter.seconds = perf_counter() - started


class Memory:
    """The most memory seen, in bytes: `peak`. `look` is best called while a graph is alive."""

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
