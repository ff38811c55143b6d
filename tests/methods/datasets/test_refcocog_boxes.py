"""RefCOCOg with boxes: annotated ones and a detector's, cut to the image, and errors in a line."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from dsd_tutorial.datasets import read_refcocog_boxes
from dsd_tutorial.datasets.sources import ItemsFileError
from dsd_tutorial.grounding import ground


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four images of 40 x 20 pixels with two objects each: one to the left, one to the right."""
    folder = tmp_path_factory.mktemp("refcocog")
    refs, images, annotations = [], [], []
    for i in range(4):
        name = f"{i}.jpg"
        images.append({"id": i, "file_name": name, "width": 40, "height": 20})
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(np.full((20, 40, 3), 50 * i, np.uint8)).save(folder / "images" / name)
        for j in range(2):
            number = 10 * i + j
            annotations.append({"id": number, "image_id": i, "bbox": [20 * j, 0, 20, 15]})
            refs.append({"ref_id": number, "ann_id": number, "image_id": i, "category_id": j,
                         "split": "val", "sentences": [{"sent": f"thing {number}"}]})  # fmt: skip
    (folder / "refs(google).p").write_bytes(pickle.dumps(refs, protocol=0))
    (folder / "instances.json").write_text(
        json.dumps({"images": images, "annotations": annotations})
    )
    return folder


def test_annotated_boxes_hold_the_right_one(folder):
    items = read_refcocog_boxes(folder)
    assert len(items) == 8
    for item in items:
        number = int(item.text.split()[1])
        assert item.image.name == f"{number // 10}.jpg"
        assert item.truth.tolist() == [0.5 * (number % 10), 0.0, 0.5 * (number % 10) + 0.5, 0.75]
        assert [item.overlap(box) for box in item.boxes] == [1.0 - number % 10, number % 10]
        assert item.load().shape == (3, 20, 40)
    assert [i.text for i in read_refcocog_boxes(folder, n=3)] == [
        i.text for i in read_refcocog_boxes(folder, n=5)
    ][:3]


@pytest.mark.parametrize("form", ["mapping", "bbox", "box"])
def test_proposals_of_a_detector_are_cut_to_the_image(folder, tmp_path, form):
    boxes = {i: [[10, 5, 20, 10], [30, 10, 100, 100], [50, 0, 5, 5]] for i in range(4)}
    if form != "mapping":
        boxes = [{"image_id": i, form: b, "score": 1.0} for i, own in boxes.items() for b in own]
    file = tmp_path / "dets.json"
    file.write_text(json.dumps(boxes))
    for item in read_refcocog_boxes(folder, proposals=file):
        assert item.boxes.tolist() == [[0.25, 0.25, 0.75, 0.75], [0.75, 0.5, 1.0, 1.0]]


@pytest.mark.parametrize("text", ["[1, 2]", '{"0": 5}', '[{"image_id": 0}]', "no json"])
def test_proposals_of_another_form_are_refused(folder, tmp_path, text):
    file = tmp_path / "dets.json"
    file.write_text(text)
    with pytest.raises(ItemsFileError, match=r"dets\.json: (need|not JSON)"):
        read_refcocog_boxes(folder, proposals=file)


def test_an_image_without_proposals_is_named(folder, tmp_path):
    file = tmp_path / "dets.json"
    file.write_text('{"0": [[0, 0, 10, 10]]}')
    with pytest.raises(ItemsFileError, match="no box within image"):
        read_refcocog_boxes(folder, proposals=file)


def test_a_phrase_is_grounded_in_an_image_that_is_no_square(folder, tiny):
    item = read_refcocog_boxes(folder, n=1)[0]
    found = ground(tiny, item.load(), item.boxes, item.text, steps=1)
    assert torch.isfinite(found.scores).all() and item.overlap(found.box) in (0.0, 1.0)
