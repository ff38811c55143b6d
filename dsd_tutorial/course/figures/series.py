"""What a chart is given, and what its alt text says of it.

A *point* is a number, or an interval: anything with `low`, `high` and `value` (or `accuracy`), such
as a row of a stored table. A *series* is {x: point}, a pandas Series, a pair (xs, points), or the
points alone. Where names map to series, titles may map to such mappings: a panel for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np

TOLD = 6  # a series with more points is told by its first, highest and last


def _is_point(value: Any) -> bool:
    return hasattr(value, "low") or (not isinstance(value, Mapping) and np.ndim(value) == 0)


def interval(point: Any) -> tuple[float, float, float]:
    """Return (value, low, high); low and high are NaN for a mere number, all for None."""
    if hasattr(point, "low"):
        value = point.value if hasattr(point, "value") else point.accuracy
        return float(value), float(point.low), float(point.high)
    return float("nan") if point is None else float(point), float("nan"), float("nan")


def depth(data: Any) -> int:
    """Return how many levels lie above the points: 1 for a series, 2 for named ones, 3 panels."""
    if _is_point(data):
        return 0
    return 1 + depth(next(iter(data.values()), 0)) if isinstance(data, Mapping) else 1


def _series(data: Any, x: Sequence[Any] | None) -> dict[Any, Any]:
    if hasattr(data, "items"):  # a mapping or a pandas Series
        return dict(data.items())
    if isinstance(data, tuple) and len(data) == 2 and not _is_point(data[0]):
        return _series(data[1], data[0])
    points = list(getattr(data, "detach", lambda: data)())
    return dict(zip(range(len(points)) if x is None else x, points, strict=True))


def panels_of(data: Any, x: Sequence[Any] | None = None) -> dict[str, dict[str, dict[Any, Any]]]:
    """Return {title: {name: {x: point}}}, without titles and names where there are none."""
    for _ in range(3 - depth(data)):
        data = {"": data}
    return {
        title: {name: _series(series, x) for name, series in named.items()}
        for title, named in data.items()
    }


def say(value: float) -> str:
    """Return a number as alt text gives it: two decimals, or two digits where it is small."""
    return f"{value:.2f}" if value == 0 or 0.095 <= abs(value) < 1e4 else f"{value:.2g}"


def _told(series: Mapping[Any, Any]) -> str:
    values = {x: interval(point)[0] for x, point in series.items() if point is not None}
    if any(isinstance(x, str) for x in values):
        return ", ".join(f"{fill(x, 99)} {say(v)}" for x, v in values.items())
    there = [f"{say(v)} at {float(x):g}" for x, v in values.items()]
    if len(there) > TOLD:
        top = int(np.nanargmax(list(values.values())))
        there = [there[0], f"at most {there[top]}", there[-1]]
    return ", ".join(there)


def told(alt: str, panels: Mapping[str, Mapping[str, Mapping[Any, Any]]]) -> str:
    """Return the lead sentence followed by the values of {title: {name: {x: point}}}."""
    parts = []
    for title, named in panels.items():
        values = "; ".join(f"{name} {_told(series)}".strip() for name, series in named.items())
        parts.append(f"{title}: {values}" if title else values)
    return f"{alt.rstrip('.: ')}: {'. '.join(parts)}."
