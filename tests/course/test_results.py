"""Tables of results: the shipped ones were measured on the shipped weights."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dsd_tutorial.course.records import ResultsError, read_table, results_folder
from dsd_tutorial.stable_diffusion.checksums import combined_sha256, folder_checksums
from dsd_tutorial.stable_diffusion.registry import EMBEDDED_FOLDER

TIMES = "benchmark.csv"  # of machines and code, whatever the weights
SHIPPED = sorted(
    p for p in results_folder().glob("*.csv") if not p.name.endswith((".stale.csv", TIMES))
)


def test_a_missing_table_names_its_command():
    with pytest.raises(ResultsError, match="python -m lab measure nothing"):
        read_table("nothing")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_shipped_tables_were_measured_on_the_shipped_weights(path: Path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    shipped = combined_sha256(folder_checksums(EMBEDDED_FOLDER))
    assert rows and {row["model_sha256"] for row in rows} == {shipped}
