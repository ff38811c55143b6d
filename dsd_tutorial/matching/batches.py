"""How many rows go through the U-Net at once.

The more, the less each costs, up to some hundred small latents; what limits them is memory, and how
long one may wait for a batch. A batch that does not fit is halved, and nothing before it is lost.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, TypeVar

import torch

BatchSize = int | str  # a number, or "auto"
Result = TypeVar("Result")
WORK = 4e11  # parameters x latent pixels x rows of a first batch: 128 rows of the embedded model
MOST = {"cpu": 128}  # rows: more gain nothing (measured); elsewhere MOST_ELSEWHERE
MOST_ELSEWHERE = 1024
SHARE = 0.4  # of the free memory that a batch may take
QUICK, SLOW = 0.3, 10.0  # seconds: a batch below is doubled, one above halved


class Batches:
    """Cuts rows into batches: of a fixed size, or ("auto") of one that suits model and machine.

    On a CPU "auto" depends on the model and, where memory is short, on that: the same rows meet in
    one batch in every run. Elsewhere a batch that took under `QUICK` seconds is doubled while
    memory lasts.

    Args:
        model: A `StableDiffusion`.
        size: Rows, or "auto".
        pixels: Of the latents; None: as many as the model was trained on.

    Raises:
        ValueError: less than 1, or another word.
    """

    def __init__(self, model: Any, size: BatchSize = "auto", pixels: int | None = None):
        if size != "auto" and (not isinstance(size, int) or size < 1):
            raise ValueError(f"batch_size must be at least 1, or 'auto', not {size!r}")
        self.model, self.auto = model, size == "auto"
        self.pixels = math.prod(model.latent_shape[1:]) if pixels is None else pixels
        self.size = first_size(model, self.pixels) if isinstance(size, str) else size

    def run(self, rows: int, compute: Callable[[slice], Result]) -> Iterator[tuple[slice, Result]]:
        """Yield each batch as a slice of range(rows), and what `compute` returned for it.

        Raises:
            RuntimeError: memory does not even hold a single row.
        """
        start = 0
        while start < rows:
            part = slice(start, min(start + self.size, rows))
            began = perf_counter()
            try:
                found = compute(part)
            except RuntimeError as error:
                if not _out_of_memory(error) or part.stop - part.start == 1:
                    raise
                self.size = (part.stop - part.start) // 2
                self.auto = False
                _forget(self.model.device)
                continue
            yield part, found
            start = part.stop
            if self.auto and part.stop - part.start == self.size:
                self._adapt(perf_counter() - began)

    def _adapt(self, seconds: float) -> None:
        if seconds > SLOW:
            self.size = max(1, self.size // 2)
        elif seconds < QUICK and self.model.device.type != "cpu":
            self.size = min(2 * self.size, fitting(self.model, self.pixels))


def first_size(model: Any, pixels: int) -> int:
    """Return the rows of a first batch: a power of two by the U-Net's size and the free memory."""
    parameters = sum(p.numel() for p in model.unet.parameters())
    wanted = max(1, int(WORK / (parameters * pixels)))
    return min(2 ** (wanted.bit_length() - 1), fitting(model, pixels))


def fitting(model: Any, pixels: int) -> int:
    """Return how many rows fit into the free memory, a power of two, at most `MOST`."""
    most = MOST.get(model.device.type, MOST_ELSEWHERE)
    rows = int(SHARE * free_memory(model.device) / row_bytes(model, pixels))
    return min(most, 2 ** (max(1, rows).bit_length() - 1))


def row_bytes(model: Any, pixels: int) -> int:
    """Return about how much memory a row takes on its way: 80 fields of the first block's width."""
    numbers = 80 * model.unet.config.block_out_channels[0] * pixels
    return numbers * torch.finfo(model.dtype).bits // 8


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _forget(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def stopping(partial: bool) -> Iterator[None]:
    """With `partial`, let Ctrl-C end the block, and say so; without, let it through."""
    try:
        yield
    except KeyboardInterrupt:
        if not partial:
            raise
        # the line that called the function whose block this is; `no_grad` stands between
        warnings.warn("interrupted: what was not computed is NaN", stacklevel=5)
