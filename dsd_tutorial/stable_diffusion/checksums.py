"""Which weights files a model folder has, and whether they are the published ones.

`checksums.json` in a model folder maps each weights file to its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import re
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from dsd_tutorial.saving import file_sha256
from dsd_tutorial.stable_diffusion.registry import (
    ChecksumError,
    MissingModelError,
    ModelEntry,
    missing_message,
)

# parts that hold weights -> stem of their files, in diffusers' and transformers' spelling
WEIGHTS = {
    "vae": r"diffusion_pytorch_model",
    "unet": r"diffusion_pytorch_model",
    "text_encoder": r"(?:pytorch_)?model",
    "clip": r"(?:pytorch_)?model",
}


def part_weights(folder: Path, stem: str) -> list[Path]:
    """Return the weights files of one part that loading would read, sorted: safetensors only."""
    pattern = re.compile(rf"{stem}(-\d+-of-\d+)?\.safetensors")
    return sorted(path for path in folder.glob("*.safetensors") if pattern.fullmatch(path.name))


def folder_checksums(folder: Path) -> dict[str, str]:
    """Return relative path -> SHA-256 of every weights file that loading `folder` would read."""
    parts = [part_weights(folder / part, stem) for part, stem in WEIGHTS.items()]
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in chain(*parts)}


def combined_sha256(checksums: dict[str, str]) -> str:
    """Return one digest for a model: SHA-256 of the sorted lines "digest  path"."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(checksums.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def verify(folder: Path, entry: ModelEntry) -> dict[str, str] | None:
    """Return the checksums of `folder` after comparing them with its checksums.json; None without.

    Raises:
        MissingModelError: A listed file is absent.
        ChecksumError: A file differs from the list, or would be loaded without being listed.
    """
    listing = folder / "checksums.json"
    if not listing.is_file():
        return None
    expected: dict[str, str] = json.loads(listing.read_text())
    for name in expected:
        if not (folder / name).is_file():
            raise MissingModelError(missing_message(entry, folder, name))
    found = folder_checksums(folder)
    for name, digest in found.items():
        if expected.get(name) != digest:
            raise ChecksumError(
                f"{folder / name} is not the published file: expected SHA-256 "
                f"{expected.get(name, 'none (not listed in checksums.json)')}, found {digest}. "
                "Restore the file (reinstall the package or fetch the folder again); if you "
                "changed the weights on purpose, write them with StableDiffusion.save(folder)."
            )
    return found


def state_sha256(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors in memory: names, shapes, types and bytes, in order."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
