"""Reads pictures back into scenes by programme, with a confidence and the right to say "unknown".

`segments` finds the objects with colour and texture; here each soft mask is brought to its centre
of mass and unit spread, and compared with all shapes in small variations of pose and blur.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations

import numpy as np
import torch
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
CHUNK = 256  # pictures read at once, so that memory stays below about 200 MB


@dataclass(frozen=True)
class Verdict:
    """What was read: a scene, or None with the `reason`; the background may be known even then."""

    scene: Scene | None
    confidence: float  # in [0, 1]; 0 where the scene is unknown
    reason: str
    background: str | None = None


@dataclass(frozen=True)
class Match:
    """What of a description a picture shows; see `matches`."""

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
        cover = coverage([shape], *torch.tensor([[0.5], [0.5], [0.4]]), 512)[0] / 0.64
        weight, v, u = cover.sum(), grid[:, None] / 0.8, grid[None, :] / 0.8
        low = float((cover * v).sum() / weight)
        spread = float(((cover * (u**2 + (v - low) ** 2)).sum() / weight).sqrt())
        known[shape] = (float(weight) * (2 / 512) ** 2, low, spread)
    return known


@cache
def _templates() -> tuple[Tensor, Tensor]:
    """All shapes in all variations, flat (templates, FRAME²), and their squared lengths."""
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


def _frames(masks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Frames (k, FRAME, FRAME), centres of mass (k, 2) x y, spreads, areas of masks, in pixels."""
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


def _read_things(found: Segments) -> list[tuple[Thing | None, float, str]]:
    """Thing (or None), confidence and reason for each segment."""
    if len(found.picture) == 0:
        return []
    frames, center, spread, area = _frames(torch.from_numpy(found.mask))
    templates, length = _templates()
    flat = frames.flatten(1)
    common = flat @ templates.T  # (k, templates)
    overlap = common / ((flat**2).sum(1, keepdim=True) + length - common)
    fits = overlap.view(len(flat), len(ALL_SHAPES), -1).amax(2)  # (k, shapes)
    best, shape = fits.topk(2, dim=1)
    read = []
    for i in range(len(flat)):
        fit, margin = float(best[i, 0]), float(best[i, 0] - best[i, 1])
        name = ALL_SHAPES[int(shape[i, 0])]
        size, low, unit = _units()[name]
        # blur keeps the area and widens the spread; stripes disturb the area
        blurred = max(float(spread[i]) ** 2 - 2 * SMOOTH**2, 1.0) ** 0.5 / unit
        radius = blurred if found.striped[i] else (float(area[i]) / size) ** 0.5
        x, y = float(center[i, 0]), float(center[i, 1]) - low * radius
        sure = min((fit - LEAST_FIT + 0.05) / 0.12, margin / 0.1, 1.0)
        sure = max(sure, 0.0) * min(1.0, float(found.margin[i]) / 0.3)
        thing = Thing(
            name, COLOR_NAMES[found.color[i]], x / SIZE, y / SIZE, radius / SIZE,
            "striped" if found.striped[i] else "plain",
        )  # fmt: skip
        if fit < LEAST_FIT:
            read.append((None, 0.0, f"no shape fits the {thing.color} object (best {fit:.2f})"))
        else:
            read.append((thing, sure, f"{name} fits {fit:.2f}, next {fit - margin:.2f}"))
    return read


def _snap(value: float, edges: tuple[tuple[float, float], ...]) -> float:
    """`value`, moved onto the nearest zone (low, high) of `edges` if within TOLERANCE of it."""
    for low, high in edges:
        if low - TOLERANCE <= value <= high + TOLERANCE:
            return min(max(value, low), high)
    return value


