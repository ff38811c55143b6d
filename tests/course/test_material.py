"""What notebook 02 works on: items of the shapes world or of a folder, no image in two parts."""

import json

from PIL import Image

from dsd_tutorial.course import few_shot_items


def apart(source) -> bool:
    """Whether labelled, validation and test items share no image."""
    rest = set(source.validation.scenes) | set(source.test.scenes)
    shared = set(source.validation.scenes) & set(source.test.scenes)
    return not shared and all(rest.isdisjoint(items.scenes) for items in source.draws)


def test_items_of_the_shapes_world():
    source = few_shot_items("comvg", "shapes", shots=3, draws=2, n_items=5, seed=1)
    assert [len(items.items) for items in source.draws] == [3, 3] and len(source.test.items) == 5
    assert source.draws[0] != source.draws[1] and apart(source)


def test_items_of_a_folder(tmp_path):
    rows = []
    for i in range(40):
        Image.new("RGB", (8, 8), (6 * i, 0, 0)).save(tmp_path / f"{i}.png")
        rows.append(json.dumps({"images": [f"{i}.png"], "texts": ["x", "y"], "correct": i % 2}))
    (tmp_path / "items.jsonl").write_text("\n".join(rows), encoding="utf-8")
    source = few_shot_items("vqa", str(tmp_path), shots=3, draws=2, n_items=1000)
    assert len(source.draws[1].items) == 3 and 0 < len(source.test.items) < 40
    assert source.test.shape == (1, 2) and apart(source)
