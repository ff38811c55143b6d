"""Reads images back into scenes by programme, with a confidence and the right not to know.

`segments` finds the objects with colour and texture; here each soft mask is brought to its centre
of mass and unit spread, and compared with all shapes in small variations of pose and blur.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from dsd_tutorial.shapes.captions import Description
from dsd_tutorial.shapes.render import coverage
from dsd_tutorial.shapes.scene import (
    ALL_SHAPES,
    GAP,
    MIDDLE,
    OFF_AXIS,
    RADIUS,
    SIDE,
    Scene,
    Thing,
    relation_of,
)
from dsd_tutorial.shapes.segments import (
    COLOR_NAMES,
    GROUND_NAMES,
    SIZE,
    SMOOTH,
    Segments,
    find_segments,
    read_grounds,
)

TOLERANCE = 0.02  # of the canvas (1.3 of 64 pixels): what a reading may miss size and place by
FRAME = 28  # pixels a side of the normalised frame
REACH = 2.3  # half the frame's side, in units of the object's spread (root mean square radius)
SCALES = (0.85, 0.92, 1.0, 1.08)
SHIFTS = (-0.1, 0.0, 0.1)  # in units of the spread
BLURS = (0.6, 1.4)  # in pixels of the frame
LEAST_FIT = 0.85  # overlap (intersection over union) below which no shape is recognised
LEAST_CONFIDENCE = 0.15
# halfway between small and unnamed radii, and between those and large ones
_BETWEEN = (RADIUS["small"][1] + RADIUS[None][0]) / 2, (RADIUS[None][1] + RADIUS["large"][0]) / 2
CHUNK = 256  # images read at once, so that memory stays below about 200 MB

Reading = tuple[Thing | None, float]  # an object, None where no shape fits, and the confidence


@dataclass(frozen=True)
class Verdict:
    """What was read: a scene, or None; the background may be known even then."""

    scene: Scene | None
    confidence: float  # in [0, 1]; 0 where the scene is unknown
    background: str | None = None


@dataclass(frozen=True)
class Match:
    """What of a description an image shows; see `matches`."""

    objects: bool
    relation: bool
    background: bool | None
    exact: bool


@cache
def _units() -> dict[str, tuple[float, float, float]]:
    """(area, centre of mass below the centre, spread) of each shape of radius 1."""
    grid = (torch.arange(512) + 0.5) / 256 - 1
    known = {}
    for shape in ALL_SHAPES:
        x, y, radius = torch.tensor([[0.5], [0.5], [0.4]])
        cover = coverage([shape], x, y, radius, 512)[0] / 0.64
        weight, v, u = cover.sum(), grid[:, None] / 0.8, grid[None, :] / 0.8
        low = float((cover * v).sum() / weight)
        spread = float(((cover * (u**2 + (v - low) ** 2)).sum() / weight).sqrt())
        known[shape] = (float(weight) * (2 / 512) ** 2, low, spread)
    return known


@cache
def _templates() -> tuple[Float[Tensor, "templates flat"], Float[Tensor, " templates"]]:
    """All shapes in all variations, flat, and their squared lengths."""
    made = []
    for shape in ALL_SHAPES:
        _, low, spread = _units()[shape]
        poses = [(k, sx, sy) for k in SCALES for sx in SHIFTS for sy in SHIFTS]
        k, sx, sy = torch.tensor(poses).T
        x, y = 0.5 + sx / (2 * REACH), 0.5 + (sy - low * k / spread) / (2 * REACH)
        cover = coverage([shape] * len(poses), x, y, k / spread / (2 * REACH), FRAME).numpy()
        made += [ndimage.gaussian_filter(cover, (0, blur, blur)) for blur in BLURS]
    flat = torch.from_numpy(np.concatenate(made)).flatten(1)
    return flat, (flat**2).sum(1)


def _frames(
    masks: Float[Tensor, "objects size size"],
) -> tuple[
    Float[Tensor, "objects frame frame"],
    Float[Tensor, "objects 2"],
    Float[Tensor, " objects"],
    Float[Tensor, " objects"],
]:
    """Normalised frames; centres of mass (x, y), spreads and areas of the masks, in pixels."""
    grid = torch.arange(SIZE) + 0.5
    area = masks.sum((1, 2)).clamp(min=1.0)  # an empty mask then fits nothing
    x, y = (masks.sum(1) * grid).sum(1) / area, (masks.sum(2) * grid).sum(1) / area
    square = (masks.sum(1) * (grid - x[:, None]) ** 2).sum(1)
    square = square + (masks.sum(2) * (grid - y[:, None]) ** 2).sum(1)
    spread = (square / area).sqrt()
    theta = torch.zeros(len(masks), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = spread * REACH * 2 / SIZE
    theta[:, 0, 2], theta[:, 1, 2] = x * 2 / SIZE - 1, y * 2 / SIZE - 1
    places = F.affine_grid(theta, [len(masks), 1, FRAME, FRAME], align_corners=False)
    frames = F.grid_sample(masks[:, None], places, align_corners=False)[:, 0]
    return frames, torch.stack([x, y], 1), spread, area


def _read_things(found: Segments) -> list[Reading]:
    if len(found.image) == 0:
        return []
    frames, center, spread, area = _frames(torch.from_numpy(found.mask))
    templates, length = _templates()
    flat = frames.flatten(1)
    common = flat @ templates.T  # (objects, templates)
    overlap = common / ((flat**2).sum(1, keepdim=True) + length - common)
    fits = overlap.view(len(flat), len(ALL_SHAPES), -1).amax(2)  # (objects, shapes)
    best, shape = fits.topk(2, dim=1)
    read: list[Reading] = []
    for i in range(len(flat)):
        fit, margin = float(best[i, 0]), float(best[i, 0] - best[i, 1])
        if fit < LEAST_FIT:
            read.append((None, 0.0))
            continue
        name = ALL_SHAPES[int(shape[i, 0])]
        size, low, unit = _units()[name]
        if found.striped[i]:  # blur keeps the area and widens the spread; stripes disturb the area
            radius = max(float(spread[i]) ** 2 - 2 * SMOOTH**2, 1.0) ** 0.5 / unit
        else:
            radius = (float(area[i]) / size) ** 0.5
        x, y = float(center[i, 0]), float(center[i, 1]) - low * radius
        sure = min((fit - LEAST_FIT + 0.05) / 0.12, margin / 0.1, 1.0)
        sure = max(sure, 0.0) * min(1.0, float(found.margin[i]) / 0.3)
        texture = "striped" if found.striped[i] else "plain"
        color = COLOR_NAMES[found.color[i]]
        read.append((Thing(name, color, x / SIZE, y / SIZE, radius / SIZE, texture), sure))
    return read


def _snap(value: float) -> float:
    """A lone thing's coordinate, moved onto the nearest zone if within TOLERANCE of it."""
    middle = MIDDLE - 1e-9  # 0.5 + 0.06 - 0.5 is more than 0.06 in floating point
    for low, high in ((0.0, SIDE), (0.5 - middle, 0.5 + middle), (1 - SIDE, 1.0)):
        if low - TOLERANCE <= value <= high + TOLERANCE:
            return min(max(value, low), high)
    return value


