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
from dsd_tutorial.course.figures import charts, images, style  # noqa: E402
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


def test_alt_text_reaches_the_page(shown):
    with figures.figure(alt=ALT) as (_, axis):
        draw(axis)
    (data,) = shown
    page = data["text/html"]
    assert html.unescape(re.search(r'alt="([^"]*)"', page)[1]) == ALT
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


@pytest.mark.parametrize("name", [style.UNIFORM, style.SIGNED, style.HEAT, "gray"])
def test_colour_maps_grow_lighter_steadily(name):
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
    figures.show_heats(heats, pictures[0], masks={"red": mask}, alt="Heat of two words in a row.")
    figures.show_rows({"all": pictures, "two": pictures[:2]}, alt="Rows of noise.", titles="abc")
    assert len(shown) == 6 and "Rows: all, two." in shown[-1]["text/plain"]
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


def said(shown):
    """The alt text of the last figure."""
    return shown[-1]["text/plain"].removeprefix("[Figure: ").removesuffix("]")


def test_alt_text_of_charts_ends_with_their_values(shown):
    low, high = Interval(0.2, 0.1, 0.3, 9), Interval(0.8, 0.7, 0.9, 9)
    kept = {"CLIP": {"color": low, "shape": high}, "DSD": {"color": 0.5, "shape": None}}
    figures.show_bars(kept, alt="Kept by method.", reference=0.5)
    assert said(shown) == "Kept by method: CLIP color 0.20, shape 0.80; DSD color 0.50."
    figures.show_bars({"all": [low, high]}, ["x", "y"], alt="Two bars.", reference={"best": 1.0})
    assert said(shown) == "Two bars: all x 0.20, y 0.80."
    panels = {"add": {"a": [low, high]}, "replace": {"a": {3: 0.02}, "b": ([1, 2], [0.5, 0.6])}}
    figures.show_lines(panels, [0, 1], alt="Two panels", at={"add": {"in use": 1}}, level={"0": 0})
    assert said(shown) == (
        "Two panels: add: a 0.20 at 0, 0.80 at 1. replace: a 0.02 at 3; b 0.50 at 1, 0.60 at 2."
    )
    figures.show_lines(torch.arange(20.0), alt="A straight line.")
    assert said(shown) == "A straight line: 0.00 at 0, at most 19.00 at 19, 19.00 at 19."
    figures.show_histograms({"a": torch.tensor([1.0, 3.0])}, alt="Two numbers.", xlabel="number")
    assert said(shown) == "Two numbers: a around 2.00, from 1.00 to 3.00."


def test_long_titles_are_broken_into_lines(shown, monkeypatch):
    titles = []
    monkeypatch.setattr(images, "draw_image", lambda axis, image, title: titles.append(title))
    said = ["the background is white", "a star"]
    figures.show_rows(
        {"a": torch.rand(2, 3, 8, 8), "b": torch.rand(2, 3, 8, 8)}, titles={"b": said},
        alt="Two rows of two images.",
    )  # fmt: skip
    assert titles == ["", "", "the background\nis white", "a star"]


def test_labels_that_would_touch_are_left_out_on_a_log_scale():
    places = [0.01, 0.5, 1.1, 1.6]
    labels = [str(place) for place in places]
    assert charts._apart(labels, places) == ["0.01", "0.5", "1.1", ""]
    assert charts._apart(["1", "2", "4"], [1, 2, 4]) == ["1", "2", "4"]
    assert charts._apart(["7"], [7]) == ["7"]


def test_alt_text_of_tables_names_best_and_worst(shown):
    figures.show_matrix(
        {"": [[0.1, 0.2], [0.3, 0.7]]}, ["r", "s"], [1, 2], alt="A matrix.", marks=np.eye(2)
    )
    assert said(shown) == "A matrix: highest 0.70 at s, 2, lowest 0.10 at r, 1."
    low, high = Interval(0.2, 0.1, 0.3, 9), Interval(0.8, 0.7, 0.9, 9)
    figures.show_intervals(
        {"vqa": {"x": low, "y": high}, "comvg": {"x": high}}, alt="Methods.", reference={"vqa": 0.1,
        "comvg": 0.5}, kinds={"y": "learned"},
    )  # fmt: skip
    assert said(shown) == "Methods: vqa best y 0.80, worst x 0.20; comvg best x 0.80, worst x 0.80."
    rows = [dict(method=m, accuracy=v, low=v, high=v, unet_passes=p, seconds=1)
            for m, v, p in (("a", 0.5, 4), ("b", 0.25, 0))]  # fmt: skip
    figures.show_costs(rows, ["unet_passes", "seconds"], alt="Costs of two.")
    assert said(shown) == "Costs of two: best a, 0.50, for 4 U-Net passes, 1 seconds."
