"""A folder of your own pictures as one tensor: what cannot be read is named and left out.

    mine = read_images("~/pictures", side=64)
    print(mine)                             # 3 pictures; skipped: notes.txt (no picture ...)

Any stored mode will do (transparent, grey, 16 bits, CMYK), any size, a photograph held on its side;
of an animation the first frame is taken. A huge picture is made smaller before it becomes numbers,
so that memory stays small. A link that leads out of the folder is not followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dsd_tutorial.datasets.images import ImageFileError, open_image
from dsd_tutorial.datasets.sources import MissingDataError
from dsd_tutorial.saving import expanded
from dsd_tutorial.stable_diffusion.pixels import to_tensor

FINER = 4  # a picture is first reduced to about so many times the side that is asked for


@dataclass(frozen=True, eq=False)
class OwnImages:
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


def read_images(folder: str | Path, side: int, most: int | None = None) -> OwnImages:
    """Return the `OwnImages` of a folder, by name, `most` at the most.

    Each is reduced to `side` pixels and cropped to its central square. Raises ValueError, naming
    every file and its fault, where none can be read or there is no such folder.
    """
    found = expanded(folder)
    if not found.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r}")
    try:
        files = sorted(p for p in found.iterdir() if not p.name.startswith(".") and not p.is_dir())
    except OSError as error:
        raise ValueError(
            f"the folder {str(folder)!r} cannot be read ({error.strerror}): give another"
        ) from None
    images: list[Tensor] = []
    names: list[str] = []
    skipped: dict[str, str] = {}
    left = 0
    for path in files:
        if most is not None and len(images) >= most:
            left += 1
            continue
        try:
            picture = open_image(path, within=found, least=FINER * side)
        except ImageFileError as error:
            skipped[path.name] = error.why
        except MissingDataError:
            skipped[path.name] = "no file, or a link to nothing"
        else:
            images.append(to_tensor(picture, side))
            names.append(path.name)
    if not images:
        faults = "; ".join(f"{name}: {why}" for name, why in skipped.items()) or "it is empty"
        raise ValueError(f"no picture could be read in {str(folder)!r}: {faults}")
    return OwnImages(torch.cat(images), tuple(names), skipped, left)
