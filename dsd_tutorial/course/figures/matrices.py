"""Tables drawn: a matrix with labelled axes, intervals of many methods, accuracy beside its cost.

show_matrix(values, layers, steps, alt="Accuracy by layer and step.", center=0)
show_costs(table[table.task == "comvg"], alt="Accuracy and cost on ComVG.")
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsd_tutorial.course.figures.charts import add_legend
from dsd_tutorial.course.figures.series import interval, panels_of, say
from dsd_tutorial.course.figures.style import INK, MARKERS, SERIES, SIGNED, UNIFORM, figure

COSTS = ("unet_passes", "labels", "parameters", "seconds")
NUMBERED = 250  # cells; a larger matrix carries no numbers


def show_matrix(
    values: Any, rows: Sequence[Any], columns: Sequence[Any], *, alt: str, label: str = "",
    center: float | None = None, marks: Any = None, divide: int | None = None,
    xlabel: str = "", ylabel: str = "", across: int = 1,
    size: tuple[float, float] | None = None,
) -> None:  # fmt: skip
    """Show a matrix as a heat map with labelled axes, a scale, and its numbers where they fit.

    Args:
        values: (rows, columns), or title -> such a matrix; several have one scale.
        rows: label of each row.
        columns: label of each column.
        alt: what the cells are, in a sentence; where the highest and lowest lie is added to it.
        label: of the scale.
        center: value in the middle of the scale; None: the scale runs from lowest to highest.
        marks: (rows, columns), true where a star stands behind the number.
        divide: a dashed line before this row and column.
        xlabel: what the columns are.
        ylabel: what the rows are.
        across: how many matrices stand side by side.
        size: of the figure in inches.
    """
    named = values if isinstance(values, Mapping) else {"": values}
    whole = all(np.asarray(table).dtype.kind in "iu" for table in named.values())
    tables = {title: np.asarray(table, float) for title, table in named.items()}
    every = np.stack(list(tables.values()))
    low, high = np.nanmin(every), np.nanmax(every)
    if center is not None:
        reach = max(high - center, center - low) or 1.0
        low, high = center - reach, center + reach
    ends = [_cell(tables, rows, columns, pick(every)) for pick in (np.nanargmax, np.nanargmin)]
    said = f"{alt.rstrip('.: ')}: highest {ends[0]}, lowest {ends[1]}."
    down = math.ceil(len(tables) / across)
    size = size or (min(0.5 * len(columns) * across + 2.2, 9.5),
                    (0.3 * len(rows) + 0.5) * down + 0.8)  # fmt: skip
    with figure(
        alt=said, rows=down, columns=across, size=size, sharex=True, sharey=True, squeeze=False
    ) as (fig, axes):
        for axis in axes.flat[len(tables) :]:
            axis.set_axis_off()
        for axis, (title, table) in zip(axes.flat, tables.items(), strict=False):
            axis.imshow(table, vmin=low, vmax=high, aspect="auto",
                                cmap=UNIFORM if center is None else SIGNED)  # fmt: skip
            if table.size <= NUMBERED:
                _write_numbers(axis, table, marks, (low + high) / 2, 0 if whole else 2)
                axis.set_yticks(range(len(rows)), rows)
                turned = 45 if max(len(str(x)) for x in columns) > 4 else 0
                axis.set_xticks(range(len(columns)), columns, rotation=turned)
            if divide is not None:
                axis.axhline(divide - 0.5, color="white", linestyle="--")
                axis.axvline(divide - 0.5, color="white", linestyle="--")
            axis.set(title=title)
        for axis in axes[:, 0]:
            axis.set_ylabel(ylabel)
        for axis in axes[-1]:
            axis.set_xlabel(xlabel)
        fig.colorbar(axes[0, 0].images[0], ax=axes, label=label)


def _write_numbers(axis: Any, table: np.ndarray, marks: Any, middle: float, digits: int) -> None:
    starred = np.zeros(table.shape, bool) if marks is None else np.asarray(marks, bool)
    for (row, column), number in np.ndenumerate(table):
        axis.text(column, row, f"{number:.{digits}f}{'*' if starred[row, column] else ''}",
                  ha="center", va="center", fontsize=7,
                  color="white" if number < middle else "black")  # fmt: skip


def _cell(
    tables: Mapping[str, np.ndarray], rows: Sequence[Any], columns: Sequence[Any], place: Any
) -> str:
    table, row, column = np.unravel_index(place, (len(tables), len(rows), len(columns)))
    title = list(tables)[table]
    value = float(tables[title][row, column])
    where = f"{rows[row]}, {columns[column]}"
    return f"{say(value)} at {f'{title}, ' if title else ''}{where}"


def show_intervals(
    methods: Mapping[str, Any], *, alt: str, xlabel: str = "", reference: Any = None,
    level: str = "chance", kinds: Mapping[str, str] | None = None, **settings: Any,
) -> None:  # fmt: skip
    """Show many methods below one another, the best on top: a mark and its interval.

    Panels that share a `reference` share their scale.

    Args:
        methods: method -> point, or title -> such a mapping, a panel each.
        alt: what is compared, in a sentence; best and worst of each panel are added to it.
        xlabel: what is measured.
        kinds: method -> kind; kinds have markers of their own.
        reference: a dashed line: a number, or title -> number.
        level: what the dashed line is called.
        settings: for `axis.set`, such as xlim.
    """
    panels = panels_of(methods)[""]
    means: dict[str, list[float]] = {}
    for points in panels.values():
        for method, point in points.items():
            means.setdefault(method, []).append(interval(point)[0])
    order = sorted(means, key=lambda method: np.mean(means[method]))
    said = "; ".join(f"{t} {_best_and_worst(points)}".strip() for t, points in panels.items())
    size = (min(2.6 + 2.0 * len(panels), 9.5), 0.24 * len(order) + 1.1)
    marker = {kind: i for i, kind in enumerate(dict.fromkeys((kinds or {}).values()))}
    alike = reference is not None and not isinstance(reference, Mapping)
    with figure(alt=f"{alt.rstrip('.: ')}: {said}.", columns=len(panels), size=size, sharex=alike,
                sharey=True, squeeze=False) as (fig, axes):  # fmt: skip
        for axis, (title, points) in zip(axes[0], panels.items(), strict=True):
            for method, point in points.items():
                kind = (kinds or {}).get(method, "")
                _dot(axis, order.index(method), point, marker.get(kind, 0), kind)
            if reference is not None:
                x = reference[title] if isinstance(reference, Mapping) else reference
                axis.axvline(x, linestyle="--", color="black", linewidth=1, label=level)
            axis.set_yticks(range(len(order)), order)
            axis.set(title=title, xlabel=xlabel, ylim=(-0.6, len(order) - 0.4), **settings)
        add_legend(fig, axes)


def _best_and_worst(points: Mapping[str, Any]) -> str:
    values = {method: interval(point)[0] for method, point in points.items()}
    best, worst = (pick(values, key=values.__getitem__) for pick in (max, min))
    return f"best {best} {say(values[best])}, worst {worst} {say(values[worst])}"


def _dot(axis: Any, y: float, point: Any, index: int = 0, label: str = "") -> None:
    value, low, high = interval(point)
    axis.plot([low, high], [y, y], color="0.5")
    axis.plot(value, y, MARKERS[index], color=SERIES[index], label=label or None, linestyle="none")


def _named(cost: str) -> str:
    return cost.replace("unet", "U-Net").replace("_", " ")


def show_costs(rows: Any, against: Sequence[str] = COSTS, *, alt: str) -> None:
    """Show the accuracy of methods, the best on top, and beside it what each of them cost.

    Args:
        rows: a table, or dictionaries: method, accuracy (or value), low, high, and the costs.
        against: columns that are costs, a panel each, on a scale that is logarithmic from 1 on.
        alt: what is compared, in a sentence; the best method and its costs are added to it.
    """
    import pandas as pd

    table = pd.DataFrame(rows)
    score = "accuracy" if "accuracy" in table else "value"
    table = table.sort_values(score)
    best = table.iloc[-1]
    costs = ", ".join(f"{best[name]:g} {_named(name)}" for name in against)
    said = f"{alt.rstrip('.: ')}: best {best['method']}, {say(best[score])}, for {costs}."
    size = (min(3.2 + 1.8 * len(against), 9.5), 0.24 * len(table) + 1.0)
    with figure(alt=said, columns=1 + len(against), size=size, sharey=True) as (_, axes):
        for y, row in enumerate(table.itertuples()):
            _dot(axes[0], y, row)
            for axis, name in zip(axes[1:], against, strict=True):
                cost = getattr(row, name)
                axis.hlines(y, 0, cost, color="0.8")
                axis.plot(cost, y, "o", color=INK, markersize=4)
        axes[0].set_yticks(range(len(table)), table["method"])
        axes[0].set_xlabel("accuracy")
        for axis, name in zip(axes[1:], against, strict=True):
            axis.set_xscale("symlog", linthresh=1)
            axis.xaxis.get_major_locator().set_params(numticks=4)  # more would touch
            axis.set_xlim(0, 2 * max(table[name].max(), 1))
            axis.set_xlabel(_named(name))
