"""Your own data: a folder of images, or a folder with matching items in an `items.jsonl`.

    {"images": ["dog.jpg", "cat.jpg"], "texts": ["a dog on a sofa"], "correct": 0}
    {"images": ["desk.png"], "texts": ["two cups", "three cups"], "correct": 1, "kind": "number"}

All lines of one file have the same number of images and of texts. `correct` counts images where
one text is given, texts where one image is; with two of each, text `correct` belongs to image 0.

The file is UTF-8, with or without a byte-order mark; blank lines and fields of your own are left
alone. Images are named relative to the folder, subfolders included, with `/`. Nothing outside the
folder is opened: a name with `..`, an absolute one, a link that leads out are refused. All lines
are checked, images only when they are used. Any stored mode will do: see `images.open_image`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.datasets.images import (
    ImageFile,
    ImageFileError,
    ImageTask,
    MissingDataError,
    inside,
    is_file,
    open_image,
)
from dsd_tutorial.datasets.sources import (
    ItemsFileError,
    find_file,
    json_lines,
    report_missing,
    row_random,
    some,
)
from dsd_tutorial.saving import expanded
from dsd_tutorial.shapes.task_items import Item
from dsd_tutorial.stable_diffusion.pixels import to_tensor

FILE = "items.jsonl"
FINER = 4  # an image is first reduced to about so many times the side that is wanted


class Row(NamedTuple):
    """One checked line; `images` are names relative to the folder, one for each file."""

    line: int
    images: tuple[str, ...]
    texts: tuple[str, ...]
    correct: int
    kind: str

    @property
    def form(self) -> tuple[int, int]:
        """Number of images, number of texts."""
        return len(self.images), len(self.texts)


def read_folder(folder: Path | str, *, n: int | None = None, seed: int = 0) -> ImageTask:
    """The items of `folder`/items.jsonl.

    An image that cannot be read raises ImageFileError when it is used, with the line that names it.

    Raises:
        MissingDataError: the file or an image is not there.
        ItemsFileError: a line is no item, names a place outside the folder, or repeats another.
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
    lacking = {p.name: p for item in items for p in item.images if not is_file(p.path)}
    report_missing("folder", [f"{k} ({p.origin})" for k, p in sorted(lacking.items())], [home])
    return ImageTask(home.name, tuple(items))


def _row(line: int, row: dict[str, Any], file: Path) -> Row:
    """The line, after checking each value by itself."""
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
    """The one name of an image in the folder, relative to it, however it was written."""
    remedy = f"nothing outside {folder} is opened: copy the image there and name it from there."
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
    """Raise ItemsFileError for lines of different forms, or of the same images and texts."""
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
                f"{file}, line {row.line}: the same images and texts as line {first.line}, which "
                "would count twice; delete one of the two lines."
            )


def _item(row: Row, number: int, home: Path, seed: int, file: str) -> Item:
    rng = row_random("folder", seed, number)
    order = rng.sample(range(max(row.form)), max(row.form))
    origin = f"{file}, line {row.line}"
    images = tuple(ImageFile(name, home / name, within=home, origin=origin) for name in row.images)
    texts = row.texts
    if row.form[1] > 1:
        texts = tuple(texts[i] for i in order)
    else:
        images = tuple(images[i] for i in order)
    return Item(images, texts, order.index(row.correct), row.kind, rng.randrange(2**31))


@dataclass(frozen=True, eq=False)
class OwnImages:
    """Images in [0, 1] with their file names, and file -> why it was skipped.

    `left` counts files that were not read because enough had been.
    """

    images: Float[Tensor, "images 3 side side"]
    names: tuple[str, ...]
    skipped: dict[str, str]
    left: int = 0

    def __str__(self) -> str:
        more = f" ({self.left} more not read)" if self.left else ""
        said = [f"{len(self.names)} images{more}"]
        said += [f"skipped: {name} ({why})" for name, why in self.skipped.items()]
        return "; ".join(said)


def read_images(folder: str | Path, side: int, most: int | None = None) -> OwnImages:
    """The images of a folder by name, reduced to `side` pixels and cropped to a central square.

    Args:
        folder: subfolders and hidden files are left alone; no link is followed out of it.
        side: pixels of height and width.
        most: how many are read at most.

    Raises:
        ValueError: there is no such folder, or no file can be read; each is named with its fault.
    """
    found = expanded(folder)
    if not found.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r}")
    try:
        files = sorted(p for p in found.iterdir() if not p.name.startswith(".") and not p.is_dir())
    except OSError as error:
        raise ValueError(
            f"the folder {str(folder)!r} cannot be read ({error.strerror}): give another"
        ) from None
    images: dict[str, Tensor] = {}
    skipped: dict[str, str] = {}
    for path in files:
        if most is not None and len(images) >= most:
            break
        try:
            image = open_image(path, within=found, least=FINER * side)
        except ImageFileError as error:
            skipped[path.name] = error.why
        except MissingDataError:
            skipped[path.name] = "no file, or a link to nothing"
        else:
            images[path.name] = to_tensor(image, side)
    if not images:
        faults = "; ".join(f"{name}: {why}" for name, why in skipped.items()) or "it is empty"
        raise ValueError(f"no image could be read in {str(folder)!r}: {faults}")
    left = len(files) - len(images) - len(skipped)
    return OwnImages(torch.cat(list(images.values())), tuple(images), skipped, left)
