"""Readers for local copies of real benchmarks, in their official formats, and for your own images.

items = read_dataset("comvg", "~/data/comvg", n=300)      # a Task, as those of the shapes world
parts = split_by_image(items)                             # train, validation and test

Nothing is downloaded: a missing file is named, with where to get it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dsd_tutorial.datasets.comvg import read_comvg
from dsd_tutorial.datasets.images import FITS, ImageFile, ImageTask
from dsd_tutorial.datasets.own import OwnImages, read_folder, read_images
from dsd_tutorial.datasets.refcocog import read_refcocog
from dsd_tutorial.datasets.refcocog_boxes import BoxedItem, read_refcocog_boxes
from dsd_tutorial.datasets.sources import MissingDataError
from dsd_tutorial.datasets.splits import draw_items, split_by_image
from dsd_tutorial.datasets.vqa import read_vqav2
from dsd_tutorial.datasets.winoground import read_winoground
from dsd_tutorial.shapes.scene import check_known

READERS = {
    "comvg": read_comvg,
    "refcocog": read_refcocog,
    "vqav2": read_vqav2,
    "winoground": read_winoground,
    "folder": read_folder,
}


def read_dataset(name: str, folder: Path | str, fit: str = "whole", **settings: Any) -> ImageTask:
    """The items of a benchmark.

    Args:
        name: one of `READERS`.
        folder: where its files are, or the file that lists the items.
        fit: how an image becomes a square, "whole" or "crop".
        settings: `n` items drawn at random (None takes all); `seed`, of that and of the order of
            the candidates, item by item; `images`, a folder of images that lie elsewhere; and what
            the reader's docstring names.

    Raises:
        MissingDataError: a file is not there.
        ValueError: the name or a setting is unknown, or a file has another format.
    """
    check_known("dataset", name, READERS)
    check_known("fit", fit, FITS)
    return replace(READERS[name](folder, **settings), fit=fit)


__all__ = [
    "BoxedItem",
    "ImageFile",
    "ImageTask",
    "MissingDataError",
    "OwnImages",
    "READERS",
    "draw_items",
    "read_comvg",
    "read_dataset",
    "read_folder",
    "read_images",
    "read_refcocog",
    "read_refcocog_boxes",
    "read_vqav2",
    "read_winoground",
    "split_by_image",
]
