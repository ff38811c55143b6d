"""Where the files of a benchmark come from, and what to say when one of them is not there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsd_tutorial.saving import expanded

SOURCES = {
    "comvg": (
        "the csv is in github.com/eric-ai-lab/DSD; the pictures are Visual Genome's "
        "(homes.cs.washington.edu/~ranjay/visualgenome: VG_100K and VG_100K_2)"
    ),
    "refcocog": (
        "refs(google).p and instances.json come with github.com/lichengunc/refer (refcocog.zip); "
        "the pictures are COCO's train2014 (cocodataset.org)"
    ),
    "vqav2": (
        "questions and annotations are at visualqa.org/download; the pictures are COCO's "
        "train2014 or val2014 (cocodataset.org)"
    ),
    "winoground": (
        "examples.jsonl and images.zip are at huggingface.co/datasets/facebook/winoground, after "
        "accepting its terms; unpack the zip beside the jsonl"
    ),
    "folder": "write items.jsonl yourself: see dsd_tutorial.datasets.own",
}


class MissingDataError(FileNotFoundError):
    """A file of a benchmark is not where it was looked for; nothing is ever downloaded."""


class ItemsFileError(ValueError):
    """A file of items, or one line of it, cannot be used; the message names both and says why."""


def inside(path: Path, folder: Path) -> Path | None:
    """Return where `path` really lies, all links followed, or None if that is not in `folder`.

    Nothing is opened to find out.
    """
    try:
        real = path.resolve()
        return real if real.is_relative_to(folder.resolve()) else None
    except (OSError, RuntimeError, ValueError):  # links in a circle, no name of a file at all
        return None


def find_file(dataset: str, folder: Path | str, names: Sequence[str]) -> Path:
    """Return the first of `folder`/`names` that exists; `folder` may be the file itself.

    Raises MissingDataError with the folder, the names and where the file is to be had.
    """
    folder = expanded(folder)
    if folder.is_file():
        return folder
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise MissingDataError(
        f"{dataset}: no {' or '.join(names)} in {folder.absolute()}. {_where(dataset)}"
    )


def find_image(roots: Sequence[Path], names: Sequence[str]) -> Path | None:
    """Return the first existing root/name, or None."""
    return next((r / n for r in roots for n in names if (r / n).is_file()), None)


def report_missing(dataset: str, lacking: Sequence[str], roots: Sequence[Path]) -> None:
    """Raise MissingDataError if `lacking` names any picture; the first three are said."""
    if not lacking:
        return
    first = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
    looked = ", ".join(str(root.absolute()) for root in roots)
    raise MissingDataError(
        f"{dataset}: {len(lacking)} picture(s) missing ({first}); looked in {looked}. "
        f"{_where(dataset)}"
    )


def row_random(dataset: str, seed: int, row: Any) -> random.Random:
    """Return the generator of one row: it does not depend on which other rows are read."""
    return random.Random(f"{dataset} {seed} {row}")


def some(rows: Sequence[Any], n: int | None, seed: int) -> list[Any]:
    """Return `n` rows in a seeded order, or all in the order of the file (None).

    With the same seed more rows begin with the fewer. Raises ValueError for n out of range.
    """
    if n is None:
        return list(rows)
    if not 1 <= n <= len(rows):
        raise ValueError(f"n = {n}: this source can form 1 to {len(rows)} items; None takes all")
    mixed = list(range(len(rows)))
    random.Random(f"rows {seed}").shuffle(mixed)
    return [rows[i] for i in mixed[:n]]


def _where(dataset: str) -> str:
    return f"Where to get it: {SOURCES[dataset]}."
