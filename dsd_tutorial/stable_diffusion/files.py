"""A model's folder on disk: find it, read its parts.

The layout is an ordinary diffusers pipeline folder with `clip/` (both CLIP towers) beside it and
`checksums.json`, which maps each weights file to its SHA-256.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dsd_tutorial.saving import expanded
from dsd_tutorial.stable_diffusion.checksums import WEIGHTS, part_weights
from dsd_tutorial.stable_diffusion.pixels import ImageSettings
from dsd_tutorial.stable_diffusion.registry import (
    CLIP_BY_TEXT_WIDTH,
    IncompleteWeightsError,
    MissingModelError,
    ModelEntry,
    Source,
    UnsafeWeightsError,
    missing_message,
)

_SMALL = ["model_index.json", "*/config.json", "scheduler/*", "tokenizer/*"]
_FETCH = [*_SMALL, *(f"{part}/*model.safetensors" for part in ("vae", "unet", "text_encoder"))]
_FETCH_CLIP = [
    "config.json", "preprocessor_config.json", "model*.safetensors", "*.index.json"
]  # fmt: skip

# what turns pickles into safetensors; both libraries read them as tensors only (weights_only)
CONVERT = (
    'python -c "from {library} import {kind} as M; '
    "M.from_pretrained(r'{folder}', use_safetensors=False)"
    ".save_pretrained(r'{folder}-safetensors')\""
)
PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")


# -- which files, and are they all there ---------------------------------------------------------


def require_complete(folder: Path, entry: ModelEntry) -> None:
    """Raise MissingModelError with the remedy unless `folder` can be loaded."""
    needed = ["model_index.json", "tokenizer", "scheduler/scheduler_config.json"]
    needed += [f"{part}/config.json" for part in ("vae", "unet", "text_encoder")]
    if entry.kind == "embedded":
        needed += ["clip/config.json", "checksums.json"]
    for name in needed:
        if not (folder / name).exists():
            raise MissingModelError(missing_message(entry, folder, name))
    parts = [part for part in WEIGHTS if part != "clip" or entry.kind == "embedded"]
    for part in parts:
        if not part_weights(folder / part, WEIGHTS[part]):
            _refuse_pickles(folder / part, folder, "diffusers", "StableDiffusionPipeline")
            raise MissingModelError(missing_message(entry, folder, f"{part} weights"))


def _refuse_pickles(part: Path, folder: Path, library: str, kind: str) -> None:
    """Raise UnsafeWeightsError, with the command that converts `folder`, if `part` has pickles."""
    found = sorted(path for path in part.glob("*") if path.suffix in PICKLED)
    if found:
        command = CONVERT.format(library=library, kind=kind, folder=folder)
        raise UnsafeWeightsError(
            f"{found[0]} is a pickle, which can run any code when it is loaded; only safetensors "
            f"are read. If you trust where it came from, convert it once: {command}"
        )


# -- the hub -------------------------------------------------------------------------------------


def hub_folder(entry: ModelEntry, download: bool = False) -> Path:
    """Return the cached folder of a hub model; fetch it only when `download` is true.

    Raises:
        MissingModelError: Not in the cache (or not completely), or no source could be fetched.
    """
    failures = []
    for source in entry.sources:
        folder = _snapshot(source, _FETCH, download, failures)
        if folder is None:
            continue
        try:
            require_complete(folder, entry)
        except MissingModelError as error:
            failures.append(f"{source.repo_id}: {error}")
            continue
        return folder
    from huggingface_hub.constants import HF_HUB_CACHE

    tried = f"{HF_HUB_CACHE} ({'; '.join(failures)})"
    raise MissingModelError(missing_message(entry, tried, "a complete copy"))


def towers_for(
    entry: ModelEntry, folder: Path, clip: str | Path | None, download: bool
) -> Path | None:
    """Return the folder of the CLIP towers that are not in the model's; None if there is none.

    `clip` is the user's wish (a folder or hub id). Without one, the folder named as the model's
    with "-clip" behind serves; then the registry's repository, for a folder that of the registered
    model whose text encoder has the same size.

    Raises:
        MissingModelError: `clip` is neither a folder with CLIP in it nor in the cache.
    """
    if clip is not None:
        return _find_clip(clip, download)
    if part_weights(folder / "clip", WEIGHTS["clip"]):
        return None
    if entry.kind == "folder" and clip_beside(folder).is_dir():
        return _find_clip(clip_beside(folder), download=False)
    # a model tuned from Stable Diffusion has the text encoder's size, and mostly its very weights
    config = json.loads((folder / "text_encoder" / "config.json").read_text(encoding="utf-8"))
    source = entry.clip_repo or CLIP_BY_TEXT_WIDTH.get(config.get("hidden_size"))
    return None if source is None else _cached_clip(source, download)


def clip_beside(folder: Path) -> Path:
    """Return where the CLIP of a pipeline's folder is looked for: `folder`-clip."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}-clip")


