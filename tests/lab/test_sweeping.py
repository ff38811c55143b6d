"""What sweeps cost: rows, the page that says them, and a simulation that knows its limits."""

import pytest

from lab.bench import sweeping
from lab.bench.cases import COLUMNS
from lab.bench.sweeping import simulate
from lab.bench.timing import timed_row


def test_without_overhead_the_workers_decide():
    found = simulate(1000, 10, lambda: 36.0, 0.0, 0.0)
    assert found.hours == pytest.approx(1.0) and found.workers_busy == pytest.approx(1.0)


def test_a_slow_client_or_scheduler_decides():
    slow_client = simulate(1000, 100, lambda: 1.0, 1.0, 0.0)
    assert 1000 <= slow_client.hours * 3600 < 1003 and slow_client.client_busy > 0.99
    slow_scheduler = simulate(1000, 100, lambda: 1.0, 0.0, 1.0)
    assert 1000 <= slow_scheduler.hours * 3600 < 1003 and slow_scheduler.workers_busy < 0.02


def test_the_page_says_what_the_rows_hold_and_simulates_from_them():
    rows = {
        (row["case"], row["way"]): row
        for row in [
            *sweeping.entries(20),
            timed_row(sweeping.A_RUN, "papermill alone", [1.5, 1.25], peak_mb=""),
            timed_row(sweeping.A_RUN, "in a sweep of 10", [2.0], peak_mb=140),
            timed_row(sweeping.A_RUN, "in a sweep of 200", [1.4], peak_mb=141),
            timed_row(sweeping.COSTS, "of the client", [0.1, 0.2]),
            timed_row(sweeping.COSTS, "of dask", [0.001]),
        ]
    }
    assert set(next(iter(rows.values()))) == set(COLUMNS)
    plan = "sweep, plan of 20 runs"
    rows |= {("sweep, plan of 10,000 runs", way): row for (c, way), row in rows.items()
             if c == plan}  # fmt: skip
    said = " ".join(sweeping.page(rows).split())
    assert "1.25 s by papermill alone, 2.00 s each in a sweep of 10" in said
    assert "shorter than 50 s the client would be the bottleneck" in said
    assert "140 MB for the one and 141 MB for the other" in said and "client 100 ms" in said
    shortest = next(line for line in sweeping.page(rows).splitlines() if line.startswith("| 20 s"))
    hours, workers, client, *_ = shortest.strip("| ").split(" | ")[1:]
    # 100,000 runs at a tenth of a second each, one after the other: the client is the bottleneck
    assert float(hours) == pytest.approx(100_000 * 0.1 / 3600, abs=0.1)
    assert (workers, client) == ("40 %", "100 %")
