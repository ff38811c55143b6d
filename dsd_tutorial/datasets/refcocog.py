"""RefCOCOg as matching: one picture, ten referring expressions, one of which is its own.

The official files of the refer toolkit: `refs(google).p`, a pickle of a list of dictionaries
(ref_id, ann_id, image_id, category_id, split, sentences), and `instances.json` in COCO's format.
A pickle can run any code; here it is read by an Unpickler that refuses every global name, which
these files do not need: they hold lists, dictionaries, strings and numbers.

Which expressions compete is *ours*: the sources at hand do not say it.
"""

from __future__ import annotations

import json
import pickle
import random
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from dsd_tutorial.datasets.images import ImageFile, ImageTask
from dsd_tutorial.datasets.sources import find_file, find_image, report_missing, row_random, some
from dsd_tutorial.saving import expanded
from dsd_tutorial.shapes.task_items import Item

REFS = ("refs(google).p", "refs(umd).p")
VIEWS = {
    "image": "the whole picture; rivals describe objects of *other* pictures (same category first)",
    "object": "the object's box; rivals describe other objects of the same picture first",
}
_TRIES = 50  # draws of rivals per wanted one from the whole split, before giving up


class PlainUnpickler(pickle.Unpickler):
    """Reads lists, dictionaries, strings, numbers; refuses anything that would run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Raise UnpicklingError: no global is allowed."""
        raise pickle.UnpicklingError(
            f"this pickle wants to load {module}.{name}; a file of RefCOCOg needs no such name, so "
            "it is not what it claims to be. Nothing of it was run: fetch it again from its source"
        )


def read_refs(file: Path | str) -> list[dict[str, Any]]:
    """Return the references of `refs(google).p` (or a folder with it) without running any code.

    Raises MissingDataError, UnpicklingError for a global name, ValueError for another content.
    """
    file = find_file("refcocog", file, REFS)
    with open(file, "rb") as stream:
        # written by Python 2: its byte strings are read as text
        refs = PlainUnpickler(stream, encoding="latin1").load()
    needed = ("ref_id", "ann_id", "image_id", "category_id", "split", "sentences")
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise ValueError(f"{file}: expected a list of dictionaries, not {type(refs).__name__}")
    lacking = [key for key in needed if any(key not in ref for ref in refs)]
    if lacking:
        raise ValueError(f"{file}: references without {', '.join(lacking)}")
    return refs


def read_refcocog(
    folder: Path | str,
    *,
    images: Path | str | None = None,
    split: str = "val",
    view: str = "image",
    candidates: int = 10,
    n: int | None = None,
    seed: int = 0,
    fit: str = "whole",
) -> ImageTask:
    """Return items of one image and `candidates` texts, the right one at a seeded place.

    folder  holds refs(google).p and instances.json; images  COCO's pictures (default: `images`,
    `train2014` or the folder itself); view  one of `VIEWS`. A rival's expression may by chance
    hold of the picture too: it is known to be *another object's*, no more.
    Raises MissingDataError, or ValueError for an unknown split or view or too few expressions.
    """
    if view not in VIEWS:
        raise ValueError(f"unknown view {view!r}; choose one of {', '.join(VIEWS)}")
    folder = expanded(folder)
    all_refs = read_refs(folder)
    refs = [ref for ref in all_refs if ref["split"] == split and ref["sentences"]]
    if not refs:
        known = ", ".join(sorted({str(ref["split"]) for ref in all_refs}))
        raise ValueError(f"no references in split {split!r}; this file has {known}")
    stored = json.loads(find_file("refcocog", folder, ("instances.json",)).read_text("utf-8"))
    files = {entry["id"]: entry["file_name"] for entry in stored["images"]}
    boxes = {entry["id"]: entry["bbox"] for entry in stored["annotations"]}
    roots = [Path(images)] if images else [folder / s for s in ("images", "train2014", "")]
    chosen = some(refs, n, seed)
    rivals = _Rivals(refs, view)
    paths = {r["image_id"]: find_image(roots, (files[r["image_id"]],)) for r in chosen}
    report_missing("refcocog", [files[i] for i, p in paths.items() if p is None], roots)
    items = []
    for ref in chosen:
        rng = row_random("refcocog", seed, ref["ref_id"])
        own = rng.choice(ref["sentences"])["sent"]
        texts = [own, *rivals.draw(ref, own, candidates - 1, rng)]
        order = rng.sample(range(candidates), candidates)
        left, top, width, height = boxes[ref["ann_id"]]
        box = (left, top, left + width, top + height) if view == "object" else None
        picture = ImageFile(files[ref["image_id"]], paths[ref["image_id"]], box)
        mixed = tuple(texts[i] for i in order)
        items.append(Item((picture,), mixed, order.index(0), view, rng.randrange(2**31)))
    return ImageTask("refcocog", tuple(items), fit)


class _Rivals:
    """Finds expressions that belong to other objects than a reference's own."""

    def __init__(self, refs: list[dict[str, Any]], view: str):
        self.refs, self.view = refs, view
        self.by_image, self.by_category = defaultdict(list), defaultdict(list)
        for ref in refs:
            self.by_image[ref["image_id"]].append(ref)
            self.by_category[ref["category_id"]].append(ref)

    def draw(self, ref: dict[str, Any], own: str, number: int, rng: random.Random) -> list[str]:
        """Return `number` distinct expressions, none of which is said of the same object.

        For the whole picture, none of the same picture.
        """
        same = self.by_image[ref["image_id"]]
        mine = [r for r in same if self.view == "image" or r["ann_id"] == ref["ann_id"]]
        barred = {_plain(s["sent"]) for r in mine for s in r["sentences"]} | {_plain(own)}
        found: list[str] = []
        for rival in self._order(ref, rng, number):
            if rival["ann_id"] == ref["ann_id"]:
                continue
            text = rng.choice(rival["sentences"])["sent"]
            if _plain(text) not in barred:
                barred.add(_plain(text))
                found.append(text)
            if len(found) == number:
                return found
        raise ValueError(
            f"only {len(found)} expressions compete with {own!r}; {number} are needed: give fewer "
            "candidates, or another split"
        )

    def _order(
        self, ref: dict[str, Any], rng: random.Random, number: int
    ) -> Iterator[dict[str, Any]]:
        """Yield the hardest rivals first, each kind in random order."""
        mixed = partial(_shuffled, rng=rng)
        if self.view == "object":
            yield from mixed(self.by_image[ref["image_id"]])
        yield from mixed(self.by_category[ref["category_id"]])
        if len(self.refs) <= _TRIES * number:
            yield from mixed(self.refs)
        else:
            yield from (rng.choice(self.refs) for _ in range(_TRIES * number))


def _shuffled(refs: list[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    return rng.sample(refs, len(refs))


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")
