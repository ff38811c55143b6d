"""Boxes, proposals and detectors: overlaps by counting, limits, and errors that name the value."""

import pytest
import torch

from dsd_tutorial.grounding import box_masks, detect, grid_boxes, iou, propose
from dsd_tutorial.shapes import boxes_of, referring_expressions, render

BOXES = torch.tensor([[0.125, 0.25, 0.5, 0.75], [0.25, 0.25, 0.75, 0.5], [0.75, 0.75, 1.0, 1.0]])


def test_iou_is_what_counting_pixels_gives():
    masks = box_masks(BOXES, 16, 16)
    shared = (masks[:, None] & masks[None]).sum((2, 3))
    either = (masks[:, None] | masks[None]).sum((2, 3))
    torch.testing.assert_close(iou(BOXES, BOXES), shared / either)
    assert iou(BOXES[:1], BOXES).shape == (1, 3)


def test_a_box_smaller_than_a_pixel_still_has_one():
    assert box_masks(torch.tensor([[0.999, 0.999, 1.0, 1.0]]), 8, 8).sum() == 1


@pytest.mark.parametrize(
    "boxes", [[[0.5, 0.1, 0.4, 0.9]], [[0.0, 0.0, 64.0, 64.0]], [[0.1, 0.1, float("nan"), 0.5]]]
)
def test_a_box_that_is_none_is_named(boxes):
    with pytest.raises(ValueError, match="divide pixels by the image's width"):
        propose(torch.tensor(boxes))


def test_distractors_miss_every_thing():
    for e in referring_expressions(60, "validation"):
        truth = boxes_of(render([e.scene])[1][0, : len(e.scene.things)])
        found = propose(truth, seed=e.seed)
        assert len(found) == len(truth) + 3
        assert torch.equal(found[: len(truth)], truth)
        moved, scaled, joined = found[len(truth) :]
        assert iou(moved[None], truth).max() < 0.5
        assert iou(scaled[None], truth).max() < 0.6  # it may be cut at the image's edge
        inside = (joined[:2] <= truth[:, :2]).all(1) & (truth[:, 2:] <= joined[2:]).all(1)
        assert inside.sum() > 1
    assert torch.equal(propose(truth, seed=3), propose(truth, seed=3))
    assert len(propose(truth[:1])) == 3  # one thing makes no box around two


def test_the_detector_finds_separate_things_and_nothing_else():
    for e in referring_expressions(60, "validation"):
        images, masks = render([e.scene])
        truth = boxes_of(masks[0, : len(e.scene.things)])
        found = detect(images[0])
        assert len(found) == len(truth)
        assert iou(truth, found).max(1).values.min() > 0.7  # soft edges count


def test_a_detector_that_finds_nothing_returns_the_whole_image():
    assert detect(torch.full((3, 32, 32), 0.4)).tolist() == [[0.0, 0.0, 1.0, 1.0]]


def test_a_grid_covers_the_image_evenly():
    boxes = grid_boxes((0.5, 0.25), 0.25)
    assert len(boxes) == 9 + 16
    assert boxes.min() == 0 and boxes.max() == 1
    torch.testing.assert_close(boxes[:9, 2] - boxes[:9, 0], torch.full((9,), 0.5))
    count = box_masks(boxes[9:], 16, 16).sum(0)
    assert (count == 1).all()  # quarters side by side
    with pytest.raises(ValueError, match="need numbers in"):
        grid_boxes((0.0,))
