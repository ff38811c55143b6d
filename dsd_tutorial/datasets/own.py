"""Your own matching items: a folder with pictures and an `items.jsonl`.

    {"images": ["dog.jpg", "cat.jpg"], "texts": ["a dog on a sofa"], "correct": 0}
    {"images": ["desk.png"], "texts": ["two cups", "three cups"], "correct": 1, "kind": "number"}

All lines of one file have the same number of images and of texts. `correct` counts images where
one text is given, texts where one image is; with two of each, text `correct` belongs to image 0.

The file is UTF-8, with or without a byte-order mark; blank lines and fields of your own are left
alone. Images are named relative to the folder, subfolders included, with `/`. Nothing outside the
folder is opened: a name with `..`, an absolute one, a link that leads out are refused. All lines
are checked, pictures only when they are used: their EXIF turns them upright, CMYK and 16 bits
become RGB, of an animation the first frame is taken (see `images.open_image`).
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from dsd_tutorial.datasets.images import ImageFile, ImageTask
from dsd_tutorial.datasets.sources import (
    ItemsFileError,
    find_file,
    inside,
    report_missing,
    row_random,
    some,
)
from dsd_tutorial.datasets.winoground import json_lines
from dsd_tutorial.shapes.task_items import Item

FILE = "items.jsonl"


class Row(NamedTuple):
    """One checked line; `images` are names relative to the folder, one for each file."""

    line: int
    images: tuple[str, ...]
    texts: tuple[str, ...]
    correct: int
    kind: str

    @property
    def form(self) -> tuple[int, int]:
        """Return (number of images, number of texts)."""
        return len(self.images), len(self.texts)


def read_folder(
    folder: Path | str, *, n: int | None = None, seed: int = 0, fit: str = "whole"
) -> ImageTask:
    """Return the items of `folder`/items.jsonl, their candidates in a seeded order.

    Raises MissingDataError for a file or picture that is not there, ItemsFileError, with the line,
    for one that is no item, names a place outside the folder, or repeats another. A picture that
    cannot be read raises ImageFileError when it is used, with the line that names it.
    """
    file = find_file("folder", folder, (FILE,))
    home = file.parent.resolve()
    if inside(file, home) is None:
        raise ItemsFileError(
            f"{file} is a link that leads out of {home}: copy the file into the folder."
        )
    rows = [_row(line, row, file) for line, row in json_lines(file, ("images", "texts", "correct"))]
    if not rows:
        raise ItemsFileError(f"{file} holds no items: write one object per line.")
    _compare(rows, file)
    drawn = some(list(enumerate(rows, 1)), n, seed)
    items = [_item(row, number, home, seed, file.name) for number, row in drawn]
    lacking = {p.name: p for item in items for p in item.images if not _there(p.path)}
    report_missing("folder", [f"{k} ({p.told})" for k, p in sorted(lacking.items())], [home])
    return ImageTask(home.name, tuple(items), fit)


def _there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that may not be entered
        return False


def _row(line: int, row: dict[str, Any], file: Path) -> Row:
    """Return the line after checking each value by itself."""
    where = f"{file}, line {line}"
    for key in ("images", "texts"):
        values = row[key]
        if not isinstance(values, list) or not all(map(_is_text, values)):
            raise ItemsFileError(
                f"{where}: {key} is {values!r:.80}; need a list of texts in quotes, none empty."
            )
    texts, correct, kind = row["texts"], row["correct"], row.get("kind", "own")
    form = (len(row["images"]), len(texts))
    if not (min(form) == 1 and max(form) > 1 or form == (2, 2)):
        raise ItemsFileError(
            f"{where}: {form[0]} images, {form[1]} texts; need one text and several images, one "
            "image and several texts, or two and two."
        )
    if type(correct) is not int or not 0 <= correct < max(form):  # True is an int as well
        raise ItemsFileError(
            f"{where}: correct is {correct!r:.80}; need a whole number from 0 to {max(form) - 1}: "
            "the first candidate is 0."
        )
    if type(kind) is not int and not _is_text(kind):
        raise ItemsFileError(f"{where}: kind is {kind!r:.80}; need a text, or leave it out.")
    images = [_name(name, file.parent, where) for name in row["images"]]
    for key, values in (("images", images), ("texts", texts)):
        twice = [value for i, value in enumerate(values) if value in values[:i]]
        if twice:
            raise ItemsFileError(
                f"{where}: {twice[0]!r:.80} stands twice in {key}, so that no answer is the only "
                "right one; make them differ."
            )
    return Row(line, tuple(images), tuple(texts), correct, str(kind))


def _is_text(value: Any) -> bool:
    """Whether it is a text that says something and, unlike half a surrogate pair, is Unicode."""
    return (
        isinstance(value, str)
        and bool(value.strip())
        and not any("\ud800" <= letter <= "\udfff" for letter in value)
    )


def _name(name: str, folder: Path, where: str) -> str:
    """Return the one name of a picture in the folder, relative to it, however it was written."""
    remedy = f"nothing outside {folder} is opened: copy the picture there and name it from there."
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute():
        raise ItemsFileError(f"{where}: image {name!r:.80} is an absolute path; {remedy}")
    if ".." in PureWindowsPath(name).parts:  # parts at / and at \
        raise ItemsFileError(f"{where}: image {name!r:.80} has .. in it; {remedy}")
    real = inside(folder / name, folder)
    if real is None:
        raise ItemsFileError(
            f"{where}: image {name!r:.80} leads to no place in the folder; {remedy}"
        )
    return real.relative_to(folder.resolve()).as_posix()


def _compare(rows: list[Row], file: Path) -> None:
    """Raise ItemsFileError for lines of different forms, or of the same pictures and texts."""
    seen: dict[Any, Row] = {}
    for row in rows:
        if row.form != rows[0].form:
            raise ItemsFileError(
                f"{file}, line {row.line}: {row.form[0]} images and {row.form[1]} texts, but line "
                f"{rows[0].line} has {rows[0].form[0]} and {rows[0].form[1]}; different forms need "
                "folders of their own."
            )
        first = seen.setdefault((frozenset(row.images), frozenset(row.texts)), row)
        if first is not row:
            raise ItemsFileError(
                f"{file}, line {row.line}: the same pictures and texts as line {first.line}, which "
                "would count twice; delete one of the two lines."
            )


def _item(row: Row, number: int, home: Path, seed: int, file: str) -> Item:
    rng = row_random("folder", seed, number)
    order = rng.sample(range(max(row.form)), max(row.form))
    told = f"{file}, line {row.line}"
    pictures = [ImageFile(name, home / name, within=home, told=told) for name in row.images]
    texts = row.texts
    if row.form[1] > 1:
        texts = tuple(texts[i] for i in order)
    else:
        pictures = [pictures[i] for i in order]
    correct = order.index(row.correct)
    return Item(tuple(pictures), texts, correct, row.kind, rng.randrange(2**31))
