"""The names of a model's cross-attention layers, from its configuration alone.

A parameter that names a layer can so be refused before any weights are read. The names are those of
`attention.cross_attention_layers`; a test holds both equal.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from dsd_tutorial.stable_diffusion.registry import MissingModelError, missing_message, resolve

CONFIG = "unet/config.json"


def layer_names(config: dict[str, Any]) -> list[str]:
    """The names of the cross-attention layers of a UNet2DConditionModel, in forward order."""
    down, up = config["down_block_types"], config["up_block_types"]
    layers = _each(config.get("layers_per_block", 2), len(down))
    deep = _each(config.get("transformer_layers_per_block", 1), len(down))
    inner = [_each(n, 1)[-1] for n in deep]
    found = []  # (name without the transformer block, number of transformer blocks)
    for i, kind in enumerate(down):
        found += [(f"down.{i}.{j}", inner[i]) for j in range(layers[i]) if "CrossAttn" in kind]
    if "CrossAttn" in (config.get("mid_block_type", "UNetMidBlock2DCrossAttn") or ""):
        found.append(("mid.0", inner[-1]))
    for i, kind in enumerate(up):
        here = len(down) - 1 - i
        reads = "CrossAttn" in kind
        found += [(f"up.{i}.{j}", inner[here]) for j in range(layers[here] + 1) if reads]
    if max((blocks for _, blocks in found), default=1) == 1:
        return [name for name, _ in found]
    return [f"{name}.{k}" for name, blocks in found for k in range(blocks)]


def _each(value: int | Sequence[int], n: int) -> list[int]:
    return [value] * n if isinstance(value, int) else list(value)


@lru_cache(maxsize=8)
def model_layers(model: str) -> tuple[str, ...]:
    """The layer names of a model given by name, hub id or folder; nothing is loaded or fetched.

    Raises MissingModelError, with the remedy, where its configuration is not on this machine.
    """
    entry, folder = resolve(model)
    path = _cached(entry) if folder is None else folder / CONFIG
    if path is None or not path.is_file():
        raise MissingModelError(missing_message(entry, folder or "the local cache", CONFIG))
    try:
        return tuple(layer_names(json.loads(path.read_text(encoding="utf-8"))))
    except (ValueError, KeyError, TypeError) as error:
        raise MissingModelError(
            missing_message(entry, path, f"a readable configuration ({error})")
        ) from None


def _cached(entry: Any) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for source in entry.sources:
        found = try_to_load_from_cache(source.repo_id, CONFIG, revision=source.revision)
        if isinstance(found, str):
            return Path(found)
    return None


def check_layers(layers: str | Sequence[str], names: Sequence[str], more: Sequence[str]) -> None:
    """Raise ValueError, with the nearest names, for a layer that is none of `names` nor a head of
    one ("up", "up.2"); `more` are words that stand for a choice, such as "all".
    """
    if isinstance(layers, str) and layers in more:
        return
    heads = {".".join(name.split(".")[:k]) for name in names for k in (1, 2, 3, 4)}
    for want in [layers] if isinstance(layers, str) else layers:
        if want not in heads:
            near = difflib.get_close_matches(want.lower(), [*more, *names], n=3, cutoff=0.3)
            hint = f"nearest: {', '.join(near)}; " if near else ""
            raise ValueError(f"there is no layer {want!r}; {hint}all: {', '.join([*more, *names])}")
