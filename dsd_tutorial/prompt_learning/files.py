"""Adapters on disk: safetensors with the numbers, JSON beside it with what they belong to.

folder/adapter.safetensors    the learned numbers
folder/adapter.json           kind, configuration, scoring, shapes, the model's name and SHA-256
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dsd_tutorial.prompt_learning.adapters import Adapter, Scoring
from dsd_tutorial.prompt_learning.attention_prompts import AttentionPrompt
from dsd_tutorial.prompt_learning.lora import LoRA
from dsd_tutorial.prompt_learning.soft_prompts import SoftPrompt
from dsd_tutorial.prompt_learning.weights import HeadWeights
from dsd_tutorial.saving import save_tensors, write_json

KINDS = {c.kind: c for c in (Adapter, SoftPrompt, AttentionPrompt, HeadWeights, LoRA)}
WEIGHTS, SETTINGS = "adapter.safetensors", "adapter.json"


class AdapterMismatch(ValueError):
    """A stored adapter belongs to another model, or its numbers have other shapes."""


def save(adapter: Adapter, model: Any, folder: str | Path, scoring: Scoring | None = None) -> Path:
    """Return `folder` after writing the adapter's numbers and configuration to it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in adapter.state_dict().items()}
    about = {
        **_description(adapter),
        "scoring": asdict(scoring or Scoring()),
        "model": model.name,
        "model_sha256": model.sha256,
        "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
    }
    save_tensors(tensors, folder / WEIGHTS)
    write_json(folder / SETTINGS, about)
    return folder


def load(folder: str | Path, model: Any) -> tuple[Adapter, Scoring]:
    """Return the adapter in `folder`, for `model`, and the scoring it was fitted with.

    Raises:
        FileNotFoundError: a file is missing.
        AdapterMismatch: it was learned on a model with other weights, its numbers have other
            shapes than its configuration says, or its kind is unknown.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    missing = [name for name in (WEIGHTS, SETTINGS) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"no {' and no '.join(missing)} in {folder}: fit and save first")
    about = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    if about["model_sha256"] != model.sha256:
        raise AdapterMismatch(
            f"the adapter in {folder} was learned on {about['model']} with weights "
            f"{about['model_sha256'][:12]}; this model is {model.name} with {model.sha256[:12]}: "
            "load that one, or fit anew"
        )
    scoring = Scoring(**about["scoring"])
    adapter = _build(about, model, scoring)
    try:
        adapter.load_state_dict(load_file(folder / WEIGHTS))
    except RuntimeError as error:
        raise AdapterMismatch(
            f"{folder / WEIGHTS} and its configuration do not belong together ({error}): fit and "
            "save again"
        ) from error
    return adapter, scoring


def _description(adapter: Adapter) -> dict[str, Any]:
    on = getattr(adapter, "on", None)
    own = {"kind": adapter.kind, "config": adapter.config()}
    return own if on is None else {**own, "on": _description(on)}


def _build(about: dict[str, Any], model: Any, scoring: Scoring) -> Adapter:
    kind = KINDS.get(about["kind"])
    if kind is None:
        known = ", ".join(KINDS)
        raise AdapterMismatch(f"unknown kind of adapter {about['kind']!r}; known are {known}")
    if kind is Adapter:
        return Adapter()
    if kind is not HeadWeights:
        return kind(model, **about["config"])
    on = _build(about["on"], model, scoring) if "on" in about else None
    return HeadWeights(model, scoring, on=on, **about["config"])
