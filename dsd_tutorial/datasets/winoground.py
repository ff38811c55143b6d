"""Winoground: two pictures, two captions of the same words (Thrush et al., arXiv 2204.03162).

`examples.jsonl` has one object per line: id, image_0, image_1, caption_0, caption_1,
collapsed_tag, ...; pictures are `images/<image_0>.png`.
"""

from __future__ import annotations

import json
from pathlib import Path

from dsd_tutorial.datasets.images import ImageFile, ImageTask
from dsd_tutorial.datasets.sources import (
    ItemsFileError,
    find_file,
    find_image,
    report_missing,
    row_random,
    some,
)
from dsd_tutorial.shapes.task_items import Item

FILES = ("examples.jsonl", "data/examples.jsonl")
KEYS = ("image_0", "image_1", "caption_0", "caption_1")


def json_lines(file: Path, keys: tuple[str, ...]) -> list[tuple[int, dict]]:
    """Return (line, object) of each object of a jsonl file, in order, lines counted from 1.

    Blank lines are skipped, and a byte-order mark is no part of the first. Raises ItemsFileError,
    with the line, for anything that is no object with these keys, or is not UTF-8.
    """
    rows = []
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ItemsFileError(
                f"{file}, line {number}: not JSON ({error}); write one whole object per line."
            ) from None
        lacking = [key for key in keys if not isinstance(row, dict) or key not in row]
        if lacking:
            raise ItemsFileError(
                f"{file}, line {number}: no {', '.join(lacking)} in it; each line is an object "
                f"with {', '.join(keys)}."
            )
        rows.append((number, row))
    return rows


def _lines(file: Path) -> list[str]:
    """Return the lines of a text file in UTF-8, whatever system wrote it."""
    try:
        stored = file.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise ItemsFileError(
            f"{file} cannot be read ({reason}): give a file you may read."
        ) from None
    try:
        text = stored.decode("utf-8")
    except UnicodeDecodeError as error:
        line = stored.count(b"\n", 0, error.start) + 1
        raise ItemsFileError(
            f"{file}, line {line}: not UTF-8 (byte {error.start} of the file): save it in that "
            "encoding."
        ) from None
    # not splitlines(), which also cuts at U+2028 and others that may stand within a JSON string
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [line.removeprefix("\ufeff") for line in lines]  # also where files were joined


def read_winoground(
    folder: Path | str,
    *,
    images: Path | str | None = None,
    n: int | None = None,
    seed: int = 0,
    fit: str = "whole",
) -> ImageTask:
    """Return items of two images and two texts; the texts' order is drawn per item from `seed`.

    folder  holds examples.jsonl, or is it; images  the pictures (default: `images` beside it).
    In the official file caption_0 always belongs to image_0: as it is, a rule that answers "the
    first" is always right. Raises MissingDataError, or ValueError for another format.
    """
    file = find_file("winoground", folder, FILES)
    roots = [Path(images)] if images else [file.parent / "images", file.parent]
    rows = some(list(enumerate(row for _, row in json_lines(file, KEYS))), n, seed)
    names = {str(row[key]) for _, row in rows for key in KEYS[:2]}
    paths = {name: find_image(roots, (f"{name}.png", name, f"{name}.jpg")) for name in names}
    report_missing("winoground", sorted(k for k, v in paths.items() if v is None), roots)
    items = []
    for place, row in rows:
        rng = row_random("winoground", seed, row.get("id", place))
        correct = rng.randrange(2)
        texts = (row["caption_0"], row["caption_1"])
        pictures = tuple(ImageFile(name, paths[name]) for name in (str(row[k]) for k in KEYS[:2]))
        kind = str(row.get("collapsed_tag") or row.get("tag") or "untagged")
        ordered = texts if correct == 0 else texts[::-1]
        items.append(Item(pictures, ordered, correct, kind, rng.randrange(2**31)))
    return ImageTask("winoground", tuple(items), fit)
