"""From a picture to its objects: background, colour, texture and a soft mask of each.

No learning: a pixel is a blend of the background and one of the palette's paints, and an object
is a connected piece of such blends. Works on whole batches through flat lists of pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dsd_tutorial.shapes.render import STRIPE_DARK, STRIPE_PERIOD
from dsd_tutorial.shapes.scene import ALL_COLORS, BACKGROUNDS

SIZE = 64  # pictures are read at this many pixels a side
SMOOTH = 0.7  # pixels; tames noise, keeps the arms of a small star
SPECK = 24  # pixels; the smallest object of the world has about 100
MAX_PIECES = 12  # a picture with more coarse pieces than this is noise, not a scene
ROUGH = 0.13  # a border that strays this far from one colour is no plain background
COLOR_REACH = 0.35  # RGB distance at which a paint has no support left
STRIPE_SWING = 0.055  # amplitude at the stripes' period; 0.15 sharp, 0.08 blurred, < 0.05 without

COLOR_NAMES = tuple(ALL_COLORS)
GROUND_NAMES = tuple(BACKGROUNDS)
_PAINT = np.array(list(ALL_COLORS.values()), dtype=np.float32)  # (colors, 3)
_GROUND = np.array(list(BACKGROUNDS.values()), dtype=np.float32)
_IN_PLANE = np.zeros((3, 3, 3), dtype=bool)  # neighbours lie in the same picture only
_IN_PLANE[1] = True


@dataclass
class Grounds:
    """Per picture: background index (-1 unknown), its margin in [0, 1], colour, contrast limit."""

    index: np.ndarray  # (n,)
    margin: np.ndarray  # (n,)
    color: np.ndarray  # (n, 3), as found, which may be off the palette
    limit: np.ndarray  # (n,) smallest RGB distance that counts as foreground


@dataclass
class Segments:
    """Per object: picture, colour, colour margin in [0, 1], striped or not, soft mask."""

    picture: np.ndarray  # (k,)
    color: np.ndarray  # (k,) index into COLOR_NAMES
    margin: np.ndarray  # (k,)
    striped: np.ndarray  # (k,) bool
    mask: np.ndarray  # (k, SIZE, SIZE) float32 in [0, 1], smoothed by SMOOTH pixels
    crowded: np.ndarray  # (n,) bool: pictures with more in them than these objects


def read_grounds(raw: np.ndarray, smooth: np.ndarray) -> Grounds:
    """The background of each picture from its border, (n, 3, SIZE, SIZE) raw and smoothed."""
    edge = np.ones((SIZE, SIZE), dtype=bool)
    edge[2:-2, 2:-2] = False
    border = smooth[:, :, edge]  # (n, 3, pixels)
    color = np.median(border, axis=2)
    stray = np.median(np.linalg.norm(border - color[:, :, None], axis=1), axis=1)
    grain = 1.48 * np.median(np.abs(raw[:, :, edge] - color[:, :, None]), axis=(1, 2))
    # smoothing leaves 1 / (2 sqrt(pi) SMOOTH) of the grain; five of these in three channels
    limit = np.maximum(0.09, 5 * grain / (2 * math.sqrt(math.pi) * SMOOTH))
    # brightness drifts more easily than hue, so it counts for less
    offset = color[:, None] - _GROUND  # (n, grounds, 3)
    distance = np.linalg.norm(offset - 0.4 * offset.mean(axis=2, keepdims=True), axis=2)
    first, second = np.sort(distance, axis=1)[:, :2].T
    known = (first < 0.3) & (stray < ROUGH)
    index = np.where(known, distance.argmin(axis=1), -1)
    return Grounds(index, np.where(known, 1 - 2 * first / (first + second), 0.0), color, limit)


def _pieces(mask: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (as `mask`) of its connected pieces of at least `least` pixels, and their planes."""
    labels, count = ndimage.label(mask, structure=_IN_PLANE)
    area = np.bincount(labels.ravel(), minlength=count + 1)
    keep = area >= least
    keep[0] = False
    renamed = np.where(keep, np.cumsum(keep), 0)
    first = np.array([s[0].start for s in ndimage.find_objects(labels)], dtype=int)
    return renamed[labels], first[keep[1:]]