def _moved(a: Thing, b: Thing, axis: str, by: float) -> tuple[Thing, Thing]:
    """Both things, moved by `by` away from each other along an axis."""
    u, v = getattr(a, axis), getattr(b, axis)
    step = by / 2 if v > u else -by / 2
    return replace(a, **{axis: u - step}), replace(b, **{axis: v + step})


def _lawful(things: list[Thing]) -> tuple[Thing, ...]:
    """Things moved by a pixel or two, so that size, position and relation are clear-cut.

    Radii between two sizes go to the nearer one. Two things that touch still have a relation.
    """
    if len(things) == 1:
        only = things[0]
        radius = only.radius
        if radius < _BETWEEN[0]:
            radius = min(radius, RADIUS["small"][1])
        elif radius > _BETWEEN[1]:
            radius = max(radius, RADIUS["large"][0])
        return (replace(only, x=_snap(only.x), y=_snap(only.y), radius=radius),)
    a, b = things
    across, along = ("y", "x") if abs(b.x - a.x) > abs(b.y - a.y) else ("x", "y")
    excess = abs(getattr(b, across) - getattr(a, across)) - OFF_AXIS
    if 0 < excess <= 2 * TOLERANCE:
        a, b = _moved(a, b, across, -excess)
    lack = a.radius + b.radius + GAP - abs(getattr(b, along) - getattr(a, along))
    if 0 < lack <= 3 * TOLERANCE:  # as good as touching
        a, b = _moved(a, b, along, lack)
    return (a, b) if relation_of(a, b) not in ("right of", "below") else (b, a)


