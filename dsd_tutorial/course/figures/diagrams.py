"""Stable Diffusion at a glance, with the shapes and sizes of the model at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsd_tutorial.attention.layers import cross_attention_layers
from dsd_tutorial.course.figures.style import INK, figure

NETWORK, TENSOR, EDGE = "#CFE3F2", "#FFFFFF", "#0072B2"
COLUMNS = (0.9, 3.3, 5.7, 8.1, 10.6)
TOP, MIDDLE, BOTTOM = 4.4, 2.65, 0.6
ALT = (
    "Diagram of the model, left to right. Top row: a caption is cut into tokens ({tokens}), which "
    "CLIP's text encoder turns into hidden states ({states}). Middle row: noise ({latents}) enters "
    "the U-Net, which reads the hidden states by cross-attention and is run once per time step; "
    "out come clean latents ({latents}), which the decoder turns into an image ({image}). "
    "Bottom row, dashed: the encoder turns an image back into latents, and CLIP's image tower "
    "turns it into one embedding."
)


def draw_model(model: Any) -> None:
    """Show the parts of a `StableDiffusion` and what flows between them, with its own shapes."""
    width = model.unet.config.cross_attention_dim
    said = {
        "tokens": f"{model.context_length} numbers", "states": _by(model.context_length, width),
        "latents": _by(*model.latent_shape), "image": _by(3, model.resolution, model.resolution),
    }  # fmt: skip
    with figure(alt=ALT.format(**said), size=(9.4, 4.1)) as (_, axis):
        axis.set(xlim=(0, 11.6), ylim=(0, 4.9), aspect="equal")
        axis.axis("off")
        _row(axis, TOP, [
            ("caption", "a sentence"), ("tokens", said["tokens"]),
            ("text encoder", model.text_encoder), ("hidden states", said["states"]),
        ])  # fmt: skip
        _row(axis, MIDDLE, [
            ("noise", said["latents"]), ("U-Net", model.unet), ("clean latents", said["latents"]),
            ("decoder", model.vae.decoder), ("image", said["image"]),
        ])  # fmt: skip
        unet, towers = COLUMNS[1], COLUMNS[3]
        _arrow(axis, (unet + 0.45, MIDDLE - 0.4), (unet - 0.45, MIDDLE - 0.4), bend=-1.1)
        axis.text(unet, MIDDLE - 1.08, "once per\ntime step", fontsize=8, ha="center", va="center")
        turn = (TOP + MIDDLE) / 2
        axis.plot([towers, towers, unet], [TOP - 0.39, turn, turn], color=INK, linewidth=1.1)
        _arrow(axis, (unet, turn), (unet, MIDDLE + 0.4))
        layers = len(cross_attention_layers(model))
        about = f"cross-attention in {layers} layers"
        axis.text(COLUMNS[2], turn + 0.08, about, fontsize=8, ha="center")
        _draw_way_back(axis, model)


def _draw_way_back(axis: Any, model: Any) -> None:
    """The bottom row, dashed: from an image back to latents, and to CLIP's embedding."""
    _, _, latents, towers, image = COLUMNS
    _box(axis, towers, BOTTOM + 0.75, "encoder", model.vae.encoder)
    _arrow(axis, (image - 0.3, MIDDLE - 0.4), (towers + 0.82, BOTTOM + 0.75), "--")
    _arrow(axis, (towers - 0.82, BOTTOM + 0.75), (latents, MIDDLE - 0.4), "--")
    if model.clip is not None:
        size = str(model.clip.config.projection_dim)
        _box(axis, towers, BOTTOM - 0.2, "image tower", model.clip.vision_model)
        _box(axis, latents, BOTTOM - 0.2, "embedding", size)
        _arrow(axis, (image, MIDDLE - 0.4), (towers + 0.82, BOTTOM - 0.2), "--")
        _arrow(axis, (towers - 0.82, BOTTOM - 0.2), (latents + 0.82, BOTTOM - 0.2), "--")


def _by(*sizes: int) -> str:
    return " × ".join(map(str, sizes))


def _row(axis: Any, y: float, boxes: Sequence[tuple[str, Any]]) -> None:
    """Boxes from left to right, joined by arrows."""
    for x, (title, holds) in zip(COLUMNS, boxes, strict=False):
        _box(axis, x, y, title, holds)
    for a, b in zip(COLUMNS, COLUMNS[1 : len(boxes)], strict=False):
        _arrow(axis, (a + 0.82, y), (b - 0.82, y))


def _box(axis: Any, x: float, y: float, title: str, holds: Any) -> None:
    """A box centred at (x, y): networks are filled and square, tensors (text) white and round."""
    from matplotlib.patches import FancyBboxPatch

    network = not isinstance(holds, str)
    style = "square,pad=0.0" if network else "round,pad=0.0,rounding_size=0.18"
    axis.add_patch(FancyBboxPatch(
        (x - 0.8, y - 0.38), 1.6, 0.76, boxstyle=style, facecolor=NETWORK if network else TENSOR,
        edgecolor=EDGE if network else "#888888", linewidth=1.4 if network else 1.0,
    ))  # fmt: skip
    weight = "bold" if network else "normal"
    axis.text(x, y + 0.13, title, ha="center", va="center", fontsize=9, weight=weight)
    below = _weights(holds) if network else holds
    axis.text(x, y - 0.17, below, ha="center", va="center", fontsize=7.5, color=INK)


def _weights(part: Any) -> str:
    count = sum(p.numel() for p in part.parameters())
    return f"{count / 1e6:.1f} M weights" if count >= 1e5 else f"{count / 1e3:.0f} k weights"


def _arrow(axis: Any, start: tuple, end: tuple, line: str = "-", bend: float = 0.0) -> None:
    axis.annotate("", end, start, arrowprops={
        "arrowstyle": "-|>", "color": INK, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 1,
        "linestyle": line, "connectionstyle": f"arc3,rad={bend}",
    })  # fmt: skip
