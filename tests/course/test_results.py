"""Tables of results: resumable, never mixed with other weights, and the shipped ones are fresh."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dsd_tutorial.course.records import ResultsError, Table, read_table, results_folder
from dsd_tutorial.stable_diffusion.checksums import combined_sha256, folder_checksums
from dsd_tutorial.stable_diffusion.registry import EMBEDDED_FOLDER

COLUMNS = ("method", "seed", "value")
SHIPPED = sorted(p for p in results_folder().glob("*.csv") if not p.name.endswith(".stale.csv"))


def open_table(path, sha="a" * 64):
    return Table(path, COLUMNS, keys=("method", "seed"), sha256=sha)


def test_rows_are_on_disk_at_once_and_known_after_a_restart(tmp_path):
    table = open_table(tmp_path / "t.csv")
    table.add(method="clip", seed=0, value=0.5)
    again = open_table(tmp_path / "t.csv")
    assert again.has(method="clip", seed=0) and not again.has(method="clip", seed=1)
    assert again.frame().value.tolist() == [0.5]


def test_a_measurement_is_not_written_twice(tmp_path):
    table = open_table(tmp_path / "t.csv")
    table.add(method="clip", seed=0, value=0.5)
    with pytest.raises(ResultsError, match="already holds"):
        table.add(method="clip", seed=0, value=0.7)


def test_rows_of_other_weights_are_moved_aside_not_lost(tmp_path):
    open_table(tmp_path / "t.csv").add(method="clip", seed=0, value=0.5)
    table = open_table(tmp_path / "t.csv", sha="b" * 64)
    assert not table.has(method="clip", seed=0)
    table.add(method="clip", seed=0, value=0.75)
    assert table.frame().value.tolist() == [0.75]
    assert "0.5" in (tmp_path / "t.stale.csv").read_text()


def test_a_half_written_last_line_is_measured_again(tmp_path):
    path = tmp_path / "t.csv"
    table = open_table(path)
    table.add(method="clip", seed=0, value=0.5)
    with open(path, "a") as file:
        file.write("clip,1")
    again = open_table(path)
    assert not again.has(method="clip", seed=1)
    again.add(method="clip", seed=1, value=1.0)
    assert again.frame().value.tolist() == [0.5, 1.0]


@pytest.mark.parametrize("row", [dict(method="x", seed=0), dict(method="x", seed=0, v=1, value=2)])
def test_missing_and_unknown_columns_are_named(tmp_path, row):
    with pytest.raises(ResultsError, match="value|v"):
        open_table(tmp_path / "t.csv").add(**row)


def test_other_columns_in_the_file_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ResultsError, match="move it away"):
        open_table(tmp_path / "t.csv")


def test_a_missing_table_names_its_command():
    with pytest.raises(ResultsError, match="python -m lab measure nothing"):
        read_table("nothing")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_shipped_tables_were_measured_on_the_shipped_weights(path: Path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    shipped = combined_sha256(folder_checksums(EMBEDDED_FOLDER))
    assert rows and {row["model_sha256"] for row in rows} == {shipped}
