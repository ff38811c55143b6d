"""Pictures on disk as parts of a matching task: opened only when a method asks for their pixels.

A `PictureTask` is a `shapes.tasks.Task` whose items hold `Picture`s instead of scenes, so every
method of the course runs on it unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsd_tutorial.datasets.sources import MissingDataError
from dsd_tutorial.shapes.task_items import Item
from dsd_tutorial.shapes.tasks import Task
from dsd_tutorial.stable_diffusion.pixels import to_tensor

FITS = {
    "whole": "both sides are resized to the model's: nothing a caption may name is cut away",
    "crop": "shorter side resized, centre cropped, as Stable Diffusion was trained",
}
_OPAQUE = ("1", "L", "RGB", "CMYK", "YCbCr", "LAB", "HSV", "P")


@dataclass(frozen=True)
class Picture:
    """A file, or a box (left, top, right, bottom in pixels) of it; `name` is what tells it apart.

    The same in every folder: where the file lies is no part of what it is.
    """

    name: str
    path: Path = field(repr=False, compare=False)
    box: tuple[float, float, float, float] | None = None

    def open(self) -> Any:
        """Return an upright RGB picture (PIL) of any stored mode; transparent parts become white.

        Raises MissingDataError if the file is gone, ValueError if it is no picture.
        """
        from PIL import Image, ImageOps, UnidentifiedImageError

        try:
            with Image.open(self.path) as stored:
                picture = to_rgb(ImageOps.exif_transpose(stored))
        except FileNotFoundError:
            raise MissingDataError(f"the picture {self.path} is missing") from None
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{self.path} cannot be read as a picture: {error}") from None
        return picture if self.box is None else picture.crop(_inside(self.box, picture.size))

    def load(self, side: int, fit: str = "whole") -> Tensor:
        """Return (1, 3, side, side) in [0, 1]; `fit` is one of `FITS`."""
        from PIL import Image

        picture = self.open()
        if fit == "whole":
            return to_tensor(picture.resize((side, side), Image.Resampling.BICUBIC))
        return to_tensor(picture, side)


def to_rgb(picture: Any) -> Any:
    """Return an RGB copy of a PIL picture: 16-bit grey is scaled, transparency laid over white."""
    from PIL import Image

    if picture.mode in ("RGBA", "LA", "La", "RGBa", "PA") or (
        "transparency" in picture.info and picture.mode in _OPAQUE
    ):
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    if picture.mode in _OPAQUE:
        return picture.convert("RGB")
    # deep grey ("I;16", "I", "F"): Pillow's own conversion would cut at 255, not scale
    values = np.asarray(picture, dtype=np.float64)
    if picture.mode == "F":
        most = 1.0 if values.max(initial=0) <= 1 else 255.0
    else:
        most = 65535.0
    grey = (values / most).clip(0, 1) * 255
    return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")


@dataclass(frozen=True)
class PictureTask(Task):
    """Items of one form whose images are `Picture`s; all else is as in `Task`.

    `fit` is how pictures become squares, one of `FITS`.
    """

    items: tuple[Item, ...]
    fit: str = "whole"

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ValueError(f"unknown fit {self.fit!r}; choose one of {', '.join(FITS)}")
        if not self.items:
            raise ValueError(f"{self.name}: no items; ask for other rows, or check the files")
        forms = {(len(item.images), len(item.texts)) for item in self.items}
        if len(forms) != 1:
            raise ValueError(f"{self.name}: items of different forms {sorted(forms)} in one task")

    def images(self, size: int = 512, device: str | torch.device = "cpu") -> Tensor:
        """Pictures of `scenes`, (scenes, 3, size, size) in [0, 1], read from disk at each call."""
        loaded = torch.empty(len(self.scenes), 3, size, size)
        for i, picture in enumerate(self.scenes):
            loaded[i] = picture.load(size, self.fit)[0]
        return loaded.to(device)


def _inside(box: tuple[float, ...], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the box in whole pixels within the picture, at least one pixel wide and high."""
    width, height = size
    left, top = (min(max(int(v), 0), m - 1) for v, m in zip(box[:2], size, strict=True))
    right, bottom = (int(np.ceil(v)) for v in box[2:])
    return left, top, min(max(right, left + 1), width), min(max(bottom, top + 1), height)
