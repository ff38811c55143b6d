"""Variations and edits: what is recorded is what `vary` and `edit` draw; every control redraws."""

import re

import pytest
import torch

from dsd_tutorial.course import record_edits, record_variations
from dsd_tutorial.projection import calibrate, fit_inverse, fit_random
from dsd_tutorial.variation import edit, vary

STRENGTHS = (0.5, 1.0)
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


def test_every_edit_is_what_edit_draws(tiny, images, inverse, drawn):
    for i in range(2):
        assert drawn.of(i, "a blue object").shape == (3, 3, 64, 64)
        for place, alpha in enumerate(ALPHAS):
            how = {**HOW, "alpha": alpha, "seed": 3 + i}
            (want,) = edit(tiny, images[i : i + 1], "a blue object", inverse, **how)
            torch.testing.assert_close(drawn.of(i, drawn.text)[place], want, atol=1e-4, rtol=0)


def test_the_source_prompt_is_that_of_the_images_and_words_at_hand(tiny, images, inverse):
    asked = []

    def source(chosen, words):
        asked.append((len(chosen), words))
        return ["a red object", "a star"][-len(chosen) :]

    found = record_edits(
        tiny, images, "a blue object", (0.5, 1.0), inverse, seed=3, source_prompt=source, **HOW
    )
    (want,) = edit(
        tiny, images[1:], "a blue object", inverse, alpha=1.0, seed=4, source_prompt="a star", **HOW
    )
    torch.testing.assert_close(found.of(1, "a blue object")[1], want, atol=1e-4, rtol=0)
    found.of(1, "a square")
    assert asked == [(2, "a blue object"), (1, "a square")]


def test_words_are_drawn_once(drawn):
    drawn.draw = lambda rows, words: torch.full((3, len(rows), 3, 64, 64), 0.5)
    assert (drawn.of(1, "a square") == 0.5).all()
    drawn.draw = None
    assert (drawn.of(1, "a square") == 0.5).all()


def test_every_control_changes_the_picture(drawn):
    box = drawn.explore()
    row, picture = box.children
    chosen, words, slider = row.children
    assert slider.label == "0.5" and re.search('alt="Reference 1, and its edit', picture.value)
    values = [picture.value]
    for control, value in ((slider, 2), (chosen, 1), (words, "a square")):
        control.value = value
        values.append(picture.value)
    assert len(set(values)) == len(values)
    assert "a square" in picture.value and "alpha 2" in picture.value


def test_nothing_typed_and_an_error_are_said_in_place(drawn):
    box = drawn.explore()
    row, picture = box.children
    row.children[1].value = "  "
    assert "say what should change" in picture.value

    def broken(rows, words):
        raise RuntimeError("no <memory>")

    drawn.draw = broken
    row.children[1].value = "a star"
    assert "RuntimeError: no &lt;memory&gt;" in picture.value


def test_the_still_shows_all_edits_with_alt_text(drawn, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    drawn.still()
    (data,) = shown
    assert "2 references edited by 'a blue object'" in data["text/plain"]
    assert "alpha 0, alpha 0.5, alpha 2. Rows: image 1, image 2." in data["text/plain"]


def test_an_edit_without_words_is_refused(tiny, images, inverse):
    with pytest.raises(ValueError, match="a blue object"):
        record_edits(tiny, images, " ", ALPHAS, inverse)


@pytest.fixture(scope="module")
def known(tiny):
    return calibrate(tiny, n=20, progress=False)


@pytest.fixture(scope="module")
def cuts(tiny, known):
    from dsd_tutorial.projection import singular_values, text_weight

    values = singular_values(text_weight(tiny))
    return float(values[-1]) / 2, float(values[len(values) // 4])


@pytest.fixture(scope="module")
def varied(tiny, images, known, cuts):
    return record_variations(
        tiny, images[0], cuts, STRENGTHS, calibration=known, copies=4, seed=3, steps=2,
        guidance=2.0, progress=False,
    )  # fmt: skip


def test_every_variation_is_what_vary_draws(tiny, images, known, cuts, varied):
    assert varied.images.shape == (2, 2, 3, 64, 64)
    for row, cut in enumerate(cuts):
        inverse = fit_inverse(tiny, threshold=cut, calibration=known, progress=False)
        for column, strength in enumerate(STRENGTHS):
            want = vary(
                tiny, images[:1], 1, inverse, copies=4, strength=strength, steps=2, guidance=2.0,
                seed=3, progress=False,
            )  # fmt: skip
            torch.testing.assert_close(varied.images[row, column], want[0], atol=1e-4, rtol=0)
    assert not torch.allclose(varied.images[0, 0], varied.images[1, 1], atol=1e-3)


def test_every_slider_changes_the_picture(varied):
    box = varied.explore()
    row, picture = box.children
    threshold, strength = row.children
    assert strength.label == "1" and re.search('alt="The reference', picture.value)
    values = [picture.value]
    for slider, value in ((threshold, 1), (strength, 0), (threshold, 0)):
        slider.index = value
        values.append(picture.value)
    assert len(set(values)) == len(values)
    assert f"cut at {varied.thresholds[0]:.2g}, strength 0.5" in picture.value


def test_the_still_shows_all_variations_with_alt_text(varied, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    varied.still()
    (data,) = shown
    assert "reference, strength 0.5, strength 1. Rows: cut at" in data["text/plain"]
    assert f", cut at {varied.thresholds[1]:.2g}." in data["text/plain"]
