"""ComVG: one sentence, two pictures, which differ in subject, verb or object.

The benchmark of He et al., arXiv 2305.10722: a csv with the columns id, sentence, pos_triplet,
neg_triplet, pos_image_id, neg_image_id, neg_value; pictures are Visual Genome's `<image id>.jpg`.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dsd_tutorial.datasets.images import ImageFile, ImageTask
from dsd_tutorial.datasets.sources import find_file, find_image, report_missing, row_random, some
from dsd_tutorial.shapes.task_items import Item

FILE = "compositional_visual_genome.csv"
KINDS = ("subject", "object", "verb")
COLUMNS = (
    "id", "sentence", "pos_triplet", "neg_triplet", "pos_image_id", "neg_image_id", "neg_value",
)  # fmt: skip


class Row(NamedTuple):
    """One line of the csv; triplets are (subject, verb, object)."""

    id: int
    sentence: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    positive_image: int
    negative_image: int
    kind: str


def comvg_rows(path: Path | str) -> list[Row]:
    """Return the rows of the official csv (the file, or the folder it is in); no picture is needed.

    Raises MissingDataError without the file, ValueError, with the line, for another format.
    """
    file = find_file("comvg", path, (FILE,))
    with open(file, newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        lacking = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if lacking:
            raise ValueError(
                f"{file} has no column {', '.join(lacking)}; need {', '.join(COLUMNS)}"
            )
        return [_row(values, file, reader.line_num) for values in reader]


def _row(values: dict[str, str], file: Path, line: int) -> Row:
    try:
        row = Row(
            int(values["id"]),
            values["sentence"].strip(),
            _triplet(values["pos_triplet"]),
            _triplet(values["neg_triplet"]),
            int(values["pos_image_id"]),
            int(values["neg_image_id"]),
            values["neg_value"].strip(),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{file}, line {line}: cannot read {values}: {error}") from None
    if row.kind not in KINDS or not row.sentence:
        raise ValueError(
            f"{file}, line {line}: neg_value {row.kind!r} (one of {', '.join(KINDS)}), sentence "
            f"{row.sentence!r}"
        )
    return row


def _triplet(text: str) -> tuple[str, ...]:
    """Return the words of "man,sit,table" or of "('dog', 'sit', 'table')"."""
    return tuple(part.strip(" '\"") for part in text.strip("() ").split(","))


def read_comvg(
    folder: Path | str,
    *,
    images: Path | str | None = None,
    kinds: Sequence[str] = KINDS,
    n: int | None = None,
    seed: int = 0,
    fit: str = "whole",
) -> ImageTask:
    """Return items of one text and two images, in an order drawn per item from `seed`.

    folder  holds the csv, or is it; images  holds `<id>.jpg`, or VG_100K and VG_100K_2 that do
    (default: the folder of the csv, or `images` in it); n  items drawn at random, None for all.
    Raises MissingDataError for a missing csv or picture, ValueError for an unknown kind.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or not kinds:
        raise ValueError(f"unknown kinds {unknown or kinds}; choose from {', '.join(KINDS)}")
    file = find_file("comvg", folder, (FILE,))
    bases = [Path(images)] if images else [file.parent, file.parent / "images"]
    roots = [base / sub for base in bases for sub in ("", "VG_100K", "VG_100K_2")]
    rows = some([row for row in comvg_rows(file) if row.kind in kinds], n, seed)
    wanted = {number for row in rows for number in (row.positive_image, row.negative_image)}
    paths = {number: find_image(roots, (f"{number}.jpg", f"{number}.png")) for number in wanted}
    report_missing("comvg", [f"{k}.jpg" for k, v in sorted(paths.items()) if v is None], bases)
    pictures = {number: ImageFile(str(number), path) for number, path in paths.items()}
    items = []
    for row in rows:
        rng = row_random("comvg", seed, row.id)
        correct = rng.randrange(2)
        pair = [pictures[row.positive_image], pictures[row.negative_image]]
        ordered = tuple(pair if correct == 0 else pair[::-1])
        items.append(Item(ordered, (row.sentence,), correct, row.kind, rng.randrange(2**31)))
    return ImageTask("comvg", tuple(items), fit)
