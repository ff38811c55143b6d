"""What all readers share: files and where they come from, lines of a jsonl, draws by seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dsd_tutorial.datasets.images import ImageFile, MissingDataError
from dsd_tutorial.saving import expanded

SOURCES = {
    "comvg": (
        "the csv is in github.com/eric-ai-lab/DSD; the images are Visual Genome's "
        "(homes.cs.washington.edu/~ranjay/visualgenome: VG_100K and VG_100K_2)"
    ),
    "refcocog": (
        "refs(google).p and instances.json come with github.com/lichengunc/refer (refcocog.zip); "
        "the images are COCO's train2014 (cocodataset.org)"
    ),
    "vqav2": (
        "questions and annotations are at visualqa.org/download; the images are COCO's "
        "train2014 or val2014 (cocodataset.org)"
    ),
    "winoground": (
        "examples.jsonl and images.zip are at huggingface.co/datasets/facebook/winoground, after "
        "accepting its terms; unpack the zip beside the jsonl"
    ),
    "folder": "write items.jsonl yourself: see dsd_tutorial.datasets.own",
}
Thing = TypeVar("Thing")


class ItemsFileError(ValueError):
    """A file of items, or one line of it, cannot be used; the message names both and says why."""


def find_file(dataset: str, folder: Path | str, names: Sequence[str]) -> Path:
    """The first of `folder`/`names` that exists; `folder` may be the file itself.

    Raises:
        MissingDataError: there is none; folder and names are told, and where to get the file.
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


def find_images(
    dataset: str, roots: Sequence[Path], names: Mapping[str, Sequence[str]]
) -> dict[str, ImageFile]:
    """Each image of `names`, at the first existing root/name.

    Raises:
        MissingDataError: some are not there.
    """
    paths = {
        image: next((r / n for r in roots for n in files if (r / n).is_file()), None)
        for image, files in names.items()
    }
    report_missing(dataset, [names[image][0] for image, path in paths.items() if not path], roots)
    return {image: ImageFile(image, path) for image, path in paths.items() if path}


def report_missing(dataset: str, lacking: Sequence[str], roots: Sequence[Path]) -> None:
    """Raise MissingDataError if `lacking` names any image; the first three are said."""
    if lacking:
        first = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        looked = ", ".join(str(root.absolute()) for root in roots)
        raise MissingDataError(
            f"{dataset}: {len(lacking)} image(s) missing ({first}); looked in {looked}. "
            f"{_where(dataset)}"
        )


def _where(dataset: str) -> str:
    return f"Where to get it: {SOURCES[dataset]}."


def json_lines(file: Path, keys: tuple[str, ...]) -> list[tuple[int, dict[str, Any]]]:
    """The number, from 1, and the object of each line of a jsonl file that is not blank.

    Raises:
        ItemsFileError: a line is no object with these keys, or the file is not UTF-8.
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
    """The lines of a text file in UTF-8, whatever system wrote it."""
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise ItemsFileError(
            f"{file} cannot be read ({reason}): give a file you may read."
        ) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ItemsFileError(
            f"{file}, line {line}: not UTF-8 (byte {error.start} of the file): save it in that "
            "encoding."
        ) from None
    # not splitlines(), which also cuts at U+2028 and others that may stand within a JSON string
    lines = text.split("\n")
    return [line.removeprefix("\ufeff") for line in lines]  # also where files were joined


def row_random(dataset: str, seed: int, row: object) -> random.Random:
    """The generator of one row: it does not depend on which other rows are read."""
    return random.Random(f"{dataset} {seed} {row}")


def some(rows: Sequence[Thing], n: int | None, seed: int) -> list[Thing]:
    """`n` rows in a seeded order, the fewer the first of the more; None: all as they stand.

    Raises:
        ValueError: n is out of range.
    """
    if n is None:
        return list(rows)
    if not 1 <= n <= len(rows):
        raise ValueError(f"n = {n}: this source can form 1 to {len(rows)} items; None takes all")
    mixed = list(range(len(rows)))
    random.Random(f"rows {seed}").shuffle(mixed)
    return [rows[i] for i in mixed[:n]]


def shuffled(pool: Sequence[Thing], rng: random.Random, most: int) -> Iterable[Thing]:
    """A small pool once in random order, `most` even draws of a large one."""
    if len(pool) <= most:
        return rng.sample(pool, len(pool))
    return (rng.choice(pool) for _ in range(most))


def distinct(
    candidates: Iterable[Thing],
    number: int,
    barred: Iterable[Hashable],
    key: Callable[[Thing], Hashable],
    what: str,
) -> list[Thing]:
    """The first `number` candidates with keys that differ and are not barred; `what` is for errors.

    Raises:
        ValueError: there are fewer.
    """
    found: list[Thing] = []
    seen = set(barred)
    for candidate in candidates:
        if key(candidate) not in seen:
            seen.add(key(candidate))
            found.append(candidate)
        if len(found) == number:
            return found
    raise ValueError(
        f"only {len(found)} {what}; {number} are needed: give fewer candidates, or read another "
        "split"
    )
