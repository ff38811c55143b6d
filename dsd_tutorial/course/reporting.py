"""What every notebook says of its numbers: how far apart, told apart or not, a table, the costs.

spent = Spent(sd)                                # right after the model was loaded
assert apart(mine, package) <= tolerance(sd)
print_table({"CLIP": {"ComVG": interval, "VQA": 0.84}})
spent.report(accuracy={"CLIP": interval})        # in the last cell, with what is recorded
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

from dsd_tutorial.course.recording import record, record_place


def apart(a: Any, b: Any) -> float:
    """Return the largest difference of two tensors, relative to the largest value of `b`."""
    a, b = (x.detach().double().cpu() for x in (a, b))
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))


def tolerance(model: Any) -> float:
    """Return how far `apart` two ways to the same tensor may lie by rounding alone."""
    import torch

    if model.dtype == torch.bfloat16:  # eight bits
        return 4e-2
    exact = model.device.type == "cpu" and model.dtype == torch.float32
    return 1e-4 if exact else 2e-3


def verdict(interval: Any, reference: float = 0.0) -> str:
    """Return what a 95 % interval allows us to say of a value: above, below, or not told apart."""
    if interval.low > reference:
        return "above"
    return "below" if interval.high < reference else "not told apart from"


def print_table(rows: Mapping[str, Mapping[str, Any]] | Any) -> None:
    """Print a table, {row: {column: value}} or a DataFrame; absent values stay empty.

    Values are text, whole numbers, numbers, or intervals, which show their ends.
    """
    import pandas as pd

    if not isinstance(rows, pd.DataFrame):
        rows = pd.DataFrame(
            {name: pd.Series(dict(row), dtype=object) for name, row in rows.items()}
        ).T
    print(rows.map(_cell).to_string())


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN
        return ""
    if hasattr(value, "low"):
        return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"
    if isinstance(value, str | bool):
        return str(value)
    whole = not hasattr(value, "is_floating_point") and isinstance(value, int)
    return f"{value:,}" if whole else f"{float(value):.2f}"


class Spent:
    """What a notebook has spent since the model was loaded: U-Net passes, seconds, memory."""

    def __init__(self, model: Any):
        from dsd_tutorial.matching.cost import measure

        self._model, self._started = model, perf_counter()
        self._counting = measure(model)  # kept: its hook counts until the kernel ends
        self._meter = self._counting.__enter__()

    def report(self, **figures: Any) -> None:
        """Print the list of costs and record it, where it ran, and the notebook's `figures`.

        A batch of 32 through the U-Net is 32 passes.
        """
        import psutil
        import torch

        model = self._model
        for name, figure in {**figures, "unet_passes": self._meter.unet_passes}.items():
            record(name, figure)
        record_place(
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
        )

        memory = f"{psutil.Process().memory_info().rss / 1e9:.2f} GB in use"
        if self._model.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._model.device) / 1e9
            memory += f", on the graphics card at most {peak:.2f} GB"
        print(
            f"{self._meter.unet_passes:,} U-Net passes, {perf_counter() - self._started:.0f} s, "
            f"{memory}"
        )
