"""Book and decks: what is made of an executed notebook, and that the trial finds what is wrong."""

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from made_sweep import a_sweep

from dsd_tutorial.course.recording import MIME
from dsd_tutorial.course.sweeps import write_report
from dsd_tutorial.course.sweeps.comparing import write_comparison
from lab.reach import api, book, deck, executed, glossary, map, staging, tools
from lab.upkeep.slides import Slide

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
PAGES = {"README.md", "docs/errors.md", "notebooks/00_orientation.ipynb"}
FIGURE = '<figure><img alt="A figure of two lines." src="data:image/png;base64,AA"></figure>'
VIEW = executed.VIEWS


def code(source: str, *tags: str, outputs: list | None = None, **more: object) -> dict:
    cell = {"cell_type": "code", "id": source[:8], "source": source, "outputs": outputs or []}
    return cell | {"metadata": {"tags": list(tags)}, "execution_count": 1} | more


def notebook(*cells: dict, **metadata: object) -> dict:
    return {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def written(folder: Path, name: str, *cells: dict, **metadata: object) -> Path:
    file = folder / name
    file.write_text(json.dumps(notebook(*cells, **metadata)), encoding="utf-8")
    return file


# -- executed notebooks ----------------------------------------------------------------------------


def test_outputs_are_taken_by_the_text_of_a_cell(tmp_path):
    printed = [{"output_type": "stream", "name": "stdout", "text": "1\n"}]
    source = written(tmp_path, "a.ipynb", code("n = 1", "parameters"), code("print(n)"))
    done = written(tmp_path, "b.ipynb", code("n = 2"), code("print(n)", outputs=printed))
    assert executed.outputs_of(source, done) == {"print(n)": printed}
    source = written(
        tmp_path, "a.ipynb", code("print(n)", "other tag"), code("install", "remove-cell")
    )
    assert executed.outputs_of(source, done) == {"print(n)": printed, }  # fmt: skip


def test_printed_text_is_one_piece_and_warnings_are_no_part_of_a_page():
    one, two, three = ({"output_type": "stream", "name": n, "text": [t]} for n, t in (
        ("stdout", "a\n"), ("stderr", "path: UserWarning"), ("stdout", "b\n")))  # fmt: skip
    figure = {"output_type": "display_data", "data": {}, "metadata": {}}
    found = executed.joined([one, two, three, figure, three])
    assert found == [one | {"text": "a\nb\n"}, figure, three]


@pytest.mark.parametrize("there", [True, False])
def test_an_old_run_is_refused_with_the_command_that_helps(tmp_path, there):
    source = written(tmp_path, "a.ipynb", code("print(2)"))
    done = tmp_path / "b.ipynb"
    if there:
        written(tmp_path, "b.ipynb", code("print(1)"))
    with pytest.raises(executed.NotExecuted, match="another text" if there else "not there"):
        executed.outputs_of(source, done)
    with pytest.raises(executed.NotExecuted, match="make run ARGS='00 01 02 03 04 05'"):
        executed.all_outputs(tmp_path)


# -- pages of the book -----------------------------------------------------------------------------


def page(*cells: dict, outputs: dict | None = None, stills: dict | None = None) -> list[dict]:
    terms = glossary.terms(GLOSSARY)
    title = {"cell_type": "markdown", "id": "t", "source": "# 01 Title\n\nText.", "metadata": {}}
    made = staging.page_of_notebook(
        notebook(title, *cells), outputs or {}, stills or {}, terms, PAGES, "o/r", "01_x"
    )
    return made["cells"]


def test_a_page_says_how_to_run_it():
    first = page()[0]["source"]
    assert first.startswith("# 01 Title\n\n:::{admonition}") and "uvx dsd-tutorial start" in first
    for place in ("codespaces.new/o/r", "/o/r/blob/main/notebooks/01_x.ipynb", "v2/gh/o/r/main"):
        assert place in first
    assert "http" not in staging.how_to_run("01_x", None)


def test_solutions_are_folded_and_widgets_become_stills():
    view = {"output_type": "display_data", "data": {VIEW: {"model_id": "m"}}, "metadata": {}}
    solved, explored = page(
        code("def f(): ...", "solution"), code("x.explore()"),
        outputs={"x.explor": [view]}, stills={"x.explor": FIGURE},
    )[1:]  # fmt: skip
    assert "hide-input" in solved["metadata"]["tags"]
    assert FIGURE in explored["outputs"][0]["data"]["text/html"]


def test_what_a_notebook_records_for_machines_and_full_bars_are_no_part_of_a_page():
    told = {"output_type": "stream", "name": "stdout", "text": "3 passes"}
    record = {"output_type": "display_data", "data": {MIME: {}, "text/html": ""}, "metadata": {}}
    bar = {VIEW: {"model_id": "m"}, "text/plain": ["passes:   0%|          | 0/8"]}
    full = {"output_type": "display_data", "data": bar, "metadata": {}}
    shown = page(code("report()"), outputs={"report()": [record, full, told]})[1]
    assert shown["outputs"] == [told]


def test_a_still_is_what_the_widget_showed(tmp_path):
    states = {
        "box": {"state": {"_model_name": "VBoxModel", "children": ["IPY_MODEL_a", "IPY_MODEL_b"]}},
        "a": {"state": {"_model_name": "DropdownModel"}},
        "b": {"state": {"_model_name": "HTMLModel", "value": FIGURE}},
        "lean": {"state": {"children": ["IPY_MODEL_c"]}, "model_name": "VBoxModel"},
        "c": {"state": {"value": FIGURE}, "model_name": "HTMLModel"},  # as JupyterLab saves it
    }
    saved = {"application/vnd.jupyter.widget-state+json": {"state": states}}
    file = written(tmp_path, "a.ipynb", widgets=saved)
    bar = {"data": {VIEW: {"model_id": "a"}, "text/plain": "0%|   | 0/8"}}
    assert executed.widget_html(file, [bar, {"data": {VIEW: {"model_id": "box"}}}]) == FIGURE
    assert executed.widget_html(file, [bar]) is None
    assert executed.widget_html(file, [{"data": {VIEW: {"model_id": "lean"}}}]) == FIGURE
    assert executed.widget_html(file, [{"data": {"text/plain": "1"}}, {}]) is None


@pytest.mark.parametrize(
    ("markdown", "where", "made"),
    [
        ("[e](errors.md)", None, "[e](errors.md)"),
        ("[r](../README.md#start)", None, "[r](../index.md)"),
        ("[n](../notebooks/00_orientation.ipynb)", None, "[n](../notebooks/00_orientation.ipynb)"),
        ("[c](../make.py#L3)", "o/r", "[c](https://github.com/o/r/blob/main/make.py#L3)"),
        ("[d](../lab)", "o/r", "[d](https://github.com/o/r/tree/main/lab)"),
        ("[c](../make.py)", None, "c"),
        ("[x](https://x.org) ![i](picture.png) [h](#here)", None, None),
    ],
)
def test_links_lead_to_pages_or_to_the_repository(markdown, where, made):
    found = staging.relinked(markdown, PurePosixPath("docs/workshop.md"), PAGES, where)
    assert found == (markdown if made is None else made)


def test_the_repository_is_the_workflow_s(monkeypatch):
    monkeypatch.setenv("GITHUB_REPOSITORY", "somebody/course")
    assert staging.repository() == "somebody/course"


def test_pages_lose_what_asks_the_network():
    page = (
        '<head><script>const THEBE_JS_URL = "https://x"</script>\n'
        '<script async="async" src="_static/sphinx-thebe.js?v=1"></script>\n'
        '<link rel="stylesheet" href="_static/sphinx-thebe.css" /><script src="own.js"></script>'
        '<script type="text/x-thebe-config">{name: "./thebe"}</script>'
        '<button class="btn search-button-field x" aria-label="Search">Search</button>'
        '<input class="task-list-item-checkbox" type="checkbox">'
    )
    assert book.tidy(page) == (
        '<head><script src="own.js"></script>'
        '<button class="btn search-button-field x">Search</button>'
        '<input aria-label="done" class="task-list-item-checkbox" type="checkbox">'
    )


def test_the_contents_name_files_without_endings():
    text = book.toc({"A": ["notebooks/00_x.ipynb"], "B": ("api/a.b.md",)})
    assert "root: index" in text and "- file: notebooks/00_x\n" in text and "api/a.b\n" in text
    assert "api/a.b\n        title: b\n" in text and text.count("title:") == 1


# -- the glossary ----------------------------------------------------------------------------------


def test_the_glossary_has_each_word_once_in_order():
    listed = glossary.terms(GLOSSARY)
    names = [term.name for term in listed]
    assert len(names) > 50 and names == sorted(set(names), key=str.lower)
    every = [name for term in listed for name in (term.name, *term.others)]
    assert len(every) == len(set(every))
    assert GLOSSARY.count("\n* ") == len(listed), "a line of the glossary has another form"
    directive = glossary.as_directive(GLOSSARY)
    assert "\nlog-sum-exp\nLSE\n  The logarithm" in directive and "* **" not in directive


def test_first_uses_are_linked_once_and_only_in_prose():
    text = (
        "# The U-Net\n\n`U-Net` and [U-Net](x) and **judge** judge\n\n    U-Net\n\nA U-Net, U-Net "
        "heat maps, a *reading* reading.\n\n```python\nlogit\n```"
    )
    used: set[str] = set()
    made = glossary.linked(text, glossary.terms(GLOSSARY), used)
    assert "A {term}`U-Net <U-Net>`, U-Net" in made and made.count("{term}`U-Net") == 1
    assert "**{term}`judge <judge>`** judge" in made
    assert "*{term}`reading <reading>`* reading" in made
    assert "{term}`heat maps <heat map>`" in made and "```python\nlogit\n```" in made
    assert glossary.linked(made, glossary.terms(GLOSSARY), used) == made


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_every_notebook_leads_to_the_glossary(path):
    used: set[str] = set()
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            glossary.linked("".join(cell["source"]), glossary.terms(GLOSSARY), used)
    assert len(used) >= 15


# -- names of the package --------------------------------------------------------------------------


@pytest.mark.parametrize("room", api.ROOMS)
def test_a_room_s_page_has_its_public_names_and_no_other(room):
    text = api.page(room)
    named = set(re.findall(r"^:{5,6}\{py:(?:function|class|data|exception)\} (\w+)", text, re.M))
    named |= set(re.findall(r"^\* \{py:obj\}`(\w+) <dsd_tutorial\.\w+\.\1>`", text, re.M))
    module = importlib.import_module(room)
    public = {name for name in module.__all__ if not inspect.ismodule(getattr(module, name))}
    assert named == public
    assert "ForwardRef" not in text and "<function" not in text and " object at 0x" not in text
    assert "DEFAULT_FACTORY" not in text and "<lambda>" not in text


def test_every_room_of_the_methods_has_a_page():
    rooms = {f"dsd_tutorial.{p.parent.name}" for p in (ROOT / "dsd_tutorial").glob("*/__init__.py")}
    assert rooms - {"dsd_tutorial.doctor"} | {"dsd_tutorial"} == set(api.ROOMS)


def example(x: "list[int]", *, loss: object = len) -> "int":
    """Return a number.

    first = example([1])

    Args:
        x: Some numbers,
            of any length.
        loss: A function.

    Raises:
        ValueError, TypeError: no number.
    """
    return loss(x)


def test_docstrings_become_fields_and_code():
    made = api.entry("example", example)
    assert made.startswith(":::::{py:function} example(x: list[int], *, loss: object = len) -> int")
    assert ":param x: Some numbers, of any length.\n:param loss: A function." in made
    assert ":raises ValueError, TypeError: no number." in made
    assert "```python\nfirst = example([1])\n```" in made


def test_arrows_of_the_map_go_down():
    found = {"lab.a": {"x.course", "x.b"}, "x.course": {"x.b"}, "x.b": set()}
    depth = map.levels(found)
    assert all(depth[room] > depth[below] for room, to in found.items() for below in to)
    assert "course imports" in map.alt() and map.svg().count("<rect") > 10


# -- decks -----------------------------------------------------------------------------------------


def test_a_slide_holds_code_figure_and_notes():
    shown = Slide("A `b`", "1. Sec", ["**Idea** [n](00_x.ipynb)"], ["x = 1"], notes=["All *prose*"])
    shown.outputs = [
        {"output_type": "display_data", "data": {"text/html": [FIGURE]}},
        {"output_type": "stream", "name": "stdout", "text": ["a < b\n"]},
    ]
    made = deck.slide_html(shown)
    assert "<h2>A <code>b</code></h2>" in made and FIGURE in made and "a &lt; b</pre>" in made
    assert 'href="00_x.html"' in made and '<div class="code">' in made
    assert re.search(r'<aside class="notes"><p>All <em>prose</em></p>\s*</aside>', made)


def test_decks_take_everything_from_their_folder():
    page = deck.PAGE.format(title="t", slides="", width=1, height=1)
    assert not re.search(r"https?:", page + deck.style())
    wanted = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page)
    kept = {f"reveal/{name}" for name in deck.REVEAL} | {"deck.css"}
    assert set(wanted) <= kept


