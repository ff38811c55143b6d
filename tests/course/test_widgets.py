"""The explorer: what it records is what `heat_maps` shows, and every slider changes the picture."""

import builtins
import re

import pytest
import torch

from dsd_tutorial.attention.heatmaps import heat_maps
from dsd_tutorial.course import record_attention

TEXT = "a red circle left of a blue square"
STEPS = [100, 700]


@pytest.fixture(scope="module")
def image():
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def seen(tiny, image):
    return record_attention(tiny, image, TEXT, ["red", "circle", "square"], steps=STEPS, seed=3)


@pytest.mark.parametrize("layer", [None, "mid", "up.1.0"])
def test_means_equal_heat_maps(tiny, image, seen, layer):
    layer = next(name for name in seen.layers if name.startswith(layer)) if layer else None
    words = ["circle", "square"]
    expected = heat_maps(
        tiny, image, TEXT, words, steps=STEPS, layers=layer, seed=3, progress=False
    )
    for word in words:
        torch.testing.assert_close(seen.heat(word, layer), expected[word], atol=1e-6, rtol=1e-4)


def test_a_mean_is_the_mean_of_its_parts(seen):
    layer = seen.layers[0]
    heads = [seen.heat("red", layer, h, 700) for h in range(seen.heads(layer))]
    torch.testing.assert_close(torch.stack(heads).mean(0), seen.heat("red", layer, None, 700))
    assert not torch.allclose(heads[0], heads[1])
    assert not torch.allclose(seen.heat("red", step=100), seen.heat("red", step=700))


def test_every_word_of_the_caption_by_default(tiny, image):
    every = record_attention(tiny, image, TEXT, steps=1, layers="mid")
    assert every.words == ("a", "red", "circle", "left", "of", "blue", "square")
    assert every.layers == ("mid.0",) and every.heat("a").shape == (16, 16)


@pytest.mark.parametrize(
    ("wrong", "known"),
    [({"word": "star"}, "circle"), ({"word": "red", "layer": "up.9"}, "mid.0"),
     ({"word": "red", "head": 99}, "0, 1"), ({"word": "red", "step": 5}, "100, 700")],
)  # fmt: skip
def test_what_was_not_recorded_is_refused(seen, wrong, known):
    with pytest.raises(ValueError, match=known):
        seen.heat(**wrong)


def test_a_word_outside_the_caption_is_refused(tiny, image):
    with pytest.raises(ValueError, match="star"):
        record_attention(tiny, image, TEXT, ["star"], steps=1)


def test_every_slider_changes_the_picture(seen):
    box = seen.explore()
    row, picture = box.children
    word, layer, step, head = row.children
    for slider in row.children:  # chosen again, the first entry is still there to be read
        slider.index = 1
        slider.index = 0
    assert [x.label for x in row.children] == ["red", "all layers", "all steps", "all heads"]
    assert re.search(r'alt="Where &#x27;red&#x27; of .* hottest', picture.value)
    values = [picture.value]
    for slider, value in [(word, "circle"), (layer, seen.layers[1]), (head, 1), (step, 700)]:
        slider.value = value
        values.append(picture.value)
    assert len(set(values)) == len(values)
    assert "head 1" in picture.value and "step 700" in picture.value
    assert len(head.options) == 1 + seen.heads(seen.layers[1])


def test_still_shows_every_layer_and_step_with_alt_text(seen, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    seen.still("circle", mask=torch.zeros(64, 64, dtype=torch.bool))
    (data,) = shown
    for name in seen.layers:
        for t in seen.steps:
            assert f"{name} at step {t}" in data["text/plain"]


def test_without_ipywidgets_the_remedy_is_named(seen, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "ipywidgets":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        seen.explore()
