"""A Stable Diffusion in one picture, with the shapes and sizes of the model at hand."""

from __future__ import annotations

from typing import Any

from dsd_tutorial.attention.layers import cross_attention_layers
from dsd_tutorial.course.figures.style import INK, figure

NETWORK, TENSOR, EDGE = "#CFE3F2", "#FFFFFF", "#0072B2"
ALT = (
    "Diagram of the model, left to right. Top row: a caption is cut into tokens ({tokens}), which "
    "CLIP's text encoder turns into text states ({states}). Middle row: noise ({latents}) enters "
    "the U-Net, which reads the text states by cross-attention and is run once per time step; "
    "out come clean latents ({latents}), which the decoder turns into a picture ({picture}). "
    "Bottom row, dashed: the encoder turns a picture back into latents, and CLIP's image tower "
    "turns it into one vector."
)


def _weights(part: Any) -> str:
    count = sum(p.numel() for p in part.parameters())
    return f"{count / 1e6:.1f} M weights" if count >= 1e5 else f"{count / 1e3:.0f} k weights"


def _box(axis: Any, x: float, y: float, title: str, below: str, network: bool) -> None:
    """A box centred at (x, y): networks are filled and square, tensors white and round."""
    from matplotlib.patches import FancyBboxPatch

    style = "square,pad=0.0" if network else "round,pad=0.0,rounding_size=0.18"
    axis.add_patch(FancyBboxPatch(
        (x - 0.8, y - 0.38), 1.6, 0.76, boxstyle=style, facecolor=NETWORK if network else TENSOR,
        edgecolor=EDGE if network else "#888888", linewidth=1.4 if network else 1.0,
    ))  # fmt: skip
    weight = "bold" if network else "normal"
    axis.text(x, y + 0.13, title, ha="center", va="center", fontsize=9, weight=weight)
    axis.text(x, y - 0.17, below, ha="center", va="center", fontsize=7.5, color=INK)


def _arrow(axis: Any, start: tuple, end: tuple, dashed: bool = False, bend: float = 0.0) -> None:
    axis.annotate("", end, start, arrowprops={
        "arrowstyle": "-|>", "color": INK, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 1,
        "linestyle": "--" if dashed else "-", "connectionstyle": f"arc3,rad={bend}",
    })  # fmt: skip


def _by(*sizes: int) -> str:
    return " × ".join(map(str, sizes))


def draw_model(model: Any) -> None:
    """Show the parts of a `StableDiffusion` and what flows between them, with its own shapes."""
    length, width = model.context_length, model.unet.config.cross_attention_dim
    latents, picture = _by(*model.latent_shape), _by(3, model.resolution, model.resolution)
    said = {"tokens": f"{length} numbers", "states": _by(length, width)}
    alt = ALT.format(**said, latents=latents, picture=picture)
    layers = len(cross_attention_layers(model))
    with figure(alt=alt, size=(9.4, 4.1)) as (_, axis):
        axis.set(xlim=(0, 11.6), ylim=(0, 4.9), aspect="equal")
        axis.axis("off")
        top, middle, bottom = 4.4, 2.65, 0.6
        columns = [0.9, 3.3, 5.7, 8.1, 10.6]
        text = [
            ("caption", "a sentence", False),
            ("tokens", said["tokens"], False),
            ("text encoder", _weights(model.text_encoder), True),
            ("text states", said["states"], False),
        ]
        for x, (title, below, network) in zip(columns, text, strict=False):
            _box(axis, x, top, title, below, network)
        for a, b in zip(columns[:3], columns[1:4], strict=True):
            _arrow(axis, (a + 0.82, top), (b - 0.82, top))
        _draw_image_path(axis, model, columns, middle, latents, picture)
        turn = (top + middle) / 2
        axis.plot([8.1, 8.1, 3.3], [top - 0.39, turn, turn], color=INK, linewidth=1.1)
        _arrow(axis, (3.3, turn), (3.3, middle + 0.4))
        axis.text(5.7, turn + 0.08, f"cross-attention in {layers} layers", fontsize=8, ha="center")
        _draw_image_side(axis, model, columns, middle, bottom)


def _draw_image_path(
    axis: Any, model: Any, columns: list[float], y: float, latents: str, picture: str
) -> None:
    """The middle row: noise, U-Net, latents, decoder, picture."""
    row = [
        ("noise", latents, False),
        ("U-Net", _weights(model.unet), True),
        ("clean latents", latents, False),
        ("decoder", _weights(model.vae.decoder), True),
        ("picture", picture, False),
    ]
    for x, (title, below, network) in zip(columns, row, strict=True):
        _box(axis, x, y, title, below, network)
    for a, b in zip(columns[:4], columns[1:], strict=True):
        _arrow(axis, (a + 0.82, y), (b - 0.82, y))
    x = columns[1]
    _arrow(axis, (x + 0.45, y - 0.4), (x - 0.45, y - 0.4), bend=-1.1)
    axis.text(x, y - 1.08, "once per\ntime step", fontsize=8, ha="center", va="center")


def _draw_image_side(
    axis: Any, model: Any, columns: list[float], middle: float, bottom: float
) -> None:
    """The bottom row, dashed: from a picture back to latents, and to CLIP's vector."""
    picture, towers, latents = columns[4], columns[3], columns[2]
    _box(axis, towers, bottom + 0.75, "encoder", _weights(model.vae.encoder), True)
    _arrow(axis, (picture - 0.3, middle - 0.4), (towers + 0.82, bottom + 0.75), dashed=True)
    _arrow(axis, (towers - 0.82, bottom + 0.75), (latents, middle - 0.4), dashed=True)
    if model.clip is not None:
        size = model.clip.config.projection_dim
        _box(axis, towers, bottom - 0.2, "image tower", _weights(model.clip.vision_model), True)
        _box(axis, latents, bottom - 0.2, "image vector", str(size), False)
        _arrow(axis, (picture, middle - 0.4), (towers + 0.82, bottom - 0.2), dashed=True)
        _arrow(axis, (towers - 0.82, bottom - 0.2), (latents + 0.82, bottom - 0.2), dashed=True)
