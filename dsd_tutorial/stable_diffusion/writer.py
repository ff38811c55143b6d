"""Write a model as an ordinary diffusers pipeline folder that needs nothing of this package.

Beside the pipeline's parts stand `clip/` (both towers and projections) and `checksums.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.saving import replacing_in, save_tensors, write_json
from dsd_tutorial.stable_diffusion.checksums import folder_checksums


def write_parts(parts: dict[str, Any], folder: Path, dtype: torch.dtype) -> dict[str, str]:
    """Return the checksums of the folder just written from `parts` (as `read_parts` has them).

    U-Net and autoencoder are stored in `dtype`, since diffusers loads them as float32 whatever is
    stored. Text encoder and CLIP stay float32: transformers would load them as stored, and a plain
    pipeline then mixes precisions and fails. Files that are not ours (README.md, metrics.json)
    stay as they are.
    """
    for name in ("vae", "unet"):
        write_diffusers_part(parts[name], folder / name, dtype)
    write_text_encoder(parts["text_encoder"], folder / "text_encoder")
    for name in ("tokenizer", "scheduler"):
        with replacing_in(folder / name) as partial:
            parts[name].save_pretrained(partial)
    if parts["clip"] is not None:
        write_clip(parts["clip"], folder / "clip")
    if parts["image_processor"] is not None:
        (folder / "clip").mkdir(exist_ok=True)
        parts["image_processor"].write(folder / "clip")
    libraries = {"vae": "diffusers", "unet": "diffusers", "scheduler": "diffusers"}
    libraries |= {"text_encoder": "transformers", "tokenizer": "transformers"}
    write_pipeline_index(
        folder, {name: (where, type(parts[name]).__name__) for name, where in libraries.items()}
    )
    return write_checksums(folder)


def write_diffusers_part(model: Any, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the configuration and, in `dtype`, the weights of a U-Net or an autoencoder."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_tensors(model.state_dict(), folder / "diffusion_pytorch_model.safetensors", dtype)
    with replacing_in(folder) as partial:
        model.save_config(partial)
        _forget_origin(partial / "config.json")


def _forget_origin(config: Path) -> None:
    """Drop the folder that the weights were once read from: it names the machine, not the model."""
    kept = {k: v for k, v in json.loads(config.read_text()).items() if k != "_name_or_path"}
    write_json(config, kept)


def write_text_encoder(text: Any, folder: Path) -> None:
    """Write a CLIPTextModel, or the text tower of a CLIPModel, in float32.

    The prefixed spelling of the keys is read by every version of transformers; the flat one loads
    as random weights in some, with no more than a line in the log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text.config.architectures = ["CLIPTextModel"]
    with replacing_in(folder) as partial:
        text.config.save_pretrained(partial)
    tower = getattr(text, "text_model", text)
    prefixed = {f"text_model.{name}": value for name, value in tower.state_dict().items()}
    _write_tensors(prefixed, folder / "model.safetensors", torch.float32)


def write_clip(clip: Any, folder: Path) -> None:
    """Write a CLIPModel, both towers and both projections, in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing_in(folder) as partial:
        clip.config.save_pretrained(partial)
    _write_tensors(clip.state_dict(), folder / "model.safetensors", torch.float32)


def write_checksums(folder: Path) -> dict[str, str]:
    """Return relative path -> SHA-256 of every weights file, after writing checksums.json."""
    checksums = folder_checksums(folder)
    write_json(folder / "checksums.json", checksums)
    return checksums


def write_pipeline_index(folder: Path, parts: dict[str, tuple[str, str]]) -> None:
    """Write model_index.json; `parts` maps each part to its (library, class)."""
    from diffusers import __version__

    absent = ("feature_extractor", "image_encoder", "safety_checker")
    content = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": __version__,
        "requires_safety_checker": False,
        **{name: [None, None] for name in absent},
        **{name: list(where) for name, where in parts.items()},
    }
    write_json(folder / "model_index.json", content)


def _write_tensors(tensors: dict[str, Tensor], path: Path, dtype: torch.dtype) -> None:
    """Write a safetensors file, whole or not at all; raises ValueError unless all are finite.

    The tensors may be views of the very file they replace (it is memory-mapped when loaded).
    """
    stored = {
        name: (value.to(dtype) if value.is_floating_point() else value).cpu().contiguous()
        for name, value in tensors.items()
    }
    for name, value in stored.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(
                f"{name} holds numbers that are not finite in {str(dtype).removeprefix('torch.')}: "
                f"{path} was not written, and is as it was before"
            )
    save_tensors(stored, path, metadata={"format": "pt"})
