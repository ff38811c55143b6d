"""RefCOCOg as matching: one image, ten referring expressions, one of which is its own.

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
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsd_tutorial.datasets.images import ImageFile, ImageTask
from dsd_tutorial.datasets.sources import (
    distinct,
    find_file,
    find_images,
    row_random,
    shuffled,
    some,
)
from dsd_tutorial.saving import expanded
from dsd_tutorial.shapes.scene import check_known
from dsd_tutorial.shapes.task_items import Item

REFS = ("refs(google).p", "refs(umd).p")
KEYS = ("ref_id", "ann_id", "image_id", "category_id", "split", "sentences")
VIEWS = {
    "image": "the whole image; rivals describe objects of *other* images (same category first)",
    "object": "the object's box; rivals describe other objects of the same image first",
}
_TRIES = 50  # draws of rivals per wanted one from the whole split, before giving up
Ref = dict[str, Any]


class PlainUnpickler(pickle.Unpickler):
    """Reads lists, dictionaries, strings, numbers; refuses anything that would run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Raise UnpicklingError: no global is allowed."""
        raise pickle.UnpicklingError(
            f"this pickle wants to load {module}.{name}; a file of RefCOCOg needs no such name, so "
            "it is not what it claims to be. Nothing of it was run: fetch it again from its source"
        )


def read_refs(folder: Path, split: str) -> list[Ref]:
    """The references of a split that have sentences.

    Raises:
        pickle.UnpicklingError: the pickle would run code.
        ValueError: it holds something else, or no such split.
    """
    all_refs = _read_refs(folder)
    refs = [ref for ref in all_refs if ref["split"] == split and ref["sentences"]]
    if not refs:
        known = ", ".join(sorted({str(ref["split"]) for ref in all_refs}))
        raise ValueError(f"no references in split {split!r}; this file has {known}")
    return refs


def read_split(
    folder: Path | str, images: Path | str | None, split: str, n: int | None, seed: int
) -> tuple[list[Ref], list[tuple[Ref, ImageFile]], dict[str, Any]]:
    """All references of a split, `n` of them drawn, with their images, and `instances.json`.

    Images lie in `images`, else in `images`, `train2014` or the folder itself.
    """
    folder = expanded(folder)
    refs = read_refs(folder, split)
    stored = json.loads(find_file("refcocog", folder, ("instances.json",)).read_text("utf-8"))
    names = {entry["id"]: entry["file_name"] for entry in stored["images"]}
    chosen = some(refs, n, seed)
    roots = [Path(images)] if images else [folder / s for s in ("images", "train2014", "")]
    wanted = [names[ref["image_id"]] for ref in chosen]
    found = find_images("refcocog", roots, {name: (name,) for name in wanted})
    return refs, [(ref, found[name]) for ref, name in zip(chosen, wanted, strict=True)], stored


def _read_refs(folder: Path) -> list[Ref]:
    file = find_file("refcocog", folder, REFS)
    with open(file, "rb") as stream:
        # written by Python 2: its byte strings are read as text
        refs = PlainUnpickler(stream, encoding="latin1").load()
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise ValueError(f"{file}: expected a list of dictionaries, not {type(refs).__name__}")
    lacking = [key for key in KEYS if any(key not in ref for ref in refs)]
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
) -> ImageTask:
    """Items of one image and `candidates` texts; `view` is one of `VIEWS`.

    A rival's expression may by chance hold of the image too: it is known to be *another object's*,
    no more. Images lie in `images`, `train2014` or the folder itself.

    Raises:
        pickle.UnpicklingError: the pickle would run code.
        ValueError: split or view are unknown, or there are too few expressions.
    """
    check_known("view", view, VIEWS)
    refs, drawn, stored = read_split(folder, images, split, n, seed)
    boxes = {entry["id"]: entry["bbox"] for entry in stored["annotations"]}
    rivals = _Rivals(refs, view)
    items = []
    for ref, image in drawn:
        rng = row_random("refcocog", seed, ref["ref_id"])
        own = rng.choice(ref["sentences"])["sent"]
        texts = [own, *rivals.draw(ref, own, candidates - 1, rng)]
        order = rng.sample(range(candidates), candidates)
        if view == "object":
            left, top, width, height = boxes[ref["ann_id"]]
            image = replace(image, box=(left, top, left + width, top + height))
        mixed = tuple(texts[i] for i in order)
        items.append(Item((image,), mixed, order.index(0), view, rng.randrange(2**31)))
    return ImageTask("refcocog", tuple(items))


class _Rivals:
    """Finds expressions that belong to other objects than a reference's own."""

    def __init__(self, refs: list[Ref], view: str):
        self.refs, self.view = refs, view
        self.by_image, self.by_category = defaultdict(list), defaultdict(list)
        for ref in refs:
            self.by_image[ref["image_id"]].append(ref)
            self.by_category[ref["category_id"]].append(ref)

    def draw(self, ref: Ref, own: str, number: int, rng: random.Random) -> list[str]:
        """Distinct expressions of other objects; for the whole image, of other images."""
        same = self.by_image[ref["image_id"]]
        mine = [r for r in same if self.view == "image" or r["ann_id"] == ref["ann_id"]]
        barred = {_plain(s["sent"]) for r in mine for s in r["sentences"]} | {_plain(own)}
        others = (r for r in self._order(ref, rng, number) if r["ann_id"] != ref["ann_id"])
        texts = (rng.choice(rival["sentences"])["sent"] for rival in others)
        return distinct(texts, number, barred, _plain, f"expressions compete with {own!r}")

    def _order(self, ref: Ref, rng: random.Random, number: int) -> Iterator[Ref]:
        """Yield the hardest rivals first, each kind in random order."""
        if self.view == "object":
            yield from _all(self.by_image[ref["image_id"]], rng)
        yield from _all(self.by_category[ref["category_id"]], rng)
        yield from shuffled(self.refs, rng, _TRIES * number)


def _all(refs: list[Ref], rng: random.Random) -> list[Ref]:
    return rng.sample(refs, len(refs))


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")
