"""What a notebook would take, before anything starts: U-Net passes, memory, files.

The number of passes grows by straight lines with a few parameters (`UNITS`). Two runs measured
them: with the defaults (`make run`) and with the quick values (`make test`); `make readme` keeps
both counts in results/notebooks.json. Memory is a bound, `ON_TOP` times the weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dsd_tutorial.course.notebooks import RECORD, repository
from dsd_tutorial.course.parameters import defaults

Values = Mapping[str, Any]
ON_TOP = 1.6  # sizes of the weights: the bound for a pass; `make bench --full-size` measures it
# parameters in millions: U-Net, autoencoder, text encoder, CLIP
SIZES = {
    "shapes-sd": (9.2, 0.7, 0.9, 2.2), "sd-1.4": (859.5, 83.7, 123.1, 427.6),
    "sd-1.5": (859.5, 83.7, 123.1, 427.6), "sd-2.1-base": (865.9, 83.7, 340.4, 986.1),
}  # fmt: skip
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 4}
PAIRS = {"comvg": 2, "winoground": 4, "refcoco": 10, "vqa": 10}  # of image and text, in an item


# what the number of passes grows with; of 02 and 05 about the passes themselves, part by part
UNITS: dict[str, Callable[[Values], float]] = {
    "00_orientation": lambda v: v["n_images"] * v["steps"] * (2 if v["guidance"] != 1 else 1),
    "01_attention_scores": lambda v: (v["n_items"] + v["n_validation"]) * len(v["steps"]),
    "02_few_shot_prompt_learning": lambda v: (
        # 32 validation items are scored about 14 times, test items 7 times
        PAIRS[v["task"]]
        * len(v["time_steps"])
        * (32 * 14 + 7 * v["n_items"] + 2.5 * v["seeds"] * v["shots"])
        + 96 * v["steps"]
        + 48 * v["drawing_steps"]
    ),  # fmt: skip
    "03_closed_form_projection": lambda v: v["n_references"] * v["steps"],
    "04_editing_and_customization": lambda v: (
        v["n_references"] * v["steps"] + v["ft_steps"] + v["ct_steps"]
    ),
    "05_what_came_after": lambda v: (
        40 * v["n_items"]
        + 150 * v["n_info"]
        + 3 * v["n_scenes"]
        + 6 * v["n_spoiled"]
        + 8 * v["drawing_steps"] * (9 + v["n_texts"])
        + 9 * v["n_texts"] ** 2
    ),  # fmt: skip
}


def plan_of(notebook: Path, changed: Values) -> list[str]:
    """Return the lines of a plan: passes, memory, files; nothing is loaded.

    Raises UnknownModelError for a model that cannot be anything.
    """
    values = {**defaults(notebook), **changed}
    passes = passes_of(notebook.stem, values)
    known = "not measured yet" if passes is None else f"about {passes:,.0f}"
    return [f"U-Net passes: {known}", _memory(values), *_files(values)]


def passes_of(notebook: str, values: Values, record: Path | None = None) -> float | None:
    """Return how many items would go through the U-Net, or None where it was not measured."""
    path = repository() / RECORD if record is None else record
    if not path.is_file() or notebook not in UNITS:
        return None
    known = json.loads(path.read_text(encoding="utf-8"))["notebooks"].get(notebook, {})
    points = known.get("passes", {})  # "quick" and "defaults": [units, passes]
    if len(points) < 2:
        return None
    (low, few), (high, many) = sorted(points.values())
    each = (many - few) / max(high - low, 1)
    return max(0.0, few + each * (UNITS[notebook](values) - low))


def _memory(values: Values) -> str:
    dtype = values.get("dtype", "float32")
    sizes = SIZES.get(values["model"])
    if sizes is None:
        return f"memory: at most about {ON_TOP} times the weights' size"
    unet, vae, text, clip = sizes
    weights = ((unet + vae) * BYTES[dtype] + (text + clip) * 4) / 1e3
    return f"memory: weights {weights:.1f} GB ({dtype}), at most about {ON_TOP * weights + 0.5:.1f}"


def _files(values: Values) -> list[str]:
    from dsd_tutorial.stable_diffusion.files import hub_folder
    from dsd_tutorial.stable_diffusion.registry import MissingModelError, resolve

    entry, folder = resolve(values["model"])
    said = [f"model: {entry.name}, licence {entry.licence}"]
    try:
        where = folder if folder is not None else hub_folder(entry, download=False)
        return [*said, f"files: {where}"]
    except MissingModelError as error:
        return [*said, f"files: {error}"]
