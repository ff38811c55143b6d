"""Figures that everybody can read: with alt text, honest colours and one quiet style.

with figure(alt="Accuracy by layer; the middle layer is best.") as (fig, axis):
    band(axis, layers, intervals, label="attention score")
"""

from dsd_tutorial.course.figures.drawing import (
    band,
    bare,
    bars,
    draw_image,
    overlay_heat,
    show_heats,
    show_images,
    show_latents,
)
from dsd_tutorial.course.figures.style import colormap, figure

__all__ = [
    "band",
    "bare",
    "bars",
    "colormap",
    "draw_image",
    "figure",
    "overlay_heat",
    "show_heats",
    "show_images",
    "show_latents",
]
