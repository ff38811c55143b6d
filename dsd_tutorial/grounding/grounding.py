"""A phrase chooses among boxes: by prediction error, by attention, or by CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.grounding.boxes import Boxes, check_boxes, pair_masks
from dsd_tutorial.grounding.heat import box_heat, gain_map, phrase_heat
from dsd_tutorial.grounding.isolations import crop_boxes, isolation_errors, mask_boxes

ISOLATIONS = ("crop", "mask")
MARGIN = 0.25  # of crops: things in training images did not touch the edge
Image = Float[Tensor, "3 height width"]


@dataclass(frozen=True, eq=False)
class Grounding:
    """Boxes, and how well each fits the phrase: the highest score wins."""

    boxes: Boxes
    scores: Float[Tensor, " boxes"]

    @property
    def chosen(self) -> int:
        """Return the index of the box that won."""
        return int(self.scores.argmax())

    @property
    def box(self) -> Float[Tensor, 4]:
        """Return the box that won."""
        return self.boxes[self.chosen]


def vote(errors: Float[Tensor, "isolations boxes"]) -> Float[Tensor, " boxes"]:
    """Return minus the sum over isolations of the softmax of errors over boxes (D.1)."""
    return -errors.softmax(dim=1).sum(0)


def isolate(
    image: Image,
    boxes: Boxes,
    side: int,
    isolations: Sequence[str] = ISOLATIONS,
    margin: float = MARGIN,
) -> Float[Tensor, "isolated 3 {side} {side}"]:
    """Return the isolated images, isolation by isolation, then box by box, for the model's `side`.

    Raises:
        ValueError: An isolation that is not in `ISOLATIONS`, or none.
    """
    if not isolations or not set(isolations) <= set(ISOLATIONS):
        raise ValueError(f"isolations={tuple(isolations)}: need some of {', '.join(ISOLATIONS)}")
    ways = {
        "crop": lambda: crop_boxes(image, boxes, side, margin),
        "mask": lambda: fitted(mask_boxes(image, boxes), side),
    }
    return torch.cat([ways[name]() for name in isolations])


def fitted(
    images: Float[Tensor, "images 3 height width"], side: int
) -> Float[Tensor, "images 3 {side} {side}"]:
    """Return whole images at the model's size."""
    if images.shape[-2:] == (side, side):
        return images
    small = F.interpolate(images, (side, side), mode="bicubic", antialias=True)
    return small.clamp(0, 1)


def ground(
    model: Any,
    image: Image,
    boxes: Boxes,
    phrase: str,
    *,
    isolations: Sequence[str] = ISOLATIONS,
    steps: int | Sequence[int] = 10,
    base: bool = False,
    margin: float = MARGIN,
    seed: int = 0,
) -> Grounding:
    """Return the boxes with their votes: the lowest noise-prediction error under the phrase wins.

    Args:
        model: A `StableDiffusion`.
        image: In [0, 1], of any size.
        boxes: As fractions of the image.
        phrase: In the words that the model was trained on; the paper puts "a photo of" in front.
        isolations: "crop", "mask" or both.
        steps: As in `time_grid`.
        base: Whether the error under the empty prompt is taken off, at twice the passes (*ours*):
            images compete for one text, and an image that is easy to predict is so for any text.
        margin: Of crops, as in `crop_boxes`.
        seed: Of the noises, which all boxes share.

    Raises:
        ValueError: Boxes outside [0, 1], or unknown isolations.
    """
    boxes = check_boxes(boxes)
    images = isolate(image, boxes, model.resolution, isolations, margin)
    texts = [phrase, ""] if base else [phrase]
    errors = isolation_errors(model, images, texts, steps=steps, seed=seed)
    means = errors.mean(-1)  # (isolated, texts)
    fits = means[:, 0] - means[:, 1] if base else means[:, 0]
    return Grounding(boxes, vote(fits.view(len(isolations), -1)))


