"""Which box of an image does a phrase mean? By prediction error, by attention, by CLIP.

    boxes = propose(boxes_of(masks), seed=0)             # things and distractors, or detect(image)
    found = ground(model, image, boxes, "the red circle")
    found.box                                            # left, top, right, bottom in [0, 1]

Grounding by noise-prediction error follows VGDiffZero (arXiv 2309.01141).
"""

from dsd_tutorial.grounding.boxes import box_masks, detect, grid_boxes, iou, propose
from dsd_tutorial.grounding.grounding import (
    Grounding,
    ground,
    ground_by_attention,
    ground_by_clip,
    ground_by_gain,
    ground_by_pairs,
    isolate,
    vote,
)
from dsd_tutorial.grounding.heat import box_heat, gain_map, phrase_heat
from dsd_tutorial.grounding.isolations import crop_boxes, isolation_errors, mask_boxes

__all__ = [
    "Grounding",
    "box_heat",
    "box_masks",
    "crop_boxes",
    "detect",
    "gain_map",
    "grid_boxes",
    "ground",
    "ground_by_attention",
    "ground_by_clip",
    "ground_by_gain",
    "ground_by_pairs",
    "iou",
    "isolate",
    "isolation_errors",
    "mask_boxes",
    "phrase_heat",
    "propose",
    "vote",
]
