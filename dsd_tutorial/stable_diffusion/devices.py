"""Where a model runs and in which precision."""

from __future__ import annotations

import torch

from dsd_tutorial.stable_diffusion.registry import DeviceError


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device: the best there is for "auto", else the one asked for.

    Raises:
        DeviceError: it is not a device name, or this machine or build has no such device.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    here = [*(f"cuda:{i}" for i in range(torch.cuda.device_count() if cuda else 0))]
    here += ["mps"] * mps + ["cpu"]
    if device == "auto":
        return torch.device(here[0].removesuffix(":0"))
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(
            f"{device!r} is no device name. Use auto or {', '.join(here)}."
        ) from error
    index = target.index or 0
    if target.type in ("cpu", "meta") or f"{target.type}:{index}" in here or target.type in here:
        return target
    raise DeviceError(
        f"device {str(device)!r} is not available: this machine and build of torch "
        f"({torch.__version__}) offer {', '.join(here)}. Use device='auto', or install a torch "
        "built for it (pytorch.org, Get started)."
    )


def pick_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    """Return the precision of U-Net and autoencoder; None is float32.

    Raises:
        ValueError: not one of float32, float16, bfloat16.
    """
    allowed = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    chosen = allowed.get(str(dtype or "float32").removeprefix("torch."))
    if chosen is None:
        raise ValueError(f"dtype {dtype!r}: need None or one of {', '.join(allowed)}")
    return chosen
