"""A folder of your own pictures as one tensor: what cannot be read is named and left out.

    mine = read_pictures("~/pictures", side=64)
    print(mine)                             # 3 pictures; skipped: notes.txt (no picture ...)

Any stored mode will do (transparent, grey, 16 bits), any size, a photograph held on its side. A
huge picture is made smaller before it becomes numbers, so that memory stays small.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.datasets.pictures import to_rgb
from dsd_tutorial.saving import expanded
from dsd_tutorial.stable_diffusion.pixels import to_tensor

FINER = 4  # a picture is first reduced to about so many times the side that is asked for
PLAIN = ("L", "RGB", "RGBA", "CMYK")  # modes that Pillow reduces as they are


@dataclass(frozen=True, eq=False)
class OwnPictures:
    """Pictures (n, 3, side, side) in [0, 1] with their file names, and file -> why it was skipped.

    `left` counts pictures that were not read because enough had been.
    """

    images: Tensor
    names: tuple[str, ...]
    skipped: dict[str, str]
    left: int = 0

    def __str__(self) -> str:
        said = [f"{len(self.names)} pictures"]
        if self.left:
            said[0] += f" ({self.left} more not read)"
        said += [f"skipped: {name} ({why})" for name, why in self.skipped.items()]
        return "; ".join(said)


def read_pictures(folder: str | Path, side: int, most: int | None = None) -> OwnPictures:
    """Return the `OwnPictures` of a folder, by name, `most` at the most.

    Each is reduced to `side` pixels and cropped to its central square. Raises ValueError, naming
    every file and its fault, where none can be read or there is no such folder.
    """
    found = expanded(folder)
    if not found.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r}")
    files = sorted(p for p in found.iterdir() if p.is_file() and not p.name.startswith("."))
    images: list[Tensor] = []
    names: list[str] = []
    skipped: dict[str, str] = {}
    left = 0
    for path in files:
        if most is not None and len(images) >= most:
            left += 1
            continue
        try:
            images.append(_read(path, side))
            names.append(path.name)
        except Exception as error:  # Pillow raises many kinds, from OSError to SyntaxError
            skipped[path.name] = _reason(error)
    if not images:
        faults = "; ".join(f"{name}: {why}" for name, why in skipped.items()) or "it is empty"
        raise ValueError(f"no picture could be read in {str(folder)!r}: {faults}")
    return OwnPictures(torch.cat(images), tuple(names), skipped, left)


def _read(path: Path, side: int) -> Tensor:
    """Return (1, 3, side, side)."""
    from PIL import Image, ImageOps

    with Image.open(path) as stored:
        stored.draft("RGB", (FINER * side, FINER * side))  # a JPEG is decoded small
        return to_tensor(to_rgb(ImageOps.exif_transpose(_reduced(stored, FINER * side))), side)


def _reduced(picture: Any, side: int) -> Any:
    """Return a picture whose shorter side is at least `side` and less than twice that, if larger.

    Deep modes keep their size: Pillow would not average them.
    """
    factor = min(picture.size) // side
    if factor < 2 or picture.mode not in PLAIN:
        return picture
    smaller = picture.reduce(factor)
    smaller.info = dict(picture.info)  # a transparent colour is told there
    smaller.getexif().update(picture.getexif())
    return smaller


def _reason(error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "no picture that Pillow can read"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large, more than {2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels"
    return " ".join(str(error).split()) or type(error).__name__
