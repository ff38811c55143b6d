"""The simulation of many runs knows its limits: workers, client, scheduler."""

import pytest

from lab.upkeep.sweep_costs import simulate


def test_without_overhead_the_workers_decide():
    found = simulate(1000, 10, lambda: 36.0, 0.0, 0.0)
    assert found.hours == pytest.approx(1.0) and found.workers_busy == pytest.approx(1.0)


def test_a_slow_client_or_scheduler_decides():
    slow_client = simulate(1000, 100, lambda: 1.0, 1.0, 0.0)
    assert 1000 <= slow_client.hours * 3600 < 1003 and slow_client.client_busy > 0.99
    slow_scheduler = simulate(1000, 100, lambda: 1.0, 0.0, 1.0)
    assert 1000 <= slow_scheduler.hours * 3600 < 1003 and slow_scheduler.workers_busy < 0.02
