"""Your own matching items: a folder with pictures and an `items.jsonl`.

    {"images": ["dog.jpg", "cat.jpg"], "texts": ["a dog on a sofa"], "correct": 0}
    {"images": ["desk.png"], "texts": ["two cups", "three cups"], "correct": 1, "kind": "number"}

All lines of one file have the same number of images and of texts. `correct` counts images where
one text is given, texts where one image is; with two of each, text `correct` belongs to image 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsd_tutorial.datasets.pictures import Picture, PictureTask
from dsd_tutorial.datasets.sources import find_file, find_image, report_missing, row_random, some
from dsd_tutorial.datasets.winoground import json_lines
from dsd_tutorial.shapes.task_items import Item

FILE = "items.jsonl"


def read_folder(
    folder: Path | str, *, n: int | None = None, seed: int = 0, fit: str = "whole"
) -> PictureTask:
    """Return the items of `folder`/items.jsonl, their candidates in a seeded order.

    Raises MissingDataError, or ValueError, with the line, for an item that is none.
    """
    file = find_file("folder", folder, (FILE,))
    rows = list(enumerate(json_lines(file, ("images", "texts", "correct")), 1))
    items = [_item(row, number, file, seed) for number, row in some(rows, n, seed)]
    lacking = {p.name for item in items for p in item.images if not p.path.is_file()}
    report_missing("folder", sorted(lacking), [file.parent])
    return PictureTask(file.parent.resolve().name, tuple(items), fit)


def _item(row: dict[str, Any], number: int, file: Path, seed: int) -> Item:
    images, texts, correct = row["images"], row["texts"], row["correct"]
    form = (len(images), len(texts))
    allowed = min(form) == 1 and max(form) > 1 or form == (2, 2)
    if not allowed or not isinstance(correct, int) or not 0 <= correct < max(form):
        raise ValueError(
            f"{file}, object {number}: {form[0]} images, {form[1]} texts, correct {correct!r}; "
            "need one text and several images, one image and several texts, or two and two, and "
            "`correct` an index among the several"
        )
    rng = row_random("folder", seed, number)
    order = rng.sample(range(max(form)), max(form))
    pictures = [
        Picture(name, find_image([file.parent], (name,)) or file.parent / name) for name in images
    ]
    if form[1] > 1:
        texts = [texts[i] for i in order]
    else:
        pictures = [pictures[i] for i in order]
    kind = str(row.get("kind", "own"))
    return Item(tuple(pictures), tuple(texts), order.index(correct), kind, rng.randrange(2**31))
