"""The explorer of variations: what it records is what `vary` draws, and every slider redraws."""

import builtins
import re

import pytest
import torch

from dsd_tutorial.course.widgets import record_variations, variation_explorer, variation_still
from dsd_tutorial.projection import calibrate, fit_inverse
from dsd_tutorial.variation import vary

STRENGTHS = (0.5, 1.0)


@pytest.fixture(scope="module")
def image():
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def known(tiny):
    return calibrate(tiny, n=20, progress=False)


@pytest.fixture(scope="module")
def cuts(tiny, known):
    from dsd_tutorial.projection import singular_values, text_weight

    values = singular_values(text_weight(tiny))
    return float(values[-1]) / 2, float(values[len(values) // 4])


@pytest.fixture(scope="module")
def drawn(tiny, image, known, cuts):
    return record_variations(
        tiny, image, cuts, STRENGTHS, calibration=known, copies=4, seed=3, steps=2, guidance=2.0,
        progress=False,
    )  # fmt: skip


def test_every_variation_is_what_vary_draws(tiny, image, known, cuts, drawn):
    assert drawn.pictures.shape == (2, 2, 3, 64, 64)
    for row, cut in enumerate(cuts):
        inverse = fit_inverse(tiny, threshold=cut, calibration=known, progress=False)
        for column, strength in enumerate(STRENGTHS):
            want = vary(
                tiny, image[None], 1, inverse, copies=4, strength=strength, steps=2, guidance=2.0,
                seed=3, progress=False,
            )  # fmt: skip
            torch.testing.assert_close(drawn.pictures[row, column], want[0], atol=1e-4, rtol=0)
    assert not torch.allclose(drawn.pictures[0, 0], drawn.pictures[1, 1], atol=1e-3)


def test_every_slider_changes_the_picture(drawn):
    box = variation_explorer(drawn)
    row, picture = box.children
    threshold, strength = row.children
    assert strength.label == "1" and re.search('alt="The reference', picture.value)
    values = [picture.value]
    for slider, value in ((threshold, 1), (strength, 0), (threshold, 0)):
        slider.value = value
        values.append(picture.value)
    assert len(set(values)) == len(values)
    assert f"cut at {drawn.thresholds[0]:.2g}, strength 0.5" in picture.value


def test_the_still_shows_all_of_them_with_alt_text(drawn, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    variation_still(drawn)
    (data,) = shown
    assert "strengths 0.5, 1 to the right" in data["text/plain"]
    assert f"{drawn.thresholds[1]:.2g} downwards" in data["text/plain"]


def test_without_ipywidgets_the_remedy_is_named(drawn, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "ipywidgets":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match="variation_still"):
        variation_explorer(drawn)
