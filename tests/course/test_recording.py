"""What notebooks hand on to whoever ran them."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from course_files import write_notebook

from dsd_tutorial.course.execution import run_notebook
from dsd_tutorial.course.recording import figures_of, record, recorded
from dsd_tutorial.course.running import write_html

SOURCE = """
import pandas as pd
from types import SimpleNamespace
from dsd_tutorial.course import record, record_table
interval = SimpleNamespace(value=0.75, low=0.3, high=0.95, n=4)
record("accuracy", {"CLIP": {"comvg": interval}, "error": 0.1 + 0.2})
record_table("choices", pd.DataFrame({"layer": ["up.2.1"], "share": [0.25]}))
print("shown")
"""


def test_figures_and_tables_arrive_exactly_and_pages_do_not_show_them(tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", SOURCE, "record('error', 7)")
    outcome = run_notebook(path, tmp_path / "out" / "a.ipynb", progress=False)
    assert outcome.status == "ok", outcome.error
    figures, tables, _ = recorded(json.loads((tmp_path / "out" / "a.ipynb").read_text()))
    assert figures["accuracy/CLIP/comvg"] == {"value": 0.75, "low": 0.3, "high": 0.95, "n": 4}
    assert figures["accuracy/error"]["value"] == 0.1 + 0.2 and figures["error"]["value"] == 7
    assert tables == {"choices": [{"layer": "up.2.1", "share": 0.25}]}
    page = write_html(tmp_path / "out" / "a.ipynb").read_text(encoding="utf-8")
    assert "shown" in page and "vnd.dsd-tutorial" not in page


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.array(True), True),
        (math.nan, None),
        ("a", "a"),
    ],
)
def test_a_figure_is_what_json_has(value, plain):
    assert figures_of("x", value) == {"x": {"value": plain}}
    assert type(figures_of("x", value)["x"]["value"]) is type(plain)


@pytest.mark.parametrize("value", [np.zeros(2), [1, 2], pd.DataFrame({"a": [1]}), object()])
def test_what_is_no_figure_is_named(value):
    with pytest.raises(ValueError, match="record_table"):
        record("x", {"y": value})