# -- tools -----------------------------------------------------------------------------------------


def test_a_missing_tool_is_named_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(tools, "NODE", tmp_path / "node")
    with pytest.raises(tools.MissingTool, match=r"^No Chromium is here.*apt-get install [^\n]+$"):
        tools.chromium()
    with pytest.raises(tools.MissingTool, match=r"^npm is not here.*apt-get install [^\n]+$"):
        tools.node_package("reveal.js")


def test_without_a_browser_the_trial_is_skipped(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lab.reach.browser"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "CHROMIUM": "no-such-browser"},
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith("skipped: No Chromium is here")


WRONG = """<!doctype html><html><head><title>t</title></head><body><main><article>
<img src="none.png"><img alt="x" src="https://nowhere.example/a.png">
<p style="font-size: 8px">tiny</p><div style="width: 900px">wide</div>
<script>missing()</script></article></main></body></html>"""


@pytest.fixture
def in_chromium():
    """A function that looks at an HTML file in Chromium, where the book's environment is there."""
    python = tools.ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    try:
        tools.chromium()
    except tools.MissingTool:
        pytest.skip("no Chromium here: `make browser` says how to get one")
    if not python.exists() or not (tools.NODE / "installed.txt").exists():
        pytest.skip("no build/venvs/book or build/node: `make book` and `make slides` make them")
    look = (
        "import sys; from pathlib import Path; from lab.reach.pages import *\n"
        "file = Path(sys.argv[1])\n"
        "with started() as b: r = eval(sys.argv[2])\n"
        "print(*r.faults, sep='\\n')"
    )

    def faults(file, how):
        done = subprocess.run(
            [python, "-c", look, file, how], cwd=ROOT, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return faults


def test_the_trial_finds_what_is_wrong(tmp_path, in_chromium):
    """A page with a fault of each kind."""
    (tmp_path / "a.html").write_text(WRONG, encoding="utf-8")
    found = in_chromium(tmp_path / "a.html", "look_at(b, file, file.parent, 'a')")
    for fault in (
        "asks for https://nowhere", "failed: file:", "no alt text", "script error", "too small",
        "html-has-lang", "pixels wide on a narrow screen", "dark is wanted",
    ):  # fmt: skip
        assert fault in found, found


def test_reports_of_sweeps_are_without_fault(tmp_path, in_chromium):
    """axe, alt text, requests, a narrow screen: the report of one sweep, and of two."""
    one, two = (a_sweep(tmp_path / name, change) for name, change in (("a", 0.0), ("b", 0.5)))
    for page in (write_report(one.path), write_comparison(one.path, two.path)):
        assert in_chromium(page, "look_at_any(b, file)").strip() == ""
