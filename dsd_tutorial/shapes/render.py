"""Draws scenes: anti-aliased images of any size, and one exact mask per object.

Each shape is a signed distance function on coordinates in which its radius is 1; a pixel's
coverage follows from its distance to the outline, for all things of a batch at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dsd_tutorial.shapes.scene import ALL_COLORS, BACKGROUNDS, Scene

STRIPE_PERIOD = 0.10  # of the canvas
STRIPE_DARK = 0.35  # the dark stripes' brightness relative to the colour's


def _circle(u: Tensor, v: Tensor) -> Tensor:
    return torch.hypot(u, v) - 1.0


def _ring(u: Tensor, v: Tensor) -> Tensor:
    return (torch.hypot(u, v) - 0.76).abs() - 0.24


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.86


def _diamond(u: Tensor, v: Tensor) -> Tensor:
    return (u.abs() / 0.78 + v.abs() - 1.0) * 0.615


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    # v points down, so the apex (v = -1) is on top
    side = (u.abs() * 1.75 - (v + 1.0)) * 0.4961
    return torch.maximum(v - 0.75, side)


def _cross(u: Tensor, v: Tensor) -> Tensor:
    a, b = u.abs(), v.abs()
    return torch.maximum(torch.maximum(a, b) - 1.0, torch.minimum(a, b) - 0.36)


def _star(u: Tensor, v: Tensor) -> Tensor:
    # Fold the plane into one half-sector of 36 degrees; there the outline is a single line from
    # the tip (radius 1) to the notch (radius 0.45).
    sector = math.pi / 5
    radius = torch.hypot(u, v)
    angle = torch.atan2(u, -v).abs()
    angle = (torch.remainder(angle + sector, 2 * sector) - sector).abs()
    px, py = radius * torch.cos(angle), radius * torch.sin(angle)
    nx, ny = 0.45 * math.cos(sector), 0.45 * math.sin(sector)
    length = math.hypot(nx - 1.0, ny)
    return (ny * (px - 1.0) - (nx - 1.0) * py) / length


def _heart(u: Tensor, v: Tensor) -> Tensor:
    x, y = u.abs(), (1.0 - v) * 0.58  # the tip (v = 1) is the origin; 1.2 high, 1 wide a side
    x = x * 0.62
    lobe = torch.hypot(x - 0.25, y - 0.75) - 0.3535
    low = torch.minimum(
        torch.hypot(x, y - 1.0),
        torch.hypot(x - 0.5 * (x + y).clamp(min=0), y - 0.5 * (x + y).clamp(min=0)),
    ) * torch.sign(x - y)
    return torch.where(x + y > 1.0, lobe, low) / 0.6


SIGNED_DISTANCE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": _circle, "square": _square, "triangle": _triangle, "star": _star,
    "cross": _cross, "ring": _ring, "diamond": _diamond, "heart": _heart,
}  # fmt: skip


def coverage(
    shapes: Sequence[str],
    x: Float[Tensor, " things"],
    y: Float[Tensor, " things"],
    radius: Float[Tensor, " things"],
    size: int = 64,
) -> Float[Tensor, "things {size} {size}"]:
    """Share of each pixel that a shape covers; places and radii are fractions of the canvas."""
    out = torch.zeros(len(shapes), size, size, device=x.device)
    for shape in set(shapes):
        index = torch.tensor([i for i, s in enumerate(shapes) if s == shape], device=x.device)
        # Work on a window around each shape only: it is a quarter of the canvas or less.
        width = min(size, int(2.1 * float(radius[index].max()) * size) + 4)
        steps = torch.arange(width, device=x.device)
        center = torch.stack([y[index], x[index]]) * size  # (2, k) in pixels
        first = (center - width / 2).floor().long().clamp(0, size - width)
        pixels = first[:, :, None] + steps  # (2, k, width): rows, columns
        r = radius[index].view(-1, 1) * size
        v, u = (pixels + 0.5 - center[:, :, None]) / r
        v, u = v[:, :, None].expand(-1, -1, width), u[:, None, :].expand(-1, width, -1)
        cover = (0.5 - SIGNED_DISTANCE[shape](u, v) * r[:, :, None]).clamp(0, 1)
        out[index[:, None, None], pixels[0, :, :, None], pixels[1, :, None, :]] = cover
    return out


def _stripes(size: int, device: str | torch.device) -> Float[Tensor, "{size} {size}"]:
    """Brightness of a striped thing at each pixel, relative to its colour."""
    grid = (torch.arange(size, device=device) + 0.5) / size
    phase = torch.sin(2 * math.pi * (grid[None, :] + grid[:, None]) / STRIPE_PERIOD / 1.4142)
    light = (0.5 + phase * size * STRIPE_PERIOD / 4).clamp(0, 1)  # soft over about one pixel
    return STRIPE_DARK + (1 - STRIPE_DARK) * light


@torch.no_grad()
def render(
    scenes: Sequence[Scene], size: int = 64, device: str | torch.device = "cpu"
) -> tuple[
    Float[Tensor, "images 3 {size} {size}"],
    Bool[Tensor, "images things {size} {size}"],
]:
    """Images in [0, 1], and one mask per thing, two or as many as the fullest scene has.

    The masks of things that a scene does not have are empty.

    Raises:
        ValueError: there is no scene.
    """
    if len(scenes) == 0:
        raise ValueError("nothing to render: pass at least one scene")
    things = [(i, j, t) for i, s in enumerate(scenes) for j, t in enumerate(s.things)]
    x, y, radius = torch.tensor([(t.x, t.y, t.radius) for *_, t in things], device=device).T
    colors = torch.tensor([ALL_COLORS[t.color] for *_, t in things], device=device)
    cover = coverage([t.shape for *_, t in things], x, y, radius, size)
    ground = torch.tensor([BACKGROUNDS[s.background] for s in scenes], device=device)
    images = ground[:, :, None, None].expand(-1, -1, size, size).clone()
    most = max(2, max(len(scene.things) for scene in scenes))
    masks = torch.zeros(len(scenes), most, size, size, dtype=torch.bool, device=device)
    stripes = _stripes(size, device)
    for (i, j, thing), alpha, color in zip(things, cover, colors[:, :, None, None], strict=True):
        paint = color * stripes if thing.texture == "striped" else color
        images[i] = images[i] * (1 - alpha) + paint * alpha
        masks[i, j] = alpha > 0.5
    return images, masks


def boxes_of(
    masks: Bool[Tensor, "*things height width"],
) -> Float[Tensor, "*things 4"]:
    """The smallest box around each mask: left, top, right, bottom as fractions of the canvas.

    Raises:
        ValueError: a mask is empty.
    """
    if not bool(masks.flatten(-2).any(-1).all()):
        raise ValueError("an empty mask has no box: leave out the things that a scene lacks")
    sides = []
    for covered in (masks.any(-2), masks.any(-1)):  # columns (*things, width), rows
        length = covered.shape[-1]
        first = covered.int().argmax(-1)
        last = length - covered.flip(-1).int().argmax(-1)
        sides.append((first / length, last / length))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], dim=-1)
