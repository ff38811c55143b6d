"""What was learned, on disk: safetensors with the numbers, JSON with what they belong to.

folder/custom.safetensors    the learned numbers
folder/custom.json           kind, settings, history, the model's name and SHA-256
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dsd_tutorial.customization.tuning import Tuning
from dsd_tutorial.saving import save_tensors, write_json
from dsd_tutorial.stable_diffusion import StableDiffusion

NUMBERS, SETTINGS = "custom.safetensors", "custom.json"


class CustomizationMismatch(ValueError):
    """What was learned belongs to another model, is of another kind, or has other shapes."""


def write(folder: str | Path, model: StableDiffusion, result: Any) -> Path:
    """Return `folder` after writing kind, settings, module and tuning of `result` to it."""
    folder = Path(folder)
    save_tensors(result.module.state_dict(), folder / NUMBERS)
    about = {
        "kind": result.kind,
        "settings": result.settings,
        "tuning": record(result.tuning),
        "model": model.name,
        "model_sha256": model.sha256,
    }
    write_json(folder / SETTINGS, about)
    return folder


def read(
    folder: str | Path, kinds: tuple[str, ...], model: StableDiffusion
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the numbers and what is said of them.

    Raises:
        FileNotFoundError: a file is missing.
        CustomizationMismatch: learned on other weights, or of another kind than `kinds`.
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
    return load_file(folder / NUMBERS), about


def fill(module: nn.Module, tensors: Mapping[str, Tensor], folder: str | Path) -> None:
    """Copy stored numbers into `module`; CustomizationMismatch where names or shapes differ."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).partition("\n")[2].split())
        raise CustomizationMismatch(
            f"{Path(folder) / NUMBERS} does not fit its {SETTINGS} or this model ({reason}): tune "
            "and save again"
        ) from error


def record(tuning: Tuning) -> dict[str, Any]:
    """Return how it went as values that JSON has: no snapshots, None for infinity and NaN."""
    told = {k: _plain(v) for k, v in vars(tuning).items() if k not in ("snapshots", "rows")}
    rows = [{k: _plain(v) for k, v in row.items()} for row in tuning.rows]
    return {**told, "rows": rows}


def recall(stored: Mapping[str, Any]) -> Tuning:
    """Return the `Tuning` of a `record`, without snapshots."""
    rows = [{k: math.nan if v is None else v for k, v in row.items()} for row in stored["rows"]]
    best = math.inf if stored["best"] is None else stored["best"]
    return Tuning(**{**stored, "rows": rows, "best": best})


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
