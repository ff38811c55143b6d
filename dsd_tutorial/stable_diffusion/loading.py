"""Load a model by name, folder or hub id: which device, which precision, which files."""

from __future__ import annotations

from pathlib import Path

import torch

from dsd_tutorial.stable_diffusion import files
from dsd_tutorial.stable_diffusion.checksums import verify
from dsd_tutorial.stable_diffusion.model import StableDiffusion
from dsd_tutorial.stable_diffusion.precision import pick_dtype
from dsd_tutorial.stable_diffusion.registry import DeviceError, resolve


def load_model(
    name_or_path: str | Path = "shapes-sd",
    device: str | torch.device = "auto",
    dtype: torch.dtype | str | None = None,
    *,
    clip: str | Path | None = None,
    download: bool = False,
) -> StableDiffusion:
    """Return the model called `name_or_path`.

    Args:
        name_or_path: A registered name, a folder, or a hub id.
        device: "auto" is CUDA, else MPS, else the CPU.
        dtype: Precision of the U-Net: "float32", "bfloat16", "float16", or "auto" as in
            `pick_dtype`; None is float32, also where weights are stored in float16. The autoencoder
            follows in float16 and stays in float32 beside bfloat16.
        clip: Folder or hub id with CLIP's towers; by default those in the model's folder, in a
            folder `<model>-clip` beside it, or the public CLIP of its text encoder if cached.
        download: Whether the network may be used.

    Raises:
        UnknownModelError, MissingModelError, ChecksumError, IncompleteWeightsError, DeviceError:
            See docs/errors.md for the cure of each.
    """
    entry, folder = resolve(name_or_path)
    target = pick_device(device)
    precision = pick_dtype(dtype, target)
    if folder is None:
        folder = files.hub_folder(entry, download)
    else:
        files.require_complete(folder, entry)
    found = verify(folder, entry)
    towers = files.towers_for(entry, folder, clip, download)
    parts = files.read_parts(folder, towers)
    model = StableDiffusion(
        **parts, name=entry.name, entry=entry, folder=folder, device=target, dtype=precision
    )
    if found is not None:
        model.__dict__["checksums"] = found  # just computed: no need to read the files again
    return model


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device: the best there is for "auto", else the one given.

    Raises:
        DeviceError: It is not a device name, or this machine or build has no such device.
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
