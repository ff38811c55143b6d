"""Figures that everybody can read: with alt text, honest colours and one quiet style.

    with figure(alt="Accuracy by layer; the middle layer is best.") as (fig, axis):
        band(axis, layers, intervals, label="attention score")

Colour maps are perceptually uniform and safe for colour-blind eyes, and colour is never the only
carrier of meaning: series also differ by marker, line style or hatch, maps carry a scale or marks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsd_tutorial.course.figures.style import HATCHES, INK, LINES, MARKERS, SERIES, colormap, figure


def _array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values)


def bare(axis: Any, title: str = "") -> None:
    """Take ticks from an axis that holds a picture, leave a thin frame, and give it a title."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(visible=axis.has_data(), color="#CCCCCC", linewidth=0.6)
    if title:
        axis.set_title(title, loc="center", fontsize=9)


def draw_image(axis: Any, image: Any, title: str = "") -> None:
    """Draw one picture, (3, height, width) in [0, 1] or a mask (height, width), on an axis."""
    picture = _array(image)
    flat = picture.ndim == 2
    shown = picture if flat else picture.transpose(1, 2, 0).clip(0, 1)
    axis.imshow(shown, cmap="gray" if flat else None, vmin=0, vmax=1)
    bare(axis, title)


def _grid(count: int, columns: int | None, side: float) -> dict[str, Any]:
    columns = min(count, columns or 6)
    rows = -(-count // columns)
    size = (min(side * columns, 9.5), (side + 0.3) * rows)
    return {"rows": rows, "columns": columns, "size": size, "squeeze": False}


def show_images(
    images: Any,
    titles: Sequence[str] | None = None,
    *,
    alt: str,
    columns: int | None = None,
    side: float = 1.5,
    caption: str = "",
) -> None:
    """Show pictures (n, 3, height, width), or masks, in a grid, each under its title.

    `side` is a picture's width in inches. Raises ValueError where titles and pictures differ in
    number.
    """
    titles = [""] * len(images) if titles is None else list(titles)
    if len(titles) != len(images) or not len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} pictures: give one each")
    with figure(alt=alt, caption=caption, **_grid(len(images), columns, side)) as (_, axes):
        for axis in axes.flat:
            bare(axis)
        for axis, image, title in zip(axes.flat, images, titles, strict=False):
            draw_image(axis, image, title)


def show_latents(
    latents: Any,
    titles: Sequence[str] | None = None,
    *,
    alt: str,
    limit: float | None = None,
    side: float = 1.5,
    caption: str = "",
) -> None:
    """Show latents (4, h, w) or (n, 4, h, w): a row for each, a map for each channel.

    Zero is gray, below it blue, above it yellow (cividis); the scale, common to all, runs to
    `limit` (default: the largest value).
    """
    rows = _array(latents)
    rows = rows[None] if rows.ndim == 3 else rows
    titles = [""] * len(rows) if titles is None else list(titles)
    if len(titles) != len(rows):
        raise ValueError(f"{len(titles)} titles for {len(rows)} latents: give one each")
    limit = limit or float(np.abs(rows).max()) or 1.0
    grid = _grid(rows.shape[0] * rows.shape[1], rows.shape[1], side)
    grid["size"] = (grid["size"][0] + 0.9, grid["size"][1])
    with figure(alt=alt, caption=caption, **grid) as (fig, axes):
        for row, title, line in zip(rows, titles, axes, strict=True):
            for channel, (axis, values) in enumerate(zip(line, row, strict=True)):
                drawn = axis.imshow(values, cmap="cividis", vmin=-limit, vmax=limit)
                bare(axis, f"channel {channel}")
            line[0].set_ylabel(title, fontsize=9)
        fig.colorbar(drawn, ax=axes, shrink=0.8, label="value")


