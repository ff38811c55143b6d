"""Notebook 03's own parameters: numbers or words, and a folder that must hold pictures."""

import pytest

from dsd_tutorial.course.parameters import PARAMETERS, ParameterError, validate
from dsd_tutorial.course.parameters.reading import typed

NAME = "03_closed_form_projection"
GOOD = {
    "model": "shapes-sd", "device": "auto", "dtype": "float32", "seed": 0,
    "references": "", "method": "auto",
    "threshold": "auto", "length": "auto", "copies": "auto", "n_references": 24,
    "guidance": "auto", "steps": 10,
}  # fmt: skip


def test_numbers_and_words_are_both_read():
    words = {"threshold": "none", "copies": "all", "method": "ridge"}
    assert validate(NAME, {**GOOD, **words}).copies == "all"
    texts = {"threshold": "0.3", "length": "12", "copies": "4", "guidance": "7.5"}
    given = {name: typed(PARAMETERS[NAME], name, text) for name, text in texts.items()}
    read = validate(NAME, {**GOOD, **given})
    assert (read.threshold, read.length, read.copies, read.guidance) == (0.3, 12.0, 4, 7.5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"threshold": 0}, "greater than 0"), ({"threshold": "soft"}, "'auto' or 'none'"),
     ({"copies": 2.5}, "'auto' or 'all'"), ({"copies": 0}, "greater than or equal to 1"),
     ({"method": "truncated"}, "alternative beside"), ({"n_references": 3}, "from 4"),
     ({"references": "no such folder"}, "no images")],
)  # fmt: skip
def test_what_is_refused_and_why(wrong, said):
    with pytest.raises(ParameterError, match=said):
        validate(NAME, {**GOOD, **wrong})


def test_a_folder_must_hold_images(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ParameterError, match="no images"):
        validate(NAME, {**GOOD, "references": str(tmp_path)})
    (tmp_path / "b.PNG").touch()
    assert validate(NAME, {**GOOD, "references": str(tmp_path)}).references == str(tmp_path)
