"""What a notebook works on: scenes by name, folders in two parts, and rows measured again."""

import pytest
from PIL import Image

from dsd_tutorial.course import image_set, measured_again
from dsd_tutorial.shapes import domain_scenes
from dsd_tutorial.variation import source_prompts


@pytest.fixture
def folder(tmp_path):
    """Nine plain images, each of another grey, and a file that is none."""
    (place := tmp_path / "old_boats").mkdir()
    for i in range(9):
        Image.new("L", (80, 70), 25 * i).save(place / f"{i}.png")
    (place / "x.png").write_text("no image")
    return place


def greys(found) -> list[int]:
    return (found.images.mean((1, 2, 3)) * 255 / 25).round().int().tolist()


def test_scenes_come_by_name_and_split(tiny):
    found = image_set(tiny, "brown", 3, 4, "train")
    assert found.scenes == domain_scenes("brown", 3, 4, "train") and found.text == "a brown object"
    assert found.images.shape == (3, 3, 64, 64)
    pairs = [(s.things[0].color, s.things[0].shape) for s in image_set(
        tiny, "old", 12, 0, distinct=True).scenes]  # fmt: skip
    assert len(pairs) == len(set(pairs)) == 12


def test_a_folder_is_split_into_two_parts_that_share_no_image(tiny, folder, capsys):
    train, test = (image_set(tiny, str(folder), 6, split=split) for split in ("train", "test"))
    assert greys(train) == [1, 2, 3, 4, 6, 7] and greys(test) == [0, 5]
    assert train.text == "old boats" and train.scenes is None
    assert greys(image_set(tiny, str(folder), 4, split="all")) == [0, 1, 2, 3]
    assert "x.png" in capsys.readouterr().out


def test_a_single_image_is_for_both(tiny, tmp_path):
    Image.new("L", (80, 70), 100).save(tmp_path / "one.png")
    assert [greys(image_set(tiny, str(tmp_path), 4, split=s)) for s in ("train", "test")] == [
        [4]
    ] * 2


def test_rows_of_the_course_are_measured_on_its_model_alone(tiny, shapes_sd):
    assert measured_again("editing", tiny) == ([], [])
    then, now = measured_again("customization", shapes_sd, 2)
    assert len(then) == len(now) == 2 and sum(a != b for a, b in zip(then, now, strict=True)) <= 1


def test_a_source_prompt_is_what_clip_sees_of_what_the_text_could_have_said(shapes_sd):
    found = image_set(shapes_sd, "old", 4, 3)
    texts = ["a blue object", "the background is white", "a square", "a red star and an object"]
    said = source_prompts(shapes_sd, found.images, texts)
    things = [scene.things[0] for scene in found.scenes]
    assert said[0] == f"a {things[0].color} object" and said[2] == f"a {things[2].shape}"
    assert said[1] == f"the background is {found.scenes[1].background}" and said[3] == ""
    with pytest.raises(ValueError, match="zip"):
        source_prompts(shapes_sd, found.images, texts[:2])