def _segment_distance(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """RGB distance of points (m, 3) to the line pieces from start to end, each (m, 3)."""
    along = end - start
    t = ((points - start) * along).sum(1) / ((along**2).sum(1) + 1e-6)
    return np.linalg.norm(points - start - t.clip(0, 1)[:, None] * along, axis=1)


def _stray(points: np.ndarray, ground: np.ndarray, color: np.ndarray) -> np.ndarray:
    """How far points (m, 3) are from any blend of their background with one colour's paints."""
    light, dark = _PAINT[color], STRIPE_DARK * _PAINT[color]
    pairs = ((ground, light), (ground, dark), (dark, light))
    return np.minimum.reduce([_segment_distance(points, a, b) for a, b in pairs])


def _sums(group: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Sums of values (m, c) within each group, (count, c)."""
    columns = [np.bincount(group, column, minlength=count) for column in values.T]
    return np.stack(columns, axis=1)


def _colors(points: np.ndarray, piece: np.ndarray, ground: np.ndarray, count: int):
    """First colour, its margin, and second colour (-1: none) of each piece, from its core."""
    distance = np.linalg.norm(points[:, None] - _PAINT, axis=2)  # (m, colors)
    shaded = np.linalg.norm(points[:, None] - STRIPE_DARK * _PAINT, axis=2)
    bright = (1 - distance / COLOR_REACH).clip(0)
    # the dark stripes of orange look like brown: a dark paint supports its colour a little less,
    # and none that never shows its bright paint
    either = np.maximum(bright, 0.8 * (1 - shaded / COLOR_REACH).clip(0))
    votes, lit = _sums(piece, either, count), _sums(piece, bright, count)
    votes = np.where(lit >= 0.2 * votes, votes, 0)
    first = votes.argmax(axis=1)
    best, runner_up = -np.partition(-votes, 1, axis=1)[:, :2].T
    margin = np.where(best > 0, 1 - runner_up / np.maximum(best, 1e-6), 0)
    # a second colour must show in earnest what blends of the first cannot explain
    unlike = _stray(points, ground, first[piece]) > 0.25
    other = (distance < 0.25) & unlike[:, None]
    number = _sums(piece, other.astype(np.float32), count)
    second = np.where(number.max(axis=1) >= SPECK * 2 / 3, number.argmax(axis=1), -1)
    return first, margin, second


def _third_color(points, piece, ground, colors) -> np.ndarray:
    """Pieces (bool) with two colours in which these do not explain everything."""
    two = colors[1][piece] >= 0
    points, piece, ground = points[two], piece[two], ground[two]
    stray = np.minimum(*(_stray(points, ground, color[piece]) for color in colors))
    return np.bincount(piece[stray > 0.25], minlength=len(colors[0])) >= SPECK


def _swing(
    points: np.ndarray, piece: np.ndarray, color: np.ndarray, place: np.ndarray, count: int
) -> np.ndarray:
    """How far the brightness in each piece's core swings at the stripes' period, in any phase."""
    paint = _PAINT[color]
    shade = ((points * paint).sum(1) / (paint**2).sum(1))[:, None].clip(0, 1.2)
    number = np.maximum(np.bincount(piece, minlength=count), 1)
    swing = shade[:, 0] - (_sums(piece, shade, count)[:, 0] / number)[piece]
    turn = 2 * math.pi * place / (STRIPE_PERIOD * SIZE * math.sqrt(2))
    waves = np.stack([swing * np.cos(turn), swing * np.sin(turn)], axis=1)
    return np.linalg.norm(_sums(piece, waves, count), axis=1) / number


def _level(
    points: np.ndarray, ground: np.ndarray, color: np.ndarray, striped: np.ndarray
) -> np.ndarray:
    """Share of the object in each pixel, in [0, 1]: its way from the background to the paint."""
    light, offset = _PAINT[color] - ground, points - ground
    plain = (offset * light).sum(1) / (light**2).sum(1)
    bright = np.linalg.norm(light, axis=1)
    dark = np.linalg.norm(STRIPE_DARK * _PAINT[color] - ground, axis=1)
    least = np.clip(dark, 0.45 * bright, bright)  # dark stripes on black are almost background
    return np.where(striped, np.linalg.norm(offset, axis=1) / least, plain).clip(0, 1)


def _inspect(pixels: np.ndarray, grounds: Grounds, labels: np.ndarray, count: int):
    """First colour, margin, second colour, striped, third (bool) of each labelled region."""
    core = labels * ndimage.binary_erosion(labels > 0, structure=_IN_PLANE)
    n, y, x = np.nonzero(core)
    piece, n = core[n, y, x] - 1, n % len(pixels)  # labels may come in layers over all pictures
    points, ground = pixels[n, y, x], grounds.color[n]
    first, margin, second = _colors(points, piece, ground, count)
    third = _third_color(points, piece, ground, (first, second))
    swing = _swing(points, piece, first[piece], x + y + 1.0, count)
    margin = margin * (np.abs(swing - STRIPE_SWING) / 0.02).clip(0, 1)
    return first, margin, second, swing > STRIPE_SWING, third


def find_segments(smooth: np.ndarray, grounds: Grounds) -> Segments:
    """The objects of smoothed pictures (n, 3, SIZE, SIZE), specks left out."""
    pixels = np.ascontiguousarray(smooth.transpose(0, 2, 3, 1))  # (n, SIZE, SIZE, 3)
    total = len(pixels)
    contrast = np.linalg.norm(pixels - grounds.color[:, None, None], axis=3)
    labels, owner = _pieces(contrast > grounds.limit[:, None, None], SPECK)
    crowded = np.bincount(owner, minlength=total) > MAX_PIECES
    labels[crowded | (grounds.index < 0)] = 0
    first, _, second, striped, third = _inspect(pixels, grounds, labels, len(owner))
    crowded[owner[third]] = True

    # give every pixel to the first or the second colour of its piece, then cut at half coverage
    n, y, x = np.nonzero(labels)
    piece, points, ground = labels[n, y, x] - 1, pixels[n, y, x], grounds.color[n]
    two = second[piece] >= 0
    layer = np.zeros(len(n), dtype=int)
    layer[two] = _stray(points[two], ground[two], second[piece[two]]) < _stray(
        points[two], ground[two], first[piece[two]]
    )
    chosen = np.where(layer == 1, second[piece], first[piece])
    solid = np.zeros((2, *labels.shape), dtype=bool)
    solid[layer, n, y, x] = _level(points, ground, chosen, striped[piece]) > 0.5
    objects, plane = _pieces(solid.reshape(-1, SIZE, SIZE), SPECK)

    # look again at each object alone: a neighbour in the same piece may have lent its colour
    color, margin, _, striped, _ = _inspect(pixels, grounds, objects, len(plane))
    wide = np.where(objects > 0, objects, ndimage.maximum_filter(objects, size=(1, 5, 5)))
    p, y, x = np.nonzero(wide)
    which, n = wide[p, y, x] - 1, p % total
    inner = ndimage.binary_erosion(labels > 0, structure=_IN_PLANE)
    left_over = inner & ~(wide.reshape(2, *labels.shape) > 0).any(axis=0)
    crowded |= left_over.sum(axis=(1, 2)) >= SPECK  # there is something that no object explains
    mask = np.zeros((len(plane), SIZE, SIZE), dtype=np.float32)
    mask[which, y, x] = _level(pixels[n, y, x], grounds.color[n], color[which], striped[which])
    return Segments(plane % total, color, margin, striped, mask, crowded)