def ground_by_pairs(
    model: Any,
    image: Image,
    boxes: Boxes,
    phrase: str,
    parts: tuple[str, str],
    *,
    steps: int | Sequence[int] = 10,
    margin: float = MARGIN,
    seed: int = 0,
) -> Grounding:
    """Return the boxes by the best partner of each: for phrases with a relation (*ours*).

    An isolated thing shows no relation. So two boxes are left standing, all else painted over, and
    the whole phrase is asked; which of the two is meant, the crops say. The score of box i is the
    largest, over partners j, of gain(i and j, phrase) + gain(crop i, first part) + gain(crop j,
    second part), where gain is the error under the empty prompt minus that under the text.

    `parts` are what a phrase such as "a circle left of a star" says of the box that is meant, and
    of its partner: "a circle", "a star". All else is as in `ground`.

    Raises:
        ValueError: A single box.
    """
    boxes = check_boxes(boxes)
    if len(boxes) < 2:
        raise ValueError("a relation needs at least two boxes; use `ground` for one")
    side, pairs = model.resolution, list(combinations(range(len(boxes)), 2))
    shown = fitted(mask_boxes(image, pair_masks(boxes, *image.shape[-2:])), side)
    crops = crop_boxes(image, boxes, side, margin)
    how = {"steps": steps, "seed": seed}
    together = isolation_errors(model, shown, [phrase, ""], **how).mean(-1)  # (pairs, 2)
    alone = isolation_errors(model, crops, [*parts, ""], **how).mean(-1)  # (boxes, 3)
    return Grounding(boxes, pair_scores(pairs, together, alone))


def pair_scores(
    pairs: Sequence[tuple[int, int]],
    together: Float[Tensor, "pairs 2"],
    alone: Float[Tensor, "boxes 3"],
) -> Float[Tensor, " boxes"]:
    """Return the score of each box with its best partner; last columns are the empty prompt's."""
    gain = together[:, 1] - together[:, 0]
    first, second = (alone[:, 2:] - alone[:, :2]).unbind(1)  # (boxes,) each
    table = torch.full((len(alone), len(alone)), -torch.inf)
    for (i, j), value in zip(pairs, gain, strict=True):
        table[i, j] = value + first[i] + second[j]
        table[j, i] = value + first[j] + second[i]
    return table.max(1).values


def ground_by_attention(
    model: Any, image: Image, boxes: Boxes, phrase: str, *, power: float = 0.5, **how: Any
) -> Grounding:
    """Return the boxes by the attention that the phrase's words give them.

    `power` is that of `box_heat`; the other options are those of `phrase_heat`.
    """
    heat = phrase_heat(model, fitted(image[None], model.resolution), [phrase], **how)[0]
    return Grounding(check_boxes(boxes), box_heat(heat, boxes, power))


def ground_by_gain(
    model: Any, image: Image, boxes: Boxes, phrase: str, *, power: float = 0.5, **how: Any
) -> Grounding:
    """Return the boxes by how much the phrase helps to predict the noise inside them (*ours*).

    `power` is that of `box_heat`; the other options are those of `gain_map`. The whole scene is
    noised once, so the passes do not grow with the boxes.
    """
    gain = gain_map(model, fitted(image[None], model.resolution), [phrase], **how)[0]
    return Grounding(check_boxes(boxes), box_heat(gain, boxes, power))


@torch.no_grad()
def ground_by_clip(
    model: Any, image: Image, boxes: Boxes, phrase: str, *, margin: float = MARGIN
) -> Grounding:
    """Return the boxes by CLIP's cosine between the crop of each and the phrase."""
    boxes = check_boxes(boxes)
    crops = crop_boxes(image, boxes, model.resolution, margin)
    side = F.normalize(model.encode_clip_image(crops).embedding, dim=-1)
    text = F.normalize(model.encode_clip_text([phrase]), dim=-1)
    return Grounding(boxes, (side @ text.T)[:, 0].cpu())
