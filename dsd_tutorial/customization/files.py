"""What was learned, on disk: safetensors with the numbers, JSON with what they belong to.

folder/custom.safetensors    the learned numbers
folder/custom.json           kind, settings, shapes, history, the model's name and SHA-256
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from dsd_tutorial.customization.tuning import Tuning
from dsd_tutorial.saving import save_tensors, write_json

NUMBERS, SETTINGS = "custom.safetensors", "custom.json"


class CustomizationMismatch(ValueError):
    """What was learned belongs to another model, is of another kind, or has other shapes."""


def record(tuning: Tuning) -> dict[str, Any]:
    """Return how it went as plain values; snapshots are left out."""
    found = {k: v for k, v in vars(tuning).items() if k not in ("snapshots", "rows")}
    rows = [{k: _plain(v) for k, v in row.items()} for row in tuning.rows]
    return {k: _plain(v) for k, v in found.items()} | {"rows": rows}


def recall(stored: Mapping[str, Any]) -> Tuning:
    """Return the `Tuning` of a `record`, without snapshots."""
    rows = [{k: math.nan if v is None else v for k, v in row.items()} for row in stored["rows"]]
    best = math.inf if stored["best"] is None else stored["best"]
    return Tuning(**{**stored, "rows": rows, "best": best})


def write(
    folder: str | Path,
    kind: str,
    tensors: Mapping[str, Tensor],
    about: Mapping[str, Any],
    model: Any,
) -> Path:
    """Return `folder` after writing both files to it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = {
        "kind": kind,
        **about,
        "model": model.name,
        "model_sha256": model.sha256,
        "shapes": {name: list(value.shape) for name, value in kept.items()},
    }
    save_tensors(kept, folder / NUMBERS)
    write_json(folder / SETTINGS, text)
    return folder


def read(
    folder: str | Path, kinds: tuple[str, ...], model: Any
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the numbers and what is said of them.

    Raises:
        FileNotFoundError: a file is missing.
        CustomizationMismatch: learned on other weights, of another kind than `kinds`, or the two
            files disagree on a shape.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    missing = [name for name in (NUMBERS, SETTINGS) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"no {' and no '.join(missing)} in {folder}: tune and save first")
    about = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    if about["kind"] not in kinds:
        raise CustomizationMismatch(
            f"{folder} holds a {about['kind']}, not a {' or '.join(kinds)}: load_domain reads what "
            "fit_domain made, load_custom what customize and textual_inversion made"
        )
    if about["model_sha256"] != model.sha256:
        raise CustomizationMismatch(
            f"what {folder} holds was learned on {about['model']} with weights "
            f"{about['model_sha256'][:12]}; this model is {model.name} with {model.sha256[:12]}: "
            "load that one, or tune anew"
        )
    tensors = load_file(folder / NUMBERS)
    check_shapes(tensors, about["shapes"], folder)
    return tensors, about


def check_shapes(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Any], folder: str | Path
) -> None:
    """Raises CustomizationMismatch unless names and shapes are the same."""
    stored = {name: tuple(value.shape) for name, value in tensors.items()}
    asked = {name: tuple(shape) for name, shape in wanted.items()}
    for name in sorted(stored.keys() | asked.keys()):
        if stored.get(name) != asked.get(name):
            raise CustomizationMismatch(
                f"{name} has shape {stored.get(name, 'none')} in {Path(folder) / NUMBERS}, but "
                f"{asked.get(name, 'none')} is asked for: the files do not belong together, or to "
                "this model; tune and save again"
            )


def _plain(value: Any) -> Any:
    """A value that JSON has: no NaN, no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
