"""Figures: alt text is demanded and arrives, colours are honest, the same data the same file."""

import base64
import html
import re
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")

from dsd_tutorial.course import figures
from dsd_tutorial.course.figures import style  # noqa: E402
from dsd_tutorial.matching.metrics import Interval  # noqa: E402

ALT = 'Two lines, "a" & <b>, that cross at three.'


@pytest.fixture
def shown(monkeypatch):
    """What was displayed: a list of mime bundles."""
    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: bundles.append(data))
    return bundles


def draw(axis):
    """Two series with bands on an axis."""
    intervals = [Interval(v, v - 0.1, v + 0.1, 9) for v in (0.2, 0.5, 0.4)]
    figures.band(axis, [1, 2, 3], intervals, "first")
    figures.band(axis, [1, 2, 3], intervals[::-1], "second")


@pytest.mark.parametrize("alt", ["", "   ", "figure 1", None])
def test_alt_text_is_demanded(alt, shown):
    with pytest.raises(ValueError, match="say in a sentence"):
        with figures.figure(alt=alt):
            pytest.fail("nothing may be drawn")
    with pytest.raises(TypeError):
        figures.show_images(torch.zeros(1, 3, 4, 4))
    assert shown == []


def test_alt_text_and_caption_reach_the_page(shown):
    with figures.figure(alt=ALT, caption="1 < 2") as (_, axis):
        draw(axis)
    (data,) = shown
    page = data["text/html"]
    assert html.unescape(re.search(r'alt="([^"]*)"', page)[1]) == ALT
    assert "<figcaption>1 &lt; 2</figcaption>" in page
    assert ALT in data["text/plain"]
    picture = base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])
    assert picture.startswith(b"\x89PNG")


def test_exported_page_shows_alt_text(shown):
    nbformat = pytest.importorskip("nbformat")
    exporter = pytest.importorskip("nbconvert").HTMLExporter()
    with figures.figure(alt=ALT) as (_, axis):
        draw(axis)
    output = nbformat.v4.new_output("display_data", dict(shown[0]))
    cell = nbformat.v4.new_code_cell("draw()", outputs=[output])
    body, _ = exporter.from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    images = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tag == "img" and images.append(dict(attrs))
    parser.feed(body)
    assert [image["alt"] for image in images] == [ALT]


def test_the_same_figure_is_the_same_file(shown):
    for _ in range(2):
        with figures.figure(alt=ALT) as (_, axis):
            draw(axis)
    assert shown[0] == shown[1]


def test_nothing_is_shown_or_left_open_after_an_error(shown):
    import matplotlib.pyplot as plt

    before = plt.get_fignums(), dict(matplotlib.rcParams)
    with pytest.raises(ZeroDivisionError):
        with figures.figure(alt=ALT):
            raise ZeroDivisionError
    assert shown == [] and (plt.get_fignums(), dict(matplotlib.rcParams)) == before


@pytest.mark.parametrize("name", ["jet", "hsv", "rainbow", "turbo"])
def test_misleading_colour_maps_are_refused(name, shown):
    with pytest.raises(ValueError, match="viridis"):
        figures.colormap(name)
    with pytest.raises(ValueError, match=name):
        with figures.figure(alt=ALT) as (_, axis):
            figures.overlay_heat(axis, torch.rand(3, 8, 8), torch.rand(4, 4), cmap=name)


@pytest.mark.parametrize("name", style.COLORMAPS)
def test_allowed_colour_maps_grow_lighter_steadily(name):
    """Perceived lightness (CIE L*) of the map never turns back."""
    rgb = matplotlib.colormaps[name](np.linspace(0, 1, 64))[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    light = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    assert (np.diff(light) > -0.05).all()


def test_series_differ_without_colour(shown):
    with figures.figure(alt=ALT) as (_, axis):
        draw(axis)
        first, second = axis.lines
        assert first.get_marker() != second.get_marker()
        assert first.get_linestyle() != second.get_linestyle()
    with figures.figure(alt=ALT) as (_, axis):
        one = [Interval(0.3, 0.2, 0.5, 9)] * 2
        figures.bars(axis, ["x", "y"], {"a": one, "b": one}, reference=0.5)
        assert len({patch.get_hatch() for patch in axis.patches}) == 2
        assert [text.get_text() for text in axis.texts] == ["0.30"] * 4


def test_grids_and_counts(shown):
    pictures = torch.rand(7, 3, 8, 8)
    figures.show_images(pictures, list("abcdefg"), alt="Seven pictures of noise.", columns=4)
    figures.show_images(pictures[:, 0] > 0.5, alt="Seven random masks in a row.")
    figures.show_latents(torch.randn(2, 4, 4, 4), ["a", "b"], alt="Two latents, four maps each.")
    figures.show_latents(torch.zeros(4, 4, 4), alt="A latent that is zero everywhere.")
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5, 2:5] = True
    heats = {"red": torch.rand(4, 4), "flat": torch.ones(4, 4)}
    figures.show_heats(pictures[0], heats, masks={"red": mask}, alt="Heat of two words in a row.")
    assert len(shown) == 5
    with pytest.raises(ValueError, match="2 titles for 7"):
        figures.show_images(pictures, ["a", "b"], alt="Seven pictures of noise.")
    with pytest.raises(ValueError, match="1 titles for 2"):
        figures.show_latents(torch.randn(2, 4, 4, 4), ["a"], alt="Two latents, four maps each.")


def test_cross_marks_the_hottest_cell(shown):
    heat = torch.zeros(4, 4)
    heat[1, 2] = 1.0
    with figures.figure(alt=ALT) as (_, axis):
        figures.overlay_heat(axis, torch.rand(3, 8, 8), heat)
        x, y = axis.lines[0].get_data()
    assert (float(x[0]), float(y[0])) == (4.5, 2.5)  # the middle of pixels 4-5 and 2-3
