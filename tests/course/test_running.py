"""Running notebooks: failures of every kind are seen, and cost is measured."""

import json

import nbformat
import pytest
from course_files import small_clone, write_notebook
from papermill import engines

from dsd_tutorial.course import execution
from dsd_tutorial.course.execution import run_notebook, unfinished
from dsd_tutorial.course.parameters import ParameterError
from dsd_tutorial.course.running import main, run_all, write_html
from dsd_tutorial.course.watching import Limits

CHECK = (
    "from dsd_tutorial.course.parameters import check_parameters\n"
    'p = check_parameters("00_orientation", globals())'
)


def test_parameters_arrive_and_cost_is_measured(tmp_path):
    hold = "import time\nblock = b'x' * 150_000_000\ntime.sleep(2)  # longer than a sample\n"
    path = small_clone(tmp_path, CHECK, hold + "print(steps)")
    output = tmp_path / "build" / path.name
    outcome = run_notebook(path, output, {"steps": 7}, progress=False)
    assert outcome.status == "ok" and outcome.error is None
    assert outcome.peak_mb > 150 and outcome.seconds > 0
    cells = json.loads(output.read_text(encoding="utf-8"))["cells"]
    assert "".join(cells[-1]["outputs"][0]["text"]) == "7\n"


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        (("1 / 0", "print(1)"), "ZeroDivisionError"),
        (("import sys; sys.exit(0)", "print(1)"), "did not run to their end"),
        (("import os; os._exit(0)", "print(1)"), "Dead"),
    ],
    ids=["error", "exit", "dead kernel"],
)
def test_a_notebook_that_stops_half_way_failed(tmp_path, sources, says):
    path = write_notebook(tmp_path / "stops.ipynb", *sources)
    outcome = run_notebook(path, tmp_path / "out" / "stops.ipynb", progress=False)
    assert outcome.status == "failed"
    assert says in outcome.error


@pytest.mark.parametrize(("every", "writes"), [(0.0, 2 + 2 * 3), (1e9, 2)])
def test_the_file_is_saved_now_and_then_and_whole_at_the_end(tmp_path, monkeypatch, every, writes):
    written, write = [], engines.write_ipynb
    monkeypatch.setattr(execution, "SAVE_EVERY", every)
    monkeypatch.setattr(engines, "write_ipynb", lambda nb, path: written.append(write(nb, path)))
    path = write_notebook(tmp_path / "prints.ipynb", "print(1)", "print(2)", "1 / 0")
    output = tmp_path / "out" / "prints.ipynb"
    assert run_notebook(path, output, progress=False).status == "failed"
    assert len(written) == writes
    cells = [c for c in json.loads(output.read_text(encoding="utf-8"))["cells"] if c.get("outputs")]
    said = ["".join(o.get("text", "")).strip() for c in cells for o in c["outputs"]]
    assert [text for text in said if text] == ["1", "2"]


def test_ctrl_c_loses_nothing_of_what_was_done(tmp_path, monkeypatch):
    def interrupted(nb_man, *args, **kwargs):
        nb_man.nb.cells[0].outputs = [nbformat.v4.new_output("stream", text="done")]
        nb_man.cell_complete(nb_man.nb.cells[0], 0)
        raise KeyboardInterrupt

    monkeypatch.setattr(engines.NBClientEngine, "execute_managed_notebook", interrupted)
    path = write_notebook(tmp_path / "long.ipynb", "print('done')")
    output = tmp_path / "out" / "long.ipynb"
    with pytest.raises(KeyboardInterrupt):
        run_notebook(path, output, progress=False)
    assert "done" in output.read_text(encoding="utf-8")


def test_unknown_parameter_injected_by_papermill_itself_stops_the_notebook(tmp_path):
    path = small_clone(tmp_path, CHECK, 'print("work")')
    outcome = run_notebook(path, tmp_path / "out.ipynb", {"stepz": 3}, progress=False)
    assert outcome.status == "failed" and "did you mean 'steps'" in outcome.error


def test_nothing_starts_when_one_notebook_has_a_bad_value(tmp_path, monkeypatch):
    path = small_clone(tmp_path)
    monkeypatch.setattr(
        "dsd_tutorial.course.running.run_notebook", lambda *a, **k: pytest.fail("ran")
    )
    with pytest.raises(ParameterError, match="from 1 to 1000"):
        run_all([path], tmp_path / "build", {path.stem: {"steps": 0}})


