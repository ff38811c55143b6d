"""The explorer of edits: what it records is what `edit` draws; words may be typed."""

import builtins
import re

import pytest
import torch

from dsd_tutorial.course.widgets import edit_explorer, edit_still, record_edits
from dsd_tutorial.projection import fit_random
from dsd_tutorial.variation import edit

ALPHAS = (0.0, 0.5, 2.0)
HOW = {"steps": 2, "guidance": 2.0, "copies": 4, "progress": False}


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def inverse(tiny):
    return fit_random(tiny, 0)


@pytest.fixture
def drawn(tiny, images, inverse):
    return record_edits(tiny, images, "a blue object", ALPHAS, inverse, seed=3, **HOW)


def test_every_picture_is_what_edit_draws(tiny, images, inverse, drawn):
    for i in range(2):
        assert drawn(i, "a blue object").shape == (3, 3, 64, 64)
        for place, alpha in enumerate(ALPHAS):
            how = {**HOW, "alpha": alpha, "seed": 3 + i}
            (want,) = edit(tiny, images[i : i + 1], "a blue object", inverse, **how)
            torch.testing.assert_close(drawn(i, drawn.text)[place], want, atol=1e-4, rtol=0)


def test_what_is_to_go_is_asked_for_the_pictures_and_words_at_hand(tiny, images, inverse):
    asked = []

    def gone(pictures, words):
        asked.append((len(pictures), words))
        return ["a red object", "a star"][-len(pictures) :]

    found = record_edits(
        tiny, images, "a blue object", (0.5, 1.0), inverse, seed=3, gone=gone, **HOW
    )
    (want,) = edit(
        tiny, images[1:], "a blue object", inverse, alpha=1.0, seed=4, source_prompt="a star", **HOW
    )
    torch.testing.assert_close(found(1, "a blue object")[1], want, atol=1e-4, rtol=0)
    found(1, "a square")
    assert asked == [(2, "a blue object"), (1, "a square")]


def test_words_are_drawn_once(drawn):
    drawn.draw = lambda rows, words: torch.full((3, len(rows), 3, 64, 64), 0.5)
    assert (drawn(1, "a square") == 0.5).all()
    drawn.draw = None
    assert (drawn(1, "a square") == 0.5).all()


def test_every_control_changes_the_picture(drawn):
    box = edit_explorer(drawn)
    row, picture = box.children
    menu, words, slider = row.children
    assert slider.label == "0.5" and re.search('alt="Reference 1, and its edit', picture.value)
    values = [picture.value]
    for control, value in ((slider, 2), (menu, 1), (words, "a square")):
        control.value = value
        values.append(picture.value)
    assert len(set(values)) == len(values)
    assert "a square" in picture.value and "alpha 2" in picture.value


def test_nothing_typed_and_an_error_are_said_in_place(drawn):
    box = edit_explorer(drawn)
    row, picture = box.children
    row.children[1].value = "  "
    assert "Type what should change" in picture.value

    def broken(rows, words):
        raise RuntimeError("no <memory>")

    drawn.draw = broken
    row.children[1].value = "a star"
    assert "RuntimeError: no &lt;memory&gt;" in picture.value


def test_the_still_shows_all_of_them_with_alt_text(drawn, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    edit_still(drawn)
    (data,) = shown
    assert "2 reference pictures" in data["text/plain"]
    assert "'a blue object' at alpha 0, 0.5, 2" in data["text/plain"]


def test_an_edit_without_words_is_refused(tiny, images, inverse):
    with pytest.raises(ValueError, match="a blue object"):
        record_edits(tiny, images, " ", ALPHAS, inverse)


def test_without_ipywidgets_the_remedy_is_named(drawn, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "ipywidgets":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match="edit_still"):
        edit_explorer(drawn)
