"""A plan says passes, memory and files, and starts nothing."""

import json

import pytest
from typer.testing import CliRunner

from dsd_tutorial.cli import app
from dsd_tutorial.course import planning
from dsd_tutorial.course.notebooks import all_notebooks
from dsd_tutorial.course.parameters import defaults
from lab.upkeep import readme


def test_passes_lie_on_the_line_through_two_runs(tmp_path):
    record = tmp_path / "notebooks.json"
    values = {"n_items": 30, "n_validation": 10, "steps": [300, 500]}
    known = {"01_attention_scores": {"passes": {"quick": [20, 700], "defaults": [60, 1900]}}}
    record.write_text(json.dumps({"notebooks": known}))
    assert planning.passes_of("01_attention_scores", values, record) == 700 + 60 * 30
    assert planning.passes_of("00_orientation", values, record) is None


def test_every_notebook_has_its_units():
    for notebook in all_notebooks():
        assert planning.UNITS[notebook.name](defaults(notebook.path)) > 0


def test_a_plan_names_an_absent_model_and_starts_nothing(monkeypatch):
    monkeypatch.setattr("dsd_tutorial.course.running.run_all", lambda *a: 1 / 0)
    found = CliRunner().invoke(app, ["run", "01", "-p", "model", "sd-1.5", "--plan"])
    assert found.exit_code == 0
    assert "U-Net passes: " in found.output and "weights 6.0 GB (float32)" in found.output
    assert "hf download stable-diffusion-v1-5" in found.output and "OpenRAIL" in found.output
    here = CliRunner().invoke(app, ["run", "01", "-p", "n_items", "9", "--plan"])
    assert here.exit_code == 0 and "models/shapes-sd" in here.output.replace("\\", "/")


def test_bad_values_are_refused_in_a_plan_too():
    for bad in (["-p", "n_items", "1"], ["-p", "model", "sd1.5"]):
        assert CliRunner().invoke(app, ["run", "01", *bad, "--plan"]).exit_code != 0


def test_passes_come_from_what_executed_notebooks_say(tmp_path):
    source = next(n.path for n in all_notebooks() if n.name == "00_orientation")
    notebook = json.loads(source.read_text(encoding="utf-8"))
    notebook["cells"][-1]["outputs"] = [
        {"output_type": "stream", "name": "stdout", "text": ["1,234 U-Net passes, 5 s, 0.7 GB"]}
    ]
    notebook["cells"][-1] |= {"cell_type": "code", "execution_count": None}
    (tmp_path / source.name).write_text(json.dumps(notebook), encoding="utf-8")
    found = readme.passes_of("00_orientation", tmp_path)
    assert found == {"defaults": [planning.UNITS["00_orientation"](defaults(source)), 1234]}
    entry = {"seconds": 9.0, "peak_mb": 700}
    before = {"notebooks": {"00_orientation": {"passes": {"quick": [8, 90], "defaults": [1, 2]}}}}
    record = readme.with_passes({"notebooks": {"00_orientation": entry}}, before, tmp_path)
    # what was not run again stays known
    assert record["notebooks"]["00_orientation"] == entry | {"passes": {"quick": [8, 90], **found}}


def test_the_record_knows_the_passes_of_every_notebook():
    for notebook in all_notebooks():
        values = defaults(notebook.path)
        assert planning.passes_of(notebook.name, values) > 100, "run `make test`, `make readme`"


@pytest.mark.parametrize("name", ["shapes-sd", "sd-1.5", "sd-2.1-base"])
def test_memory_follows_the_precision(name):
    full, half = (planning._memory({"model": name, "dtype": d}) for d in ("float32", "bfloat16"))
    assert full != half or name == "shapes-sd"