def test_notebooks_run_side_by_side_and_are_told_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr("dsd_tutorial.course.running.validate", lambda *a, **k: None)
    meet = (
        "import pathlib, time\n"
        "pathlib.Path('{own}').touch()\n"
        "end = time.time() + 60\n"
        "while not pathlib.Path('{other}').exists():  # only the other notebook makes it\n"
        "    assert time.time() < end\n"
        "    time.sleep(0.1)\n"
    )
    first = write_notebook(tmp_path / "a.ipynb", meet.format(own="a", other="b"))
    second = write_notebook(tmp_path / "b.ipynb", meet.format(own="b", other="a"), "1 / 0")
    outcomes = run_all([first, second], tmp_path / "build", jobs=2)
    assert [(o.notebook, o.status) for o in outcomes] == [("a", "ok"), ("b", "failed")]
    assert all(o.peak_mb > 20 for o in outcomes)


@pytest.mark.parametrize(
    "faults, status",
    [
        (["Kernel died before replying to kernel_info"] * 2, "ok"),
        (["Kernel died before replying to kernel_info"] * 3, "failed"),
        (["Kernel died"], "failed"),
    ],
)
def test_kernel_whose_port_was_taken_is_started_again(tmp_path, monkeypatch, faults, status):
    """Ports are picked before the kernel binds them; between the two another one may take them."""
    import papermill

    path, faults = write_notebook(tmp_path / "a.ipynb", "1"), [*faults]
    real = papermill.execute_notebook

    def execute(*arguments, **options):
        if faults:
            raise RuntimeError(faults.pop(0))
        return real(*arguments, **options)

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    assert run_notebook(path, tmp_path / "build" / "a.ipynb", progress=False).status == status
    assert not faults


@pytest.mark.parametrize(
    ("limits", "kind"),
    [(Limits(minutes=0.04), "OutOfTime"), (Limits(memory_mb=120), "OutOfMemory"), (None, "Fault")],
)
def test_what_takes_too_much_is_ended_and_named(tmp_path, limits, kind):
    hold = "import time\nblock = b'x' * 150_000_000\ntime.sleep(60)"
    raise_ = "class Fault(Exception): pass\nraise Fault('no')"
    path = write_notebook(tmp_path / "a.ipynb", "print('kept')", hold if limits else raise_)
    outcome = run_notebook(path, tmp_path / "out" / "a.ipynb", progress=False, limits=limits)
    assert (outcome.status, outcome.error_class) == ("failed", kind) and outcome.seconds < 60
    assert "kept" in (tmp_path / "out" / "a.ipynb").read_text(encoding="utf-8")


def test_unfinished_cells():
    def code(source="1", tags=(), **record):
        return {
            "cell_type": "code",
            "source": [source],
            "metadata": {"tags": list(tags), "papermill": record},
        }

    done = code(status="completed", exception=False)
    cells = [
        done,
        code(status="pending"),
        code(status="completed", exception=True),
        code(" "),
        code(tags=["skip-execution"]),
        {"cell_type": "markdown", "source": "", "metadata": {}},
    ]
    assert unfinished({"cells": cells}) == [1, 2]


def test_the_whole_course_leaves_pages_a_record_and_its_status(tmp_path, monkeypatch, capsys):
    small_clone(tmp_path, CHECK, "print(seed)")
    monkeypatch.chdir(tmp_path)
    assert main(["--html", "--set", "seed", "5"]) == 0
    assert (tmp_path / "build" / "00_orientation.html").is_file()
    record = json.loads((tmp_path / "build" / "run.json").read_text())
    assert record["notebooks"][0]["status"] == "ok" and record["machine"]["cores"] >= 1
    assert "1 of 1 notebooks" in capsys.readouterr().out
    assert main(["--set", "steps", "0"]) == 2
    assert "steps = 0" in capsys.readouterr().err


def test_no_notebook_at_all_is_no_failure(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0


def test_pages_fold_solutions_away(tmp_path):
    from nbformat.v4 import new_code_cell, new_notebook

    cells = [new_code_cell("open_one = 1"), new_code_cell("secret = 2")]
    cells[1].metadata["tags"] = ["solution"]
    path = tmp_path / "page.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    page = write_html(path).read_text(encoding="utf-8")
    before, folded = page.split("<summary>Solution</summary>")
    assert "open_one" in before and "secret" not in before
    assert "secret" in folded.split("</details>")[0]
