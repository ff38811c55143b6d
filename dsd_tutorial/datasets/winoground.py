"""Winoground: two pictures, two captions of the same words (Thrush et al., arXiv 2204.03162).

`examples.jsonl` has one object per line: id, image_0, image_1, caption_0, caption_1,
collapsed_tag, ...; pictures are `images/<image_0>.png`.
"""

from __future__ import annotations

import json
from pathlib import Path

from dsd_tutorial.datasets.pictures import Picture, PictureTask
from dsd_tutorial.datasets.sources import find_file, find_image, report_missing, row_random, some
from dsd_tutorial.shapes.task_items import Item

FILES = ("examples.jsonl", "data/examples.jsonl")
KEYS = ("image_0", "image_1", "caption_0", "caption_1")


def json_lines(file: Path, keys: tuple[str, ...]) -> list[dict]:
    """Return the objects of a jsonl file, in order; blank lines are skipped.

    Raises ValueError, with the line, for anything that is no object with these keys.
    """
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}, line {number}: not JSON ({error})") from None
        lacking = [key for key in keys if not isinstance(row, dict) or key not in row]
        if lacking:
            raise ValueError(f"{file}, line {number}: no {', '.join(lacking)} in it")
        rows.append(row)
    return rows


def read_winoground(
    folder: Path | str,
    *,
    images: Path | str | None = None,
    n: int | None = None,
    seed: int = 0,
    fit: str = "whole",
) -> PictureTask:
    """Return items of two images and two texts; the texts' order is drawn per item from `seed`.

    folder  holds examples.jsonl, or is it; images  the pictures (default: `images` beside it).
    In the official file caption_0 always belongs to image_0: as it is, a rule that answers "the
    first" is always right. Raises MissingDataError, or ValueError for another format.
    """
    file = find_file("winoground", folder, FILES)
    roots = [Path(images)] if images else [file.parent / "images", file.parent]
    rows = some(list(enumerate(json_lines(file, KEYS))), n, seed)
    names = {str(row[key]) for _, row in rows for key in KEYS[:2]}
    paths = {name: find_image(roots, (f"{name}.png", name, f"{name}.jpg")) for name in names}
    report_missing("winoground", sorted(k for k, v in paths.items() if v is None), roots)
    items = []
    for place, row in rows:
        rng = row_random("winoground", seed, row.get("id", place))
        correct = rng.randrange(2)
        texts = (row["caption_0"], row["caption_1"])
        pictures = tuple(Picture(name, paths[name]) for name in (str(row[k]) for k in KEYS[:2]))
        kind = str(row.get("collapsed_tag") or row.get("tag") or "untagged")
        ordered = texts if correct == 0 else texts[::-1]
        items.append(Item(pictures, ordered, correct, kind, rng.randrange(2**31)))
    return PictureTask("winoground", tuple(items), fit)
