"""RefCOCOg as grounding: an image, a referring expression, and the boxes among which it chooses.

    for item in read_refcocog_boxes("~/data/refcocog", n=100, proposals="dets.json"):
        found = ground(model, item.load(), item.boxes, item.text)
        right += item.overlap(found.box) >= 0.5

Boxes come from a file of a detector's, or are the annotated objects of the image, which makes the
task easier than it is: the right box is always among them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, tensor

from dsd_tutorial.datasets.images import ImageFile
from dsd_tutorial.datasets.refcocog import read_split
from dsd_tutorial.datasets.sources import ItemsFileError, find_file, row_random
from dsd_tutorial.grounding import iou
from dsd_tutorial.stable_diffusion.pixels import to_tensor

KEYS = ("bbox", "box")  # COCO's word, and that of the detections that come with MAttNet


@dataclass(frozen=True, eq=False)
class BoxedItem:
    """One expression and the boxes it may mean, as fractions of the image.

    Attributes:
        image: The file.
        text: The expression.
        boxes: (boxes, 4), left, top, right, bottom.
        truth: (4,), the box that is meant.
    """

    image: ImageFile
    text: str
    boxes: Float[Tensor, "boxes 4"] = field(repr=False)
    truth: Float[Tensor, 4] = field(repr=False)

    def load(self) -> Float[Tensor, "3 height width"]:
        """Return the image in [0, 1], at its own size."""
        return to_tensor(self.image.open())[0]

    def overlap(self, box: Float[Tensor, 4]) -> float:
        """Return the IoU of a box with the true one; 0.5 counts as found."""
        return float(iou(box[None], self.truth[None]))


def read_refcocog_boxes(
    folder: Path | str,
    *,
    images: Path | str | None = None,
    split: str = "val",
    proposals: Path | str | None = None,
    n: int | None = None,
    seed: int = 0,
) -> list[BoxedItem]:
    """Return one item for each reference of a split, with one of its sentences.

    `proposals` is a JSON file: {image id: [[left, top, width, height], ...]} in pixels, or a list
    of {"image_id": ..., "bbox": [...]} as COCO's results have it ("box" will do). None takes all
    annotated objects of the image. All else is as in `read_refcocog`.

    Raises:
        MissingDataError: a file is not there.
        ItemsFileError: the proposals have another form, or none for an image.
        ValueError: the split is unknown, or n out of range.
    """
    _, drawn, stored = read_split(folder, images, split, n, seed)
    entries = {entry["id"]: entry for entry in stored["images"]}
    annotated = {entry["id"]: entry["bbox"] for entry in stored["annotations"]}
    if proposals is None:
        known = _by_image((e["image_id"], e["bbox"]) for e in stored["annotations"])
    else:
        known = read_proposals(proposals)
    items = []
    for ref, image in drawn:
        entry = entries[ref["image_id"]]
        boxes = [_fraction(box, entry) for box in known.get(str(entry["id"]), ())]
        boxes = [box for box in boxes if box is not None]
        truth = _fraction(annotated[ref["ann_id"]], entry)
        if not boxes or truth is None:
            raise ItemsFileError(
                f"{proposals or folder}: no box within image {entry['id']} ({image.name}); give a "
                "file with proposals for every image, or a smaller n"
            )
        text = row_random("refcocog", seed, ref["ref_id"]).choice(ref["sentences"])["sent"]
        items.append(BoxedItem(image, text, tensor(boxes), tensor(truth)))
    return items


def read_proposals(file: Path | str) -> dict[str, list[Sequence[float]]]:
    """Return image id -> boxes (left, top, width, height in pixels), from either form of the file.

    Raises:
        ItemsFileError: it is no JSON, or of neither form.
    """
    file = find_file("refcocog", file, ("proposals.json",))
    try:
        stored: Any = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ItemsFileError(f"{file}: not JSON ({error})") from None
    try:
        if isinstance(stored, dict):
            pairs = [(image, box) for image, boxes in stored.items() for box in boxes]
        else:
            pairs = [(d["image_id"], next(d[k] for k in KEYS if k in d)) for d in stored]
        return _by_image((i, [float(v) for v in box[:4]]) for i, box in pairs if len(box) >= 4)
    except (KeyError, StopIteration, TypeError, ValueError):
        raise ItemsFileError(
            f'{file}: need {{"image id": [[left, top, width, height], ...]}} in pixels, or a list '
            'of {"image_id": ..., "bbox": [...]}'
        ) from None


def _by_image(pairs: Any) -> dict[str, list[Sequence[float]]]:
    found = defaultdict(list)
    for image, box in pairs:
        found[str(image)].append(box)
    return dict(found)


def _fraction(box: Sequence[float], entry: dict[str, Any]) -> list[float] | None:
    """A box in pixels as fractions of its image, cut to it; None if nothing is left."""
    left, top, width, height = box
    across, down = entry["width"], entry["height"]
    x = [min(max(v / across, 0.0), 1.0) for v in (left, left + width)]
    y = [min(max(v / down, 0.0), 1.0) for v in (top, top + height)]
    return [x[0], y[0], x[1], y[1]] if x[0] < x[1] and y[0] < y[1] else None