def overlay_heat(
    axis: Any, image: Any, heat: Any, title: str = "", *, mask: Any = None, cmap: str = "magma"
) -> None:
    """Draw heat (h, w) over a paled picture (3, H, W): colour, a line at half maximum, a cross.

    The cross marks the hottest cell; `mask` (H, W) adds the object's outline, dashed.
    """
    picture, values = _array(image), _array(heat)
    height, width = picture.shape[-2:]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    pale = 0.5 + 0.5 * picture.mean(0)
    axis.imshow(pale, cmap="gray", vmin=0, vmax=1)
    axis.imshow(values, cmap=colormap(cmap), alpha=0.65, extent=extent, vmin=min(0, values.min()))
    rows, columns = np.indices(values.shape)
    x = (columns + 0.5) * width / values.shape[1] - 0.5
    y = (rows + 0.5) * height / values.shape[0] - 0.5
    if values.max() > values.min():
        half = (values.max() + values.min()) / 2
        axis.contour(x, y, values, levels=[half], colors="white", linewidths=1)
        best = np.unravel_index(values.argmax(), values.shape)
        axis.plot(x[best], y[best], "x", color="white", markersize=8, markeredgewidth=3.5)
        axis.plot(x[best], y[best], "x", color="black", markersize=8, markeredgewidth=1.5)
    if mask is not None and _array(mask).any():
        axis.contour(_array(mask).astype(float), levels=[0.5], colors="#56B4E9", linestyles="--")
    bare(axis, title)


def show_heats(
    image: Any, heats: Mapping[str, Any], *, alt: str, masks: Mapping[str, Any] | None = None,
    columns: int | None = None, side: float = 1.7, caption: str = "",
) -> None:  # fmt: skip
    """Show one picture (3, H, W), then each heat map (h, w) over it under its name.

    `masks` maps names to outlines (H, W) that are drawn dashed.
    """
    masks = masks or {}
    with figure(alt=alt, caption=caption, **_grid(len(heats) + 1, columns, side)) as (_, axes):
        for axis in axes.flat:
            bare(axis)
        draw_image(axes.flat[0], image, "picture")
        for axis, (name, heat) in zip(axes.flat[1:], heats.items(), strict=False):
            overlay_heat(axis, image, heat, name, mask=masks.get(name))


def band(axis: Any, x: Sequence[float], intervals: Sequence[Any], label: str = "") -> None:
    """Add a line with its confidence band: one interval (value, low, high) for each x.

    Each series on an axis gets its own colour, marker and line style.
    """
    index = len([line for line in axis.lines if line.get_gid() == "series"]) % len(SERIES)
    values, low, high = np.array([(i.value, i.low, i.high) for i in intervals]).T
    axis.fill_between(x, low, high, color=SERIES[index], alpha=0.18, linewidth=0)
    axis.plot(
        x, values, color=SERIES[index], marker=MARKERS[index], linestyle=LINES[index],
        label=label or None, gid="series",
    )  # fmt: skip


def bars(
    axis: Any, labels: Sequence[str], groups: Mapping[str, Sequence[Any]], *,
    reference: float | Sequence[float] | None = None, reference_label: str = "chance",
) -> None:  # fmt: skip
    """Draw grouped bars with interval whiskers: `groups` maps a name to one interval per label.

    Groups differ by colour and hatch, each bar carries its value in figures, and `reference` (one
    for all, or one per label) is a dashed line.
    """
    width = 0.8 / len(groups)
    places = np.arange(len(labels))
    for index, (name, intervals) in enumerate(groups.items()):
        values, low, high = np.array([(i.value, i.low, i.high) for i in intervals]).T
        x = places + (index - (len(groups) - 1) / 2) * width
        axis.bar(
            x, values, 0.92 * width, color=SERIES[index % len(SERIES)], alpha=0.75, label=name,
            hatch=HATCHES[index % len(HATCHES)], edgecolor="white", linewidth=0,
        )  # fmt: skip
        whiskers = np.clip([values - low, high - values], 0, None)
        axis.errorbar(x, values, whiskers, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
        for at, value, top in zip(x, values, high, strict=True):
            axis.annotate(
                f"{value:.2f}", (at, top), (0, 2), textcoords="offset points", ha="center",
                fontsize=8,
            )  # fmt: skip
    if reference is not None:
        at = np.broadcast_to(reference, len(labels))
        ends = (places - 0.45, places + 0.45)
        axis.hlines(at, *ends, colors=INK, linestyles="--", linewidth=1, label=reference_label)
    axis.set_xticks(places, labels)
