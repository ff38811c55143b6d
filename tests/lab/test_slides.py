"""Slides: what the notebooks' metadata says, within the limits of a slide, and nothing else."""

import base64
import json
import re
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from lab.reach.deck import slide_html
from lab.upkeep import slides, strip, workshop

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
FEWEST, MOST = 15, 25


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def cell(kind: str, source: str, **mark: str) -> dict:
    metadata = {"slideshow": mark} if mark else {}
    return {"cell_type": kind, "source": source, "metadata": metadata, "id": source[:8]}


def deck(*cells: dict, outputs: dict | None = None) -> list[slides.Slide]:
    return slides.slides_of({"cells": list(cells)}, outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_deck_has_the_right_length_and_every_exercise(path):
    found = slides.slides_of(read(path))  # raises where a slide has too much code
    assert FEWEST <= len(found) <= MOST
    text = path.read_text(encoding="utf-8")
    exercises = [slide.title for slide in found if slide.exercise]
    assert len(exercises) == len(re.findall("### ✏ Exercise", text))
    assert all(slide.code for slide in found if slide.exercise)
    assert found[0].first and found[-1].title == "Take-aways"
    assert all(slide.title and slide.said and slide.notes for slide in found)
    assert not any("your turn" in note for slide in found for note in slide.notes)


def test_all_prose_is_in_the_notes():
    notebook = read(NOTEBOOKS[1])
    noted = "\n".join(note for slide in slides.slides_of(notebook) for note in slide.notes)
    kept = [c for c in notebook["cells"] if c["cell_type"] == "markdown"]
    for source in ("".join(c["source"]) for c in kept[1:-3]):  # the title's slide has its list
        last = slides.parts(source)[-1]
        assert last.body in noted or last.title in slides.NEVER


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stripping_keeps_what_is_a_slide(path):
    notebook = nbformat.read(path, as_version=4)
    for one in notebook.cells:
        one.metadata["collapsed"] = True  # what a session of JupyterLab leaves behind
    assert slides.slides_of(strip.stripped(notebook)) == slides.slides_of(read(path))


def test_a_slide_says_the_chosen_sentences_and_formulas():
    text = (
        "## 1. One\n\nFirst (Ding et al., 2023). Second, e.g. this? Third!\n\n    a = b\n\nFourth."
    )
    (slide,) = deck(cell("markdown", text, slide_type="slide", sentences="2 4"))
    assert slide.said == ["Second, e.g. this? Fourth.", "    a = b"]
    assert (slide.title, slide.over) == ("1. One", "")
    with pytest.raises(ValueError, match="sentence 5 is asked for, there are 4"):
        deck(cell("markdown", text, slide_type="slide", sentences="5"))


def test_what_follows_a_slide_is_said_and_not_shown():
    found = deck(
        cell("markdown", "## 2. Two\n\nShown.", slide_type="slide"),
        cell("markdown", "Said only."),
        cell("code", "hidden = 1"),
        cell("code", "x = 1", slide_type="fragment"),
    )
    assert [s.said for s in found] == [["Shown."]] and found[0].code == ["x = 1"]
    assert found[0].notes == ["Shown.", "Said only."]


def test_a_figure_stands_for_its_code_and_only_the_first_is_shown():
    pictures = [
        {"output_type": "display_data", "data": {"text/html": f"<figure>{n}</figure>"}}
        for n in (1, 2)
    ]
    printed = {"output_type": "stream", "name": "stdout", "text": "few\nlines\n"}
    (slide,) = deck(
        cell("markdown", "## 1. One\n\nIdea.", slide_type="slide"),
        cell("code", "show_lines(x)", slide_type="fragment"),
        outputs={"show_lin": [*pictures, printed, printed | {"text": "x\n" * 13}]},
    )
    assert slide.outputs == [pictures[0], printed] and not slide.code


def test_too_much_code_is_refused_on_an_exercise_and_left_out_elsewhere():
    long = "\n".join(f"x{n} = {n}" for n in range(9))
    (slide,) = deck(
        cell("markdown", "## 1. One\n\nIdea.", slide_type="slide"),
        cell("code", long, slide_type="fragment"),
    )
    assert not slide.code
    with pytest.raises(ValueError, match="more than 8 lines"):
        deck(
            cell("markdown", "### ✏ Exercise 1: much\n\nDo.", slide_type="slide"),
            cell("code", long, slide_type="fragment"),
        )


def test_a_numbered_title_is_no_list_and_a_tall_figure_stands_beside():
    def figure(width, height):
        image = BytesIO()
        Image.new("1", (width, height)).save(image, "PNG")
        data = base64.b64encode(image.getvalue()).decode()
        text = f'<figure><img src="data:image/png;base64,{data}"></figure>'
        return {"output_type": "display_data", "data": {"text/html": text}}

    wide, tall = (
        slide_html(slides.Slide("3. What is it?", said=["This."], outputs=[figure(1200, height)]))
        for height in (600, 1100)
    )
    assert "<h2>3. What is it?</h2>" in wide and "<ol" not in wide
    assert '<section class="plain">' in wide and '<section class="plain tall">' in tall
    two = slides.Slide("4. Two", said=["These."], outputs=[figure(1200, 1100), figure(1200, 400)])
    assert '<section class="plain">' in slide_html(two)


def test_lines_of_code_are_counted_without_prose():
    code = 'def f(x):\n    """Return\n    x."""\n    # why\n\n    return (x +\n            "1")\n'
    assert slides.lines_of(code) == 3


def test_a_list_written_as_paragraphs_becomes_a_list():
    text = "## 7. Limits\n\n" + "\n\n".join(f"**Point {n}.** Short. More." for n in range(3))
    (slide,) = deck(cell("markdown", text, slide_type="slide"))
    assert slide.said == ["* **Point 0.** Short.\n* **Point 1.** Short.\n* **Point 2.** Short."]


@pytest.mark.parametrize(
    ("numbers", "said"),
    [([], ""), ([4], "slide 4"), ([1, 2, 3, 7], "slides 1 to 3, 7"), ([2, 5], "slides 2, 5")],
)
def test_slides_are_named_in_ranges(numbers, said):
    assert workshop.ranges(numbers) == said


def test_a_plan_names_the_slides_of_its_sections():
    one = workshop.lessons()["03"]
    told = workshop.slides_about(one, "03, section 1 and the five lines of section 2, on the board")
    first = next(i for i, s in enumerate(one.slides, 1) if s.over.startswith("1. "))
    last = max(i for i, s in enumerate(one.slides, 1) if s.over.startswith("2. "))
    assert told == f"slides {first} to {last}"
    assert workshop.slides_about(one, "03: all of it") == ""
