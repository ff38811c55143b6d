"""Tables of results: resumable, never mixed with other weights or settings, written whole."""

import pandas as pd
import pytest

from dsd_tutorial.course.records import ResultsError
from lab.measuring.tables import Table, publish, require_results_file

COLUMNS = ("method", "seed", "value")


def open_table(path, sha="a" * 64):
    return Table(path, COLUMNS, keys=("method", "seed"), sha256=sha)


def row(seed=0, value=0.5):
    return {"method": "clip", "seed": seed, "value": value}


def test_rows_are_on_disk_at_once_and_known_after_a_restart(tmp_path):
    open_table(tmp_path / "t.csv").add([row(), row(2, 1 / 3)])
    again = open_table(tmp_path / "t.csv")
    assert again.has(method="clip", seed=0) and not again.has(method="clip", seed=1)
    assert again.frame().value.tolist() == [0.5, 0.333333]


def test_a_measurement_is_not_written_twice(tmp_path):
    table = open_table(tmp_path / "t.csv")
    table.add([row()])
    table.add([row(value=0.7), row(1, 1.0)])
    assert table.frame().value.tolist() == [0.5, 1.0]


def test_rows_of_other_weights_are_moved_aside_not_lost(tmp_path):
    open_table(tmp_path / "t.csv").add([row()])
    table = open_table(tmp_path / "t.csv", sha="b" * 64)
    assert not table.has(method="clip", seed=0)
    table.add([row(value=0.75)])
    assert table.frame().value.tolist() == [0.75]
    assert "0.5" in (tmp_path / "t.stale.csv").read_text()
    open_table(tmp_path / "t.csv", sha="c" * 64)
    assert "0.75" in (tmp_path / "t.2.stale.csv").read_text()


def test_a_half_written_last_line_is_measured_again(tmp_path):
    path = tmp_path / "t.csv"
    open_table(path).add([row()])
    with open(path, "a") as file:
        file.write("clip,1")
    again = open_table(path)
    assert not again.has(method="clip", seed=1)
    again.add([row(1, 1.0)])
    assert again.frame().value.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    "wrong", [dict(method="x", seed=0), dict(method="x", seed=0, v=1, value=2)]
)
def test_missing_and_unknown_columns_are_named(tmp_path, wrong):
    with pytest.raises(ResultsError, match="value|v"):
        open_table(tmp_path / "t.csv").add([row(), wrong])
    assert not (tmp_path / "t.csv").exists()  # all rows or none


def test_other_columns_in_the_file_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ResultsError, match="move it away"):
        open_table(tmp_path / "t.csv")
    with pytest.raises(ResultsError, match="no table of results"):
        require_results_file(tmp_path / "t.csv")


def test_a_published_table_has_the_columns_of_its_rows(tmp_path):
    publish(tmp_path / "t.csv", [row(), {**row(1), "value": 2e-9}], "a" * 64)
    found = pd.read_csv(tmp_path / "t.csv")
    assert list(found.columns) == [*COLUMNS, "model_sha256"] and found.value[1] == 2e-9
    require_results_file(tmp_path / "t.csv")
    publish(tmp_path / "none.csv", [], "a" * 64)
    assert not (tmp_path / "none.csv").exists()
