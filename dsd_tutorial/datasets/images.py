"""Images on disk as parts of a matching task: opened only when a method needs their pixels.

An `ImageTask` is a `shapes.tasks.Task` whose items hold `ImageFile`s instead of scenes, so every
method of the course runs on it unchanged.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from dsd_tutorial.shapes.scene import check_known
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


class MissingDataError(FileNotFoundError):
    """A file is not where it was looked for; nothing is ever downloaded."""


class ImageFileError(ValueError):
    """A file is there and gives no image; the message names it, `why` is the reason alone."""

    def __init__(self, message: str, why: str = ""):
        super().__init__(message)
        self.why = why


@dataclass(frozen=True)
class ImageFile:
    """A file, or a box (left, top, right, bottom in pixels) of it; `name` is what tells it apart.

    The same in every folder: where the file lies is no part of what it is. `within` is a folder
    that the file must not lead out of, `origin` the file and line that name it, for messages.
    """

    name: str
    path: Path = field(repr=False, compare=False)
    box: tuple[int | float, ...] | None = None
    within: Path | None = field(default=None, repr=False, compare=False)
    origin: str = field(default="", repr=False, compare=False)

    def open(self) -> Image.Image:
        """The image as `open_image` gives it, cut to the box."""
        image = open_image(self.path, within=self.within, origin=self.origin)
        return image if self.box is None else image.crop(_clipped(self.box, image.size))

    def load(self, side: int, fit: str = "whole") -> Float[Tensor, "1 3 {side} {side}"]:
        """The image in [0, 1]; `fit` is one of `FITS`."""
        image = self.open()
        if fit == "whole":
            image = image.resize((side, side), Image.Resampling.BICUBIC)
        return to_tensor(image, side)


def open_image(
    path: Path, *, within: Path | None = None, origin: str = "", least: int | None = None
) -> Image.Image:
    """An upright RGB image of any stored mode, as `to_rgb` makes it.

    Turned as its EXIF says; of an animation, or of several pages, the first. Colour profiles are
    not applied.

    Args:
        path: the file.
        within: what leads out of this folder, by links too, is not opened.
        origin: what names the file; said first in errors.
        least: an image whose shorter side is much longer is reduced towards so many pixels while
            it is decoded.

    Raises:
        MissingDataError: there is no such file.
        ImageFileError: it is no image, is damaged, or has more pixels than Pillow takes for safe.
    """
    origin = f"{origin}: " if origin else ""
    real = path if within is None else inside(path, within)
    if real is None:
        raise ImageFileError(
            f"{origin}{path} lies outside {within}, where nothing is opened: copy the image into "
            "the folder.",
            "a link that leads out of the folder: copy the image into it",
        )
    if not is_file(real):
        raise MissingDataError(f"{origin}the image {path} is missing, or is no file")
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
            f"{origin}{path} cannot be read as an image ({why}): {remedy}, or leave it out.", why
        ) from None


def inside(path: Path, folder: Path) -> Path | None:
    """Where `path` really lies, all links followed, or None if that is not in `folder`.

    Nothing is opened to find out.
    """
    try:
        real = path.resolve()
        return real if real.is_relative_to(folder.resolve()) else None
    except (OSError, RuntimeError, ValueError):  # links in a circle, no name of a file at all
        return None


def is_file(path: Path) -> bool:
    """Whether it is a file: no folder, and no pipe, which would be waited for."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, a folder that may not be entered
        return False


def _reduced(image: Image.Image, side: int | None) -> Image.Image:
    """The image, its shorter side at least `side` and less than twice that if it was longer.

    Deep and palette modes keep their size: Pillow would not average them.
    """
    factor = 1 if side is None else min(image.size) // side
    if factor < 2 or image.mode not in PLAIN:
        return image
    smaller = image.reduce(factor)
    smaller.info = dict(image.info)  # a transparent colour is told there
    smaller.getexif().update(image.getexif())
    return smaller


def _fault(error: Exception) -> tuple[str, str]:
    """What is wrong with an image, and what helps."""
    if isinstance(error, UnidentifiedImageError):
        return "no image that Pillow can read", "save it as PNG or JPEG"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        most = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        return f"too large, more than {most:.3g} million pixels", "make it smaller"
    said = " ".join(str(error).split())[:200] or type(error).__name__
    return said, "save it anew as PNG or JPEG"


def to_rgb(image: Image.Image) -> Image.Image:
    """An RGB copy: 16-bit grey is scaled, transparency laid over white.

    Raises:
        ValueError: numbers of unknown scale: integers not in 0..65535, others not in 0..255.
    """
    clear = image.info.get("transparency")
    if image.mode in ("RGBA", "LA", "La", "RGBa", "PA") or (
        clear is not None and image.mode in _OPAQUE
    ):
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    if image.mode in _OPAQUE:
        return image.convert("RGB")
    # deep grey ("I;16", "I", "F"): Pillow's own conversion would cut at 255, not scale
    values = np.asarray(image)
    low, high = values.min(initial=0), values.max(initial=0)
    most = 255 if image.mode == "F" else 65535
    if not (low >= 0 and high <= most):  # written so that NaN is refused too
        raise ValueError(f"its values, {low:g} to {high:g}, have no known scale; need 0 to {most}")
    if image.mode == "F":
        grey = (values * (255 if high <= 1 else 1)).round().astype(np.uint8)
    else:
        grey = _SIXTEEN[values]
    if isinstance(clear, int):
        grey[values == clear] = 255
    return Image.fromarray(grey).convert("RGB")


@dataclass(frozen=True)
class ImageTask(Task):
    """Items of one form whose images are `ImageFile`s; all else is as in `Task`.

    `fit` is how images become squares, one of `FITS`.
    """

    items: tuple[Item, ...]
    fit: str = "whole"

    def __post_init__(self) -> None:
        check_known("fit", self.fit, FITS)
        if not self.items:
            raise ValueError(f"{self.name}: no items; ask for other rows, or check the files")
        forms = {(len(item.images), len(item.texts)) for item in self.items}
        if len(forms) != 1:
            raise ValueError(f"{self.name}: items of different forms {sorted(forms)} in one task")

    def images(self, size: int = 512) -> Float[Tensor, "scenes 3 {size} {size}"]:
        """`scenes` as images of `size` pixels a side, in [0, 1], read from disk at each call."""
        loaded = torch.empty(len(self.scenes), 3, size, size)
        for i, image in enumerate(self.scenes):
            loaded[i] = image.load(size, self.fit)[0]
        return loaded


def _clipped(box: tuple[int | float, ...], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box in whole pixels within the image, at least one pixel wide and high."""
    width, height = size
    left, top = (min(max(int(v), 0), m - 1) for v, m in zip(box[:2], size, strict=True))
    right, bottom = (int(np.ceil(v)) for v in box[2:])
    return left, top, min(max(right, left + 1), width), min(max(bottom, top + 1), height)
