"""Winoground: two images, two captions of the same words (Thrush et al., arXiv 2204.03162).

`examples.jsonl` has one object per line: id, image_0, image_1, caption_0, caption_1,
collapsed_tag, ...; images are `images/<image_0>.png`.
"""

from __future__ import annotations

from pathlib import Path

from dsd_tutorial.datasets.images import ImageTask
from dsd_tutorial.datasets.sources import find_file, find_images, json_lines, row_random, some
from dsd_tutorial.shapes.task_items import Item

FILES = ("examples.jsonl", "data/examples.jsonl")
KEYS = ("image_0", "image_1", "caption_0", "caption_1")


def read_winoground(
    folder: Path | str, *, images: Path | str | None = None, n: int | None = None, seed: int = 0
) -> ImageTask:
    """Items of two images and two texts.

    In the official file caption_0 always belongs to image_0: as it is, a rule that answers "the
    first" is always right. Here the order of the texts is drawn. Images lie in `images` beside the
    file, or in the folder itself.
    """
    file = find_file("winoground", folder, FILES)
    roots = [Path(images)] if images else [file.parent / "images", file.parent]
    rows = some(list(enumerate(row for _, row in json_lines(file, KEYS))), n, seed)
    wanted = sorted({str(row[key]) for _, row in rows for key in KEYS[:2]})
    names = {name: (f"{name}.png", name, f"{name}.jpg") for name in wanted}
    found = find_images("winoground", roots, names)
    items = []
    for place, row in rows:
        rng = row_random("winoground", seed, row.get("id", place))
        correct = rng.randrange(2)
        pair = (found[str(row["image_0"])], found[str(row["image_1"])])
        texts = (row["caption_0"], row["caption_1"])
        ordered = texts if correct == 0 else texts[::-1]
        kind = str(row.get("collapsed_tag") or row.get("tag") or "untagged")
        items.append(Item(pair, ordered, correct, kind, rng.randrange(2**31)))
    return ImageTask("winoground", tuple(items))