def _verdict(ground: int, margin: float, crowded: bool, read: list[Reading]) -> Verdict:
    background = GROUND_NAMES[ground] if ground >= 0 else None
    unknown = Verdict(None, 0.0, background)
    things = [thing for thing, _ in read if thing is not None]
    if background is None or crowded or len(things) != len(read) or len(read) not in (1, 2):
        return unknown
    confidence = min([min(1.0, margin / 0.3)] + [sure for _, sure in read])
    if len(things) == 1:  # is it small, large or neither?
        nearest = min(abs(things[0].radius - between) for between in _BETWEEN)
        confidence *= min(1.0, 0.25 + 75 * nearest)
    if confidence < LEAST_CONFIDENCE:
        return unknown
    return Verdict(Scene(_lawful(things), background), confidence, background)


@torch.no_grad()
def judge(images: Tensor) -> list[Verdict]:
    """One verdict per image; one without scene counts as wrong.

    Args:
        images: (images, 3, height, width) in [0, 1]; other sizes than 64 x 64 are resized first.

    Raises:
        ValueError: another layout, an empty batch, or values far outside [0, 1].
    """
    if images.dim() != 4 or images.shape[1] != 3 or len(images) == 0:
        raise ValueError(f"expected (n, 3, height, width) with n >= 1, got {tuple(images.shape)}")
    if not bool(((images > -0.5) & (images < 1.5)).all()):
        raise ValueError("image values must lie in [0, 1]; rescale (x + 1) / 2 if in [-1, 1]")
    verdicts: list[Verdict] = []
    for chunk in images.detach().float().cpu().clamp(0, 1).split(CHUNK):
        if chunk.shape[2:] != (SIZE, SIZE):
            chunk = F.interpolate(chunk, (SIZE, SIZE), mode="bilinear", antialias=True)
        raw = chunk.numpy()
        smooth = ndimage.gaussian_filter(raw, (0, 0, SMOOTH, SMOOTH), mode="nearest", truncate=3)
        grounds = read_grounds(raw, smooth)
        found = find_segments(smooth, grounds)
        read: list[list[Reading]] = [[] for _ in raw]
        for image, thing in zip(found.image, _read_things(found), strict=True):
            read[image].append(thing)
        rows = zip(grounds.index, grounds.margin, found.crowded, read, strict=True)
        verdicts += [_verdict(int(g), float(m), bool(c), r) for g, m, c, r in rows]
    return verdicts


def matches(verdict: Verdict, description: Description) -> Match:
    """What of `description` the judged image shows; an unknown scene shows nothing.

    objects: every named object is there with the colour and shape said, and no other object
    (True if none is named). relation: objects, and the relation if one is named. background: as
    named, None if unnamed. exact: all that is said, sizes, positions and textures too.
    """
    said, scene = description, verdict.scene
    background = None if said.background is None else verdict.background == said.background
    if scene is None:
        return Match(False, False, background, False)
    if not said.things:
        return Match(True, True, background, bool(background))
    if len(said.things) != len(scene.things):
        return Match(False, False, background, False)
    plain = tuple(replace(p, size=None, texture=None, position=None) for p in said.things)
    objects = Description(plain).true_of(scene)
    relation = Description(plain, said.relation).true_of(scene)
    return Match(objects, relation, background, said.true_of(scene))