def _find_clip(name_or_folder: str | Path, download: bool) -> Path:
    folder = expanded(name_or_folder)
    if not folder.is_dir():
        source = Source(str(name_or_folder))
        cached = _cached_clip(source, download)
        if cached is not None:
            return cached
        raise MissingModelError(
            f"CLIP {source.repo_id!r} is neither a folder nor in the cache. Fetch it: "
            f"load_model(..., clip={source.repo_id!r}, download=True), or in a shell: "
            f"{source.fetch_command}."
        )
    if _is_clip(folder):
        return folder
    _refuse_pickles(folder, folder, "transformers", "CLIPModel")
    raise MissingModelError(
        f"{folder.absolute()} holds no CLIP: need config.json and model.safetensors there."
    )


def _cached_clip(source: Source, download: bool) -> Path | None:
    folder = _snapshot(source, _FETCH_CLIP, download, [])
    return folder if folder is not None and _is_clip(folder) else None


def _is_clip(folder: Path) -> bool:
    return bool(part_weights(folder, WEIGHTS["clip"])) and (folder / "config.json").is_file()


def _snapshot(source: Source, patterns: list[str], download: bool, failures: list) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            source.repo_id,
            revision=source.revision,
            allow_patterns=patterns,
            local_files_only=not download,
        )
    except Exception as error:  # not cached, withdrawn, gated, no network: try the next source
        failures.append(f"{source.repo_id}: {type(error).__name__}")
        return None
    return Path(found)


# -- reading -------------------------------------------------------------------------------------


def read_parts(folder: Path, clip: Path | None = None) -> dict[str, Any]:
    """Return the parts of a model folder by name, on the CPU, each with all its tensors.

    Keys: vae, unet, text_encoder, tokenizer, scheduler, clip, image_processor; the last two are
    None unless `folder`/clip or the folder `clip` holds the towers.

    Raises:
        IncompleteWeightsError: A file lacks tensors, which would have stayed random.
        OSError: A part has no safetensors; pickles are never opened.
    """
    import diffusers  # its lazy module loads only what is named below
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.modeling_clip import CLIPModel, CLIPTextModel
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    if clip is None and part_weights(folder / "clip", WEIGHTS["clip"]):
        clip = folder / "clip"
    stored = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    scheduler = getattr(diffusers, stored["_class_name"])
    settings = None
    if clip is not None and (clip / "preprocessor_config.json").is_file():
        settings = ImageSettings.read(clip)
    with quiet():
        return {
            "vae": read_part(AutoencoderKL, folder / "vae"),
            "unet": read_part(UNet2DConditionModel, folder / "unet"),
            "text_encoder": read_part(CLIPTextModel, folder / "text_encoder"),
            "tokenizer": CLIPTokenizer.from_pretrained(str(folder / "tokenizer")),
            "scheduler": scheduler.from_pretrained(str(folder / "scheduler")),
            "clip": read_part(CLIPModel, clip) if clip is not None else None,
            "image_processor": settings,
        }


def read_part(kind: Any, folder: Path) -> Any:
    """Return the model of class `kind` in `folder`.

    Raises:
        IncompleteWeightsError: Tensors are missing, which would silently stay random.
    """
    model, info = kind.from_pretrained(
        str(folder), output_loading_info=True, local_files_only=True, use_safetensors=True
    )
    missing = sorted(map(str, info["missing_keys"])) + sorted(map(str, info["mismatched_keys"]))
    if missing:
        raise IncompleteWeightsError(
            f"{folder}: {len(missing)} tensors of {kind.__name__} are missing or of another shape "
            f"(first: {', '.join(missing[:3])}). The file was cut short or belongs to another "
            "configuration or library version: fetch it again, or write it with "
            "StableDiffusion.save(folder)."
        )
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the loading bars and advice of transformers for a moment; errors still show."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
