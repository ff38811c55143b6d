"""Figures that everybody can read: with alt text, honest colours and one quiet style.

    show_bars({"SD-IPC": {"color": interval, "shape": interval}}, alt="Attributes kept.")

    with figure(alt="Accuracy by layer; the middle layer is best.") as (fig, axis):
        band(axis, layers, intervals, label="attention score")

Colour maps are perceptually uniform and safe for colour-blind eyes, and colour is never the only
carrier of meaning: series also differ by marker, line style or hatch, maps carry a scale or marks.
"""

from dsd_tutorial.course.figures.charts import (
    band,
    bars,
    show_bars,
    show_histograms,
    show_lines,
)
from dsd_tutorial.course.figures.images import (
    bare,
    draw_image,
    hottest,
    overlay_heat,
    show_heats,
    show_images,
    show_latents,
    show_rows,
)
from dsd_tutorial.course.figures.matrices import show_costs, show_intervals, show_matrix
from dsd_tutorial.course.figures.style import collected, figure

__all__ = [
    "band",
    "bare",
    "bars",
    "collected",
    "draw_image",
    "figure",
    "hottest",
    "overlay_heat",
    "show_bars",
    "show_costs",
    "show_heats",
    "show_histograms",
    "show_images",
    "show_intervals",
    "show_latents",
    "show_lines",
    "show_matrix",
    "show_rows",
]
