"""Pictures on disk as parts of a matching task: opened only when a method asks for their pixels.

A `ImageTask` is a `shapes.tasks.Task` whose items hold `ImageFile`s instead of scenes, so every
method of the course runs on it unchanged.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsd_tutorial.datasets.sources import MissingDataError, inside
from dsd_tutorial.shapes.task_items import Item
from dsd_tutorial.shapes.tasks import Task
from dsd_tutorial.stable_diffusion.pixels import to_tensor

FITS = {
    "whole": "both sides are resized to the model's: nothing a caption may name is cut away",
    "crop": "shorter side resized, centre cropped, as Stable Diffusion was trained",
}
# what is tried, in this order: Pillow knows more, of which one (EPS) would start another program
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF", "HEIF")
PLAIN = ("L", "RGB", "RGBA", "CMYK")  # modes that Pillow reduces as they are
_OPAQUE = ("1", "L", "RGB", "CMYK", "YCbCr", "LAB", "HSV", "P")
_SIXTEEN = np.round(np.arange(65536) / 257).astype(np.uint8)  # 16 bits -> 8


class ImageFileError(ValueError):
    """A file is there and gives no picture; the message names it, `why` is the reason alone."""

    def __init__(self, message: str, why: str = ""):
        super().__init__(message)
        self.why = why


@dataclass(frozen=True)
class ImageFile:
    """A file, or a box (left, top, right, bottom in pixels) of it; `name` is what tells it apart.

    The same in every folder: where the file lies is no part of what it is. `within` is a folder
    that the file must not lead out of, `told` the file and line that name it, for messages.
    """

    name: str
    path: Path = field(repr=False, compare=False)
    box: tuple[float, float, float, float] | None = None
    within: Path | None = field(default=None, repr=False, compare=False)
    told: str = field(default="", repr=False, compare=False)

    def open(self) -> Any:
        """Return it as `open_image` does, cut to the box. Raises the same errors."""
        picture = open_image(self.path, within=self.within, told=self.told)
        return picture if self.box is None else picture.crop(_inside(self.box, picture.size))

    def load(self, side: int, fit: str = "whole") -> Tensor:
        """Return (1, 3, side, side) in [0, 1]; `fit` is one of `FITS`."""
        from PIL import Image

        picture = self.open()
        if fit == "whole":
            return to_tensor(picture.resize((side, side), Image.Resampling.BICUBIC))
        return to_tensor(picture, side)


def open_image(
    path: Path, *, within: Path | None = None, told: str = "", least: int | None = None
) -> Any:
    """Return an upright RGB picture (PIL) of any stored mode, as `to_rgb` makes it.

    Turned as its EXIF says; of an animation, or of several pages, the first. Colour profiles are
    not applied. A picture much larger than `least` pixels on its shorter side is reduced towards
    that while it is decoded. What follows its links out of the folder `within` is not opened.
    Raises MissingDataError if there is no such file, ImageFileError if it is none, is damaged,
    or has more pixels than Pillow takes for safe; `told` is said first in both.
    """
    from PIL import Image, ImageOps

    told = f"{told}: " if told else ""
    real = path if within is None else inside(path, within)
    if real is None:
        raise ImageFileError(
            f"{told}{path} lies outside {within}, where nothing is opened: copy the picture into "
            "the folder.",
            "a link that leads out of the folder: copy the picture into it",
        )
    if not _is_file(real):
        raise MissingDataError(f"{told}the picture {path} is missing, or is no file")
    Image.init()
    try:
        with warnings.catch_warnings():
            # beyond this many pixels Pillow only warns, and would then fill the memory
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(real, formats=[f for f in FORMATS if f in Image.OPEN]) as stored:
                if least is not None:
                    stored.draft("RGB", (least, least))  # a JPEG is decoded small
                upright = ImageOps.exif_transpose(_reduced(stored, least))
                return _reduced(to_rgb(upright), least)
    except Exception as error:  # Pillow raises many kinds, from OSError to SyntaxError
        why, remedy = _fault(error)
        raise ImageFileError(
            f"{told}{path} cannot be read as an image ({why}): {remedy}, or leave it out.", why
        ) from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()  # no folder, and no pipe, which would be waited for
    except (OSError, ValueError):
        return False


def _reduced(picture: Any, side: int | None) -> Any:
    """Return a picture whose shorter side is at least `side` and less than twice that, if larger.

    Deep and palette modes keep their size: Pillow would not average them.
    """
    factor = 1 if side is None else min(picture.size) // side
    if factor < 2 or picture.mode not in PLAIN:
        return picture
    smaller = picture.reduce(factor)
    smaller.info = dict(picture.info)  # a transparent colour is told there
    smaller.getexif().update(picture.getexif())
    return smaller


def _fault(error: Exception) -> tuple[str, str]:
    """Return what is wrong with a picture, and what helps."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "no picture that Pillow can read", "save it as PNG or JPEG"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        most = Image.MAX_IMAGE_PIXELS / 1e6
        return f"too large, more than {most:.3g} million pixels", "make it smaller"
    said = " ".join(str(error).split())[:200] or type(error).__name__
    return said, "save it anew as PNG or JPEG"


def to_rgb(picture: Any) -> Any:
    """Return an RGB copy of a PIL picture: 16-bit grey is scaled, transparency laid over white.

    Raises ValueError for numbers of unknown scale: integers not in 0..65535, others not in 0..255.
    """
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
    values = np.asarray(picture)
    low, high = values.min(initial=0), values.max(initial=0)
    most = 255 if picture.mode == "F" else 65535
    if not (low >= 0 and high <= most):  # written so that NaN is refused too
        raise ValueError(f"its values, {low:g} to {high:g}, have no known scale; need 0 to {most}")
    if picture.mode == "F":
        grey = (values * (255 if high <= 1 else 1)).round().astype(np.uint8)
    else:
        grey = _SIXTEEN[values]
    if isinstance(clear := picture.info.get("transparency"), int):
        grey[values == clear] = 255
    return Image.fromarray(grey).convert("RGB")


@dataclass(frozen=True)
class ImageTask(Task):
    """Items of one form whose images are `ImageFile`s; all else is as in `Task`.

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
