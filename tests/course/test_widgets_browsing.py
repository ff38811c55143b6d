"""Pages: each slider changes the picture, a page needs no widget, alt text is demanded."""

import builtins

import matplotlib.pyplot as plt
import pytest

from dsd_tutorial.course import browse, page

CHOICES = {"task": ["comvg", "vqa"], "counted_in": ["labels", "seconds"]}


def draw(axis, task, counted_in):
    axis.plot([0, len(task)], [0, len(counted_in)])
    return f"A line that stands for {task} against {counted_in}."


def test_every_slider_changes_the_picture_and_its_alt_text():
    row, picture = browse(draw, **CHOICES).children
    assert [slider.description for slider in row.children] == ["task", "counted in"]
    assert 'alt="A line that stands for comvg against labels."' in picture.value
    first = picture.value
    row.children[0].value = "vqa"
    second = picture.value
    row.children[1].value = "seconds"
    assert len({first, second, picture.value}) == 3
    assert 'alt="A line that stands for vqa against seconds."' in picture.value


def test_a_page_is_the_picture_of_the_sliders(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    page(draw, task="vqa", counted_in="labels")
    box = browse(draw, task=["vqa"], counted_in=["labels"])
    assert shown[0]["text/html"] == box.children[1].value
    assert shown[0]["text/plain"] == "[Figure: A line that stands for vqa against labels.]"


def test_no_figure_stays_open_even_after_an_error():
    before = plt.get_fignums()
    with pytest.raises(ValueError, match="alt"):
        page(lambda axis: "", size=(2, 2))
    with pytest.raises(ZeroDivisionError):
        browse(lambda axis, n: 1 / n, n=[0])
    assert plt.get_fignums() == before


def test_an_empty_slider_is_refused_by_name():
    with pytest.raises(ValueError, match="counted_in"):
        browse(draw, task=["vqa"], counted_in=[])


def test_without_ipywidgets_the_remedy_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "ipywidgets":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        browse(draw, **CHOICES)
