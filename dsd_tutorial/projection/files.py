"""Inverses on disk: one safetensors file, the small settings in its header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dsd_tutorial.projection.inverse import Inverse, clip_digest
from dsd_tutorial.saving import save_tensors

TENSORS = ("matrix", "offset", "weight")
NUMBERS = (
    "method", "length", "reads", "input_length", "copies", "steps", "rate", "settings", "clip",
)  # fmt: skip
FORMAT = "dsd_tutorial.projection.Inverse 1"


class WrongClipError(ValueError):
    """The inverse was made for another CLIP."""


def save_inverse(inverse: Inverse, path: Path | str) -> None:
    """Write an inverse as a safetensors file, in float64, with its settings as metadata."""
    tensors = {name: getattr(inverse, name) for name in TENSORS}
    header = {name: getattr(inverse, name) for name in NUMBERS}
    save_tensors(
        {name: value for name, value in tensors.items() if value is not None},
        path,
        metadata={"format": FORMAT, "inverse": json.dumps(header)},
    )


def load_inverse(path: Path | str, model: Any = None) -> Inverse:
    """Return the inverse that `save_inverse` wrote; it gives the same states to the last bit.

    With `model`, make sure that it was made for this model's CLIP.

    Raises:
        FileNotFoundError: no such file. ValueError: not a file of an inverse.
        WrongClipError: made for another CLIP.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"no inverse at {path}; save_inverse(inverse, path) writes one")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if header.get("format") != FORMAT:
        raise ValueError(f"{path} holds no inverse (format {header.get('format')!r})")
    inverse = Inverse(**json.loads(header["inverse"]), **tensors)
    if model is not None and inverse.clip != clip_digest(model):
        raise WrongClipError(
            f"{path} was made for the CLIP {inverse.clip}, and {model.name} has "
            f"{clip_digest(model)}: fit it again with fit_inverse(model, {inverse.method!r})"
        )
    return inverse