def _lawful(things: list[Thing]) -> tuple[Thing, ...]:
    """Things moved by a pixel or two, so that size, position and relation are clear-cut.

    Radii between two sizes go to the nearer one. Two things that touch still have a relation.
    """
    if len(things) == 1:
        only = things[0]
        middle = MIDDLE - 1e-9  # 0.5 + 0.06 - 0.5 is more than 0.06 in floating point
        zones = ((0.0, SIDE), (0.5 - middle, 0.5 + middle), (1 - SIDE, 1.0))
        radius = only.radius
        if radius < _BETWEEN[0]:
            radius = min(radius, RADIUS["small"][1])
        elif radius > _BETWEEN[1]:
            radius = max(radius, RADIUS["large"][0])
        return (replace(only, x=_snap(only.x, zones), y=_snap(only.y, zones), radius=radius),)
    a, b = things
    across = "y" if abs(b.x - a.x) > abs(b.y - a.y) else "x"
    along = "x" if across == "y" else "y"
    excess = abs(getattr(b, across) - getattr(a, across)) - OFF_AXIS
    if 0 < excess <= 2 * TOLERANCE:
        step = excess / 2 if getattr(b, across) > getattr(a, across) else -excess / 2
        a = replace(a, **{across: getattr(a, across) + step})
        b = replace(b, **{across: getattr(b, across) - step})
    lack = a.radius + b.radius + GAP - abs(getattr(b, along) - getattr(a, along))
    if 0 < lack <= 3 * TOLERANCE:  # as good as touching
        step = lack / 2 if getattr(b, along) > getattr(a, along) else -lack / 2
        a = replace(a, **{along: getattr(a, along) - step})
        b = replace(b, **{along: getattr(b, along) + step})
    return (a, b) if relation_of(a, b) not in ("right of", "below") else (b, a)


def _verdict(ground: int, sure: float, crowded: bool, read: list) -> Verdict:
    if ground < 0:
        return Verdict(None, 0.0, "no plain background of a known colour")
    background = GROUND_NAMES[ground]
    if crowded or len(read) not in (1, 2):
        seen = "many specks, or colours run together" if crowded else f"{len(read)} objects"
        return Verdict(None, 0.0, f"{seen}; a scene has one or two objects", background)
    for thing, _, reason in read:
        if thing is None:
            return Verdict(None, 0.0, reason, background)
    confidence = min([min(1.0, sure / 0.3)] + [s for _, s, _ in read])
    if len(read) == 1:  # is it small, large or neither?
        nearest = min(abs(read[0][0].radius - between) for between in _BETWEEN)
        confidence *= min(1.0, 0.25 + 75 * nearest)
    reason = "; ".join(r for _, _, r in read)
    if confidence < LEAST_CONFIDENCE:
        return Verdict(None, 0.0, f"too close to call: {reason}", background)
    scene = Scene(_lawful([t for t, _, _ in read]), background)
    return Verdict(scene, confidence, reason, background)


@torch.no_grad()
def judge(images: Tensor) -> list[Verdict]:
    """One verdict per picture of `images`, (n, 3, height, width) in [0, 1].

    Other sizes than 64 x 64 are resized first. A verdict without scene counts as wrong.
    Raises ValueError for another layout, for an empty batch or for values far outside [0, 1].
    """
    if images.dim() != 4 or images.shape[1] != 3 or len(images) == 0:
        raise ValueError(f"expected (n, 3, height, width) with n >= 1, got {tuple(images.shape)}")
    if not bool(((images > -0.5) & (images < 1.5)).all()):
        raise ValueError("picture values must lie in [0, 1]; rescale (x + 1) / 2 if in [-1, 1]")
    verdicts: list[Verdict] = []
    for chunk in images.detach().float().cpu().clamp(0, 1).split(CHUNK):
        if chunk.shape[2:] != (SIZE, SIZE):
            chunk = F.interpolate(chunk, (SIZE, SIZE), mode="bilinear", antialias=True)
        raw = chunk.numpy()
        smooth = ndimage.gaussian_filter(raw, (0, 0, SMOOTH, SMOOTH), mode="nearest", truncate=3)
        grounds = read_grounds(raw, smooth)
        found = find_segments(smooth, grounds)
        read: list[list] = [[] for _ in raw]
        for picture, thing in zip(found.picture, _read_things(found), strict=True):
            read[picture].append(thing)
        rows = zip(grounds.index, grounds.margin, found.crowded, read, strict=True)
        verdicts += [_verdict(int(g), float(m), bool(b), r) for g, m, b, r in rows]
    return verdicts


def matches(verdict: Verdict, description: Description) -> Match:
    """What of `description` the judged picture shows; an unknown scene shows nothing.

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
    objects = any(
        all(p.true_of(t) for p, t in zip(plain, order, strict=True))
        for order in permutations(scene.things)
    )
    relation = Description(plain, said.relation).true_of(scene)
    return Match(objects, relation, background, said.true_of(scene))
