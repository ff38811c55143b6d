"""Images, masks, latents and heat maps, drawn on an axis or shown in a grid with one call.

show_images(images, ["reference", "variation"], alt="A reference and its variation.")
show_rows({"reference": images, "variation": varied}, alt="Variations of six references.")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np

from dsd_tutorial.course.figures.style import CHARACTERS, HEAT, SIGNED, figure


def _array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values)


def bare(axis: Any, title: str = "") -> None:
    """Take ticks from an axis that holds an image, leave a thin frame, and give it a title."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(visible=axis.has_data(), color="#CCCCCC", linewidth=0.6)
    if title:
        axis.set_title(title, loc="center", fontsize=9)


def draw_image(axis: Any, image: Any, title: str = "") -> None:
    """Draw one image, (3, height, width) in [0, 1] or a mask (height, width), on an axis."""
    values = _array(image)
    flat = values.ndim == 2
    shown = values if flat else values.transpose(1, 2, 0).clip(0, 1)
    axis.imshow(shown, cmap="gray" if flat else None, vmin=0, vmax=1)
    bare(axis, title)


def _grid(count: int, columns: int | None, side: float) -> dict[str, Any]:
    columns = min(count, columns or 6)
    rows = -(-count // columns)
    size = (min(side * columns, 9.5), (side + 0.3) * rows)
    return {"rows": rows, "columns": columns, "size": size, "squeeze": False}


def _title(name: str, inches: float) -> str:
    """Return a title broken into lines that an image of this width has room for."""
    room = max(8, int(CHARACTERS * inches))
    return "\n".join(fill(line, room, break_long_words=False) for line in name.split("\n"))


def show_images(
    images: Any, titles: Sequence[str] | None = None, *, alt: str, columns: int | None = None,
    side: float = 1.5,
) -> None:  # fmt: skip
    """Show images (n, 3, height, width), or masks, in a grid, each under its title.

    Args:
        images: tensors or arrays in [0, 1].
        titles: one for each image.
        alt: what the grid shows, in a sentence.
        columns: images side by side; at most 6 by default.
        side: width of an image in inches.

    Raises:
        ValueError: titles and images differ in number, or there is no image.
    """
    titles = [""] * len(images) if titles is None else list(titles)
    if len(titles) != len(images) or not len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} images: give one each")
    with figure(alt=alt, **_grid(len(images), columns, side)) as (_, axes):
        for axis in axes.flat:
            bare(axis)
        for axis, image, title in zip(axes.flat, images, titles, strict=False):
            draw_image(axis, image, _title(title, side))


def show_rows(
    rows: Mapping[str, Any], *, alt: str, titles: Sequence[str] | Mapping[str, Sequence[str]] = (),
    side: float = 1.4,
) -> None:  # fmt: skip
    """Show one row of images (n, 3, height, width) for each entry, its name at the left.

    Args:
        rows: name -> images; rows may differ in length.
        alt: what the images are, in a sentence; the names of the rows are added to it.
        titles: of the columns, or name -> titles of that row's images.
        side: width of an image in inches.
    """
    columns = max(map(len, rows.values()))
    names = [name.strip() for name in rows]
    grid = _grid(len(rows) * columns, columns, side)
    above = titles if isinstance(titles, Mapping) else {next(iter(rows)): titles}
    inches = grid["size"][0] / columns
    above = {name: [_title(title, inches) for title in said] for name, said in above.items()}
    lines = sum(max(s.count("\n") for s in said) for said in above.values() if said)
    high = side * len(rows) + 0.25 * len(above) + 0.15 * lines
    grid["size"] = (grid["size"][0] + 0.3, high)
    with figure(alt=f"{alt} Rows: {', '.join(names)}.", **grid) as (_, axes):
        for axis in axes.flat:
            bare(axis)
        for line, (name, images) in zip(axes, rows.items(), strict=True):
            said = [*above.get(name, ()), *[""] * len(images)]
            for axis, image, title in zip(line, images, said, strict=False):
                draw_image(axis, image, title)
            line[0].set_ylabel(fill(name.strip(), 14), fontsize=9)


def show_latents(latents: Any, titles: Sequence[str] | None = None, *, alt: str) -> None:
    """Show latents (4, h, w) or (n, 4, h, w): a row for each, a map for each channel.

    Zero is gray, below it blue, above it yellow; all have one scale.
    """
    rows = _array(latents)
    rows = rows[None] if rows.ndim == 3 else rows
    titles = [""] * len(rows) if titles is None else list(titles)
    if len(titles) != len(rows):
        raise ValueError(f"{len(titles)} titles for {len(rows)} latents: give one each")
    limit = float(np.abs(rows).max()) or 1.0
    grid = _grid(rows.shape[0] * rows.shape[1], rows.shape[1], 1.5)
    grid["size"] = (grid["size"][0] + 0.9, grid["size"][1])
    with figure(alt=alt, **grid) as (fig, axes):
        for row, title, line in zip(rows, titles, axes, strict=True):
            for channel, (axis, values) in enumerate(zip(line, row, strict=True)):
                axis.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit)
                bare(axis, f"channel {channel}")
            line[0].set_ylabel(title, fontsize=9)
        fig.colorbar(axes[0, 0].images[0], ax=axes, shrink=0.8, label="value")


def overlay_heat(axis: Any, image: Any, heat: Any, title: str = "", *, mask: Any = None) -> None:
    """Draw heat (h, w) over a paled image (3, H, W): colour, a line at half maximum, a cross.

    The cross marks the hottest cell; `mask` (H, W) adds the object's outline, dashed.
    """
    values, below = _array(heat), _array(image)
    height, width = below.shape[-2:]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axis.imshow(0.5 + 0.5 * below.mean(0), cmap="gray", vmin=0, vmax=1)
    axis.imshow(values, cmap=HEAT, alpha=0.65, extent=extent, vmin=min(0, values.min()))
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
    heats: Mapping[str, Any], image: Any, *, alt: str, masks: Any = None, columns: int | None = None
) -> None:
    """Show heat maps (h, w), each over an image (3, H, W) and under its name.

    Args:
        heats: name -> heat map.
        image: under all of them, or name -> image.
        alt: what the maps show; where the hottest cell of each lies is added to it.
        masks: (H, W), outlined with dashes in every map, or name -> mask.
        columns: maps side by side; at most 6 by default.
    """
    under = image if isinstance(image, Mapping) else dict.fromkeys(heats, image)
    outlines = masks if isinstance(masks, Mapping) else dict.fromkeys(heats, masks)
    spots = "; ".join(f"{name} {hottest(heat)}" for name, heat in heats.items())
    grid = _grid(len(heats), columns, 1.8)
    with figure(alt=f"{alt} Hottest: {spots}.", **grid) as (_, axes):
        for axis in axes.flat:
            bare(axis)
        for axis, (name, heat) in zip(axes.flat, heats.items(), strict=False):
            overlay_heat(axis, under[name], heat, _title(name, 1.8), mask=outlines.get(name))


def hottest(heat: Any) -> str:
    """Return where the hottest cell of a map (h, w) lies, in words such as "top left"."""
    values = _array(heat)
    height, width = values.shape
    row, column = divmod(int(values.argmax()), width)
    down = ("top", "middle", "bottom")[min(3 * row // height, 2)]
    across = ("left", "center", "right")[min(3 * column // width, 2)]
    return f"{down} {across}"
