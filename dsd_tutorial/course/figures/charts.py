"""Charts with one call: bars, lines with bands, histograms, and alt text of their values.

    show_lines({"cosine": {0.1: interval, 0.2: 0.84}}, alt="Cosine by threshold.", xlabel="cut")

Points and series are those of `series`. `alt` is the lead sentence, to which the values are added.
Series differ by marker, line style or hatch, not by colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np

from dsd_tutorial.course.figures.series import depth, interval, panels_of, say, told
from dsd_tutorial.course.figures.style import (
    CHARACTERS,
    HATCHES,
    INK,
    LINES,
    MARKERS,
    SERIES,
    figure,
)


def band(axis: Any, x: Sequence[float], points: Sequence[Any], label: str = "") -> None:
    """Add a line, with its confidence band where the points are intervals.

    Each series on an axis gets its own colour, marker and line style.
    """
    index = len([line for line in axis.lines if line.get_gid() == "series"]) % len(SERIES)
    values, low, high = np.array([interval(point) for point in points]).T
    axis.fill_between(x, low, high, color=SERIES[index], alpha=0.18, linewidth=0)
    axis.plot(
        x, values, color=SERIES[index], marker=MARKERS[index] if len(values) <= 40 else None,
        linestyle=LINES[index], label=label or None, gid="series",
    )  # fmt: skip


def bars(
    axis: Any, labels: Sequence[str], groups: Mapping[str, Sequence[Any]], *,
    reference: Any = None, reference_label: str = "chance",
) -> None:  # fmt: skip
    """Draw grouped bars with interval whiskers: `groups` maps a name to one point per label.

    Groups differ by colour and hatch, each bar carries its value in figures, and `reference` (one
    for all, one per label, or name -> such) is a dashed line.
    """
    width = 0.8 / len(groups)
    places = np.arange(len(labels))
    for index, (name, points) in enumerate(groups.items()):
        values, low, high = np.array([interval(point) for point in points]).T
        x = places + (index - (len(groups) - 1) / 2) * width
        axis.bar(
            x, values, 0.92 * width, color=SERIES[index % len(SERIES)], alpha=0.75,
            label=name or None, hatch=HATCHES[index % len(HATCHES)], edgecolor="white", linewidth=0,
        )  # fmt: skip
        whiskers = np.clip([values - low, high - values], 0, None)
        axis.errorbar(x, values, whiskers, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
        tops = np.where(np.isnan(high), np.maximum(values, 0), high)
        for at, value, top in zip(x, values, tops, strict=True):
            if not np.isnan(value):
                axis.annotate(
                    say(value), (at, top), (0, 2), textcoords="offset points", ha="center",
                    fontsize=8 if width * 9 / len(labels) > 0.25 else 6.5,
                )  # fmt: skip
    references = reference if isinstance(reference, Mapping) else {reference_label: reference}
    for (name, level), style in zip(references.items(), LINES[1:], strict=False):
        if level is not None:
            ends = (places - 0.45, places + 0.45)
            axis.hlines(
                np.broadcast_to(level, len(labels)), *ends, colors=INK, linestyles=[style],
                linewidth=1, label=name,
            )  # fmt: skip
    axis.set_xticks(places, labels)


def add_legend(fig: Any, axes: Any) -> None:
    """Put one legend above all axes, each name once; nothing where a single series has no name."""
    entries = {}
    for axis in axes.flat:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    entries = dict(sorted(entries.items(), key=lambda entry: hasattr(entry[1], "set_segments")))
    if entries:
        fits = int(fig.get_figwidth() * CHARACTERS / (max(map(len, entries)) + 6))
        fig.legend(
            list(entries.values()), list(entries), loc="outside upper center",
            ncols=max(1, min(len(entries), fits)),
        )  # fmt: skip


def show_bars(
    groups: Mapping[str, Any], labels: Sequence[str] | None = None, *, alt: str, ylabel: str = "",
    reference: Any = None, reference_label: str = "chance",
    size: tuple[float, float] | None = None, **settings: Any,
) -> None:  # fmt: skip
    """Show bars of several methods, with whiskers where the points are intervals.

    Args:
        groups: method -> {label: point}, or one point per label; or {label: point} alone; or a
            title -> groups, a panel each.
        labels: of the bars, where `groups` holds lists.
        alt: what is compared, in a sentence; all values are added to it.
        ylabel: what the height of a bar is.
        reference: a dashed line: one number, one for each label, or name -> such, a line each.
        reference_label: name of a single one in the legend.
        size: of the figure in inches.
        settings: for `axis.set`, such as ylim.
    """
    panels = panels_of(groups, labels)
    count = max(sum(map(len, named.values())) for named in panels.values())
    size = size or (min(max(4.5, 1.2 + 0.42 * count * len(panels)), 9.5), 3.0)
    with figure(
        alt=told(alt, panels), columns=len(panels), size=size, sharey=True, squeeze=False
    ) as (fig, axes):
        for axis, (title, named) in zip(axes[0], panels.items(), strict=True):
            names = list(dict.fromkeys(label for series in named.values() for label in series))
            points = {name: [series.get(x) for x in names] for name, series in named.items()}
            fits = int(CHARACTERS * size[0] / (len(names) * len(panels) + 0.5))
            shown = [fill(str(x).replace("_", " "), max(fits, 6), break_long_words=False)
                     for x in names]  # fmt: skip
            bars(axis, shown, points, reference=reference, reference_label=reference_label)
            axis.margins(y=0.12)
            axis.set(title=title, **settings)
        axes[0, 0].set_ylabel(ylabel)
        add_legend(fig, axes)


def show_lines(
    lines: Mapping[str, Any], x: Sequence[float] | None = None, *, alt: str, xlabel: str = "",
    ylabel: str = "", at: Mapping[str, Any] | None = None, level: Mapping[str, Any] | None = None,
    sharey: bool = True, **settings: Any,
) -> None:  # fmt: skip
    """Show lines, with bands where the points are intervals.

    Args:
        lines: name -> series, or title -> {name: series}, a panel each.
        x: where the points lie, for series that do not say so.
        alt: what the lines show, in a sentence; their values are added to it.
        xlabel: of every panel.
        ylabel: of the first panel.
        at: name -> x of a vertical line; or title -> such a mapping.
        level: name -> y of a horizontal line; or title -> such a mapping.
        sharey: whether the panels have one scale.
        settings: for `axis.set`, such as ylim or yscale; few points on a log scale are ticks.
    """
    panels = panels_of(lines, x)
    wide = {1: 6.0, 2: 8.5}.get(len(panels), 9.5)
    with figure(
        alt=told(alt, panels), columns=len(panels), size=(wide, 2.9), squeeze=False, sharey=sharey
    ) as (fig, axes):
        for axis, (title, named) in zip(axes[0], panels.items(), strict=True):
            for name, series in named.items():
                band(axis, list(series), list(series.values()), name)
            styles = iter(LINES[1:])
            for draw, marks in ((axis.axvline, at or {}), (axis.axhline, level or {})):
                own = marks if depth(marks) == 1 else marks.get(title, {})
                for name, place in own.items():
                    draw(place, color="black", linestyle=next(styles), linewidth=1, label=name)
            axis.set(title=title, xlabel=xlabel, **settings)
            places = sorted(next(iter(named.values())))
            if settings.get("xscale") == "log" and len(places) <= 8:
                axis.set_xticks(places, _apart([f"{place:.2g}" for place in places], places))
                axis.minorticks_off()
        axes[0, 0].set_ylabel(ylabel)
        add_legend(fig, axes)


def _apart(labels: Sequence[str], places: Sequence[float], least: float = 0.11) -> list[str]:
    """Return labels on a log scale, without those that would run into the one before.

    `least` is a share of the axis; the tick stays.
    """
    kept, last = [], -np.inf
    whole = np.log(places[-1] / places[0]) or 1.0
    for label, place in zip(labels, np.log(places) / whole, strict=True):
        far = place - last >= least
        kept.append(label if far else "")
        last = place if far else last
    return kept


def show_histograms(
    values: Mapping[str, Any], *, alt: str, xlabel: str, edges: Any = 60, **settings: Any
) -> None:
    """Show how several sets of numbers are distributed, with one set of edges.

    Args:
        values: name -> numbers.
        alt: what the numbers are, in a sentence; mean and range of each set are added to it.
        xlabel: what the numbers are.
        edges: of the bins, or their number.
        settings: for `axis.set`, such as yscale.
    """
    sets = {name: np.asarray(numbers, float).ravel() for name, numbers in values.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(sets.values())), edges)
    about = "; ".join(
        f"{name} around {say(x.mean())}, from {say(x.min())} to {say(x.max())}"
        for name, x in sets.items()
    )
    said = f"{alt.rstrip('.: ')}: {about}."
    with figure(alt=said, size=(6.0, 2.6), squeeze=False) as (fig, axes):
        for (name, x), hatch in zip(sets.items(), HATCHES, strict=False):
            axes[0, 0].hist(x, edges, density=True, alpha=0.7, hatch=hatch, label=name)
        axes[0, 0].set(xlabel=xlabel, ylabel="density", **settings)
        add_legend(fig, axes)
