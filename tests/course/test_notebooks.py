"""The committed notebooks as files: stripped, parameterised, each with fast values."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml

from dsd_tutorial.course.notebooks import NotebookNotFound, find_notebook, read_title
from dsd_tutorial.course.parameters import PARAMETERS, defaults, validate
from lab.upkeep.strip import is_stripped, stripped, text_of

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FAST = yaml.safe_load((ROOT / "tests" / "params" / "fast.yaml").read_text(encoding="utf-8"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@each
def test_is_stripped(path):
    assert is_stripped(path), f"run `make strip`: {path.name} is not in its committed form"


@each
def test_defaults_are_exactly_what_the_class_describes(path):
    values = defaults(path)
    assert set(values) == set(PARAMETERS[path.stem].model_fields)
    validate(path.stem, values)


@each
def test_parameters_are_annotated_and_checked(path):
    cells = nbformat.read(path, as_version=4).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    for line in tagged[0].source.splitlines():
        if line and not line.startswith("#"):
            assert ":" in line.split("=")[0], f"no type: {line}"
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert f'check_parameters("{path.stem}", globals())' in code


@each
def test_fast_values_are_allowed_and_differ_from_the_defaults(path):
    values = FAST.get(path.stem)
    assert values, f"tests/params/fast.yaml has no entry for {path.stem}"
    own = defaults(path)
    validate(path.stem, {**own, **values})
    same = [name for name, value in values.items() if value == own[name]]
    assert not same, f"{same} equal the notebook's defaults: they would test nothing"


@each
def test_has_a_title_and_no_relative_path(path):
    assert read_title(path) != path.stem
    text = path.read_text(encoding="utf-8")
    for wrong in ("../", "/home/", "/Users/", "C:\\\\"):
        assert wrong not in text, f"{wrong} in {path.name}: notebooks use no paths"


def test_every_description_belongs_to_a_notebook():
    names = {path.stem for path in NOTEBOOKS}
    if not names:
        pytest.skip("notebooks/ is empty")
    assert set(PARAMETERS) == names
    assert set(FAST) == names


def test_stripping_removes_what_a_run_leaves_and_keeps_tags():
    notebook = nbformat.v4.new_notebook(
        metadata={"widgets": {"a": 1}, "kernelspec": {"name": "my-own", "display_name": "Mine"}}
    )
    cell = nbformat.v4.new_code_cell(
        "1 + 1",
        execution_count=7,
        metadata={
            "tags": ["solution"],
            "jupyter": {"source_hidden": True, "outputs_hidden": False},
            "execution": {"iopub.status.busy": "now"},
            "collapsed": True,
        },
    )
    cell.outputs = [nbformat.v4.new_output("stream", text="2")]
    notebook.cells = [cell, nbformat.v4.new_code_cell("1 + 1")]
    clean = stripped(notebook)
    assert clean.cells[0].outputs == [] and clean.cells[0].execution_count is None
    assert clean.cells[0].metadata == {"tags": ["solution"], "jupyter": {"source_hidden": True}}
    assert clean.metadata.kernelspec.name == "python3" and "widgets" not in clean.metadata
    assert clean.cells[0].id != clean.cells[1].id
    assert text_of(stripped(clean)) == text_of(clean)
    assert notebook.cells[0].outputs, "the notebook given is left alone"


def test_a_saved_output_is_noticed(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    path = tmp_path / "a.ipynb"
    path.write_text(text_of(stripped(notebook)), encoding="utf-8", newline="\n")
    assert is_stripped(path)
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="2")]
    nbformat.write(notebook, path)
    assert not is_stripped(path)


def test_a_folder_without_notebooks_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("CLONE", "CARRIED"):
        monkeypatch.setattr(f"dsd_tutorial.course.notebooks.{place}", tmp_path / "nowhere")
    with pytest.raises(NotebookNotFound, match="change into a clone"):
        find_notebook("00")


@each
def test_the_cell_for_colab_does_nothing_elsewhere(path, monkeypatch):
    """It comes first, is folded away and left out of the book; on Colab it installs the course."""
    (cell, *_) = (c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
    assert "remove-cell" in cell.metadata.tags and cell.metadata.jupyter.source_hidden
    asked = []
    shell = SimpleNamespace(run_line_magic=lambda *given: asked.append(given))
    names = {"get_ipython": lambda: shell}
    exec(cell.source, names)
    assert asked == []
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
    exec(cell.source, names)
    ((magic, line),) = asked
    assert magic == "pip" and "dsd-tutorial" in line


def test_whoever_runs_notebooks_does_not_wait_for_a_grammar():
    code = (
        "import sys; from dsd_tutorial.course.notebooks import hasten_nbformat; hasten_nbformat()\n"
        "import nbformat, papermill; nbformat.validate(nbformat.v4.new_notebook())\n"
        "assert 'rfc3987_syntax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    slow = re.compile(r"^ +(?:import|from) (?:nbformat|papermill)\b", re.M)
    for path in (ROOT / "dsd_tutorial").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        found = slow.search(text)
        assert not found or "hasten_nbformat()" in text[: found.start()], path
