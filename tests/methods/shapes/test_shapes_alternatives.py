"""What an image could show instead: every value of what a text names, and nothing else."""

from dsd_tutorial.shapes import BACKGROUNDS, COLORS, SHAPES, random_scenes
from dsd_tutorial.shapes.captions import Description, Phrase, alternatives
from dsd_tutorial.variation.edit_items import make_edits


def test_they_are_the_values_of_the_measured_edits():
    want = {
        "color": [Description((Phrase(color=color),)).text() for color in COLORS],
        "shape": [Description((Phrase(shape),)).text() for shape in SHAPES],
        "background": [Description((), None, ground).text() for ground in BACKGROUNDS],
        "object": [""],
    }
    for edit in make_edits(random_scenes(6, 0, one_object_share=1.0)):
        assert alternatives(edit.text) == edit.values == want[edit.kind]


def test_all_that_is_named_varies_and_the_text_is_one_of_them():
    for text, count in (
        ("a purple star", len(COLORS) * len(SHAPES)),
        ("a square on a pink background", len(SHAPES) * len(BACKGROUNDS)),
        ("a large orange object", len(COLORS)),
        ("an object", 1),
    ):
        found = alternatives(text)
        assert text in found and len(set(found)) == len(found) == count


def test_where_nothing_is_to_go_nothing_is_said():
    for text in ("a red circle and an object", "a dog in the snow", ""):
        assert alternatives(text) == [""]
