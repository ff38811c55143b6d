"""Readers for local copies of real benchmarks, in their official formats.

items = read_dataset("comvg", "~/data/comvg", n=300)      # a Task, as those of the shapes world
parts = split_by_image(items)                             # train, validation and test

Nothing is downloaded: a missing file is named, with where to get it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsd_tutorial.datasets.comvg import comvg_rows, read_comvg
from dsd_tutorial.datasets.images import ImageFile, ImageTask
from dsd_tutorial.datasets.own import read_folder
from dsd_tutorial.datasets.own_images import read_images
from dsd_tutorial.datasets.refcocog import read_refcocog
from dsd_tutorial.datasets.sources import SOURCES, MissingDataError
from dsd_tutorial.datasets.splits import draw_items, split_by_image
from dsd_tutorial.datasets.vqa import read_vqav2
from dsd_tutorial.datasets.winoground import read_winoground

READERS = {
    "comvg": read_comvg,
    "refcocog": read_refcocog,
    "vqav2": read_vqav2,
    "winoground": read_winoground,
    "folder": read_folder,
}


def read_dataset(name: str, folder: Path | str, **settings: Any) -> ImageTask:
    """Return the items of benchmark `name` in `folder`; `settings` are those of its reader.

    Raises ValueError for a name that is none of `READERS`, MissingDataError for a missing file.
    """
    if name not in READERS:
        raise ValueError(f"unknown dataset {name!r}; choose one of {', '.join(READERS)}")
    return READERS[name](folder, **settings)


__all__ = [
    "MissingDataError",
    "ImageFile",
    "ImageTask",
    "READERS",
    "SOURCES",
    "comvg_rows",
    "draw_items",
    "read_comvg",
    "read_dataset",
    "read_folder",
    "read_images",
    "read_refcocog",
    "read_vqav2",
    "read_winoground",
    "split_by_image",
]
