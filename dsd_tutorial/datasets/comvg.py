"""ComVG: one sentence, two images, which differ in subject, verb or object.

The benchmark of He et al., arXiv 2305.10722: a csv with the columns id, sentence, pos_triplet,
neg_triplet, pos_image_id, neg_image_id, neg_value; images are Visual Genome's `<image id>.jpg`.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from dsd_tutorial.datasets.images import ImageTask
from dsd_tutorial.datasets.sources import find_file, find_images, row_random, some
from dsd_tutorial.shapes.scene import check_known
from dsd_tutorial.shapes.task_items import Item

FILE = "compositional_visual_genome.csv"
KINDS = ("subject", "object", "verb")


class Row(BaseModel, str_strip_whitespace=True):
    """One line of the csv; images are numbers of Visual Genome."""

    id: int
    sentence: str = Field(min_length=1)
    positive: int = Field(alias="pos_image_id")
    negative: int = Field(alias="neg_image_id")
    kind: Literal["subject", "object", "verb"] = Field(alias="neg_value")


def comvg_rows(file: Path) -> list[Row]:
    """The rows of the official csv.

    Raises:
        ValueError: the file has another format; the line is named.
    """
    with open(file, newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        return [_row(values, f"{file}, line {reader.line_num}") for values in reader]


def _row(values: dict[str, str], where: str) -> Row:
    try:
        return Row.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        column, said = first["loc"][0], f"{first['input']!r:.80}: {first['msg']}"
        wrong = f"no column {column}" if first["type"] == "missing" else f"{column} is {said}"
        raise ValueError(f"{where}: {wrong}") from None


def read_comvg(
    folder: Path | str,
    *,
    images: Path | str | None = None,
    kinds: Sequence[str] = KINDS,
    n: int | None = None,
    seed: int = 0,
) -> ImageTask:
    """Items of one text and two images that differ in one of `kinds`.

    `images` (by default the folder of the csv, or `images` in it) holds `<id>.jpg`, or VG_100K and
    VG_100K_2 that do.
    """
    for kind in kinds:
        check_known("kind", kind, KINDS)
    file = find_file("comvg", folder, (FILE,))
    bases = [Path(images)] if images else [file.parent, file.parent / "images"]
    roots = [base / sub for base in bases for sub in ("", "VG_100K", "VG_100K_2")]
    rows = some([row for row in comvg_rows(file) if row.kind in kinds], n, seed)
    wanted = sorted({number for row in rows for number in (row.positive, row.negative)})
    names = {str(number): (f"{number}.jpg", f"{number}.png") for number in wanted}
    found = find_images("comvg", roots, names)
    items = []
    for row in rows:
        rng = row_random("comvg", seed, row.id)
        correct = rng.randrange(2)
        pair = found[str(row.positive)], found[str(row.negative)]
        ordered = pair if correct == 0 else pair[::-1]
        items.append(Item(ordered, (row.sentence,), correct, row.kind, rng.randrange(2**31)))
    return ImageTask("comvg", tuple(items))
