"""From an image to its objects: background, colour, texture and a soft mask of each.

No learning: a pixel is a blend of the background and one of the palette's paints, and an object
is a connected piece of such blends. Works on whole batches through flat lists of pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from dsd_tutorial.shapes.render import STRIPE_DARK, STRIPE_PERIOD
from dsd_tutorial.shapes.scene import ALL_COLORS, BACKGROUNDS

SIZE = 64  # images are read at this many pixels a side
SMOOTH = 0.7  # pixels; tames noise, keeps the arms of a small star
SPECK = 24  # pixels; the smallest object of the world has about 100
MAX_PIECES = 12  # an image with more coarse pieces than this is noise, not a scene
ROUGH = 0.13  # a border that strays this far from one colour is no plain background
COLOR_REACH = 0.35  # RGB distance at which a paint has no support left
STRIPE_SWING = 0.055  # amplitude at the stripes' period; 0.15 sharp, 0.08 blurred, < 0.05 without

COLOR_NAMES = tuple(ALL_COLORS)
GROUND_NAMES = tuple(BACKGROUNDS)
_PAINT = np.array(list(ALL_COLORS.values()), dtype=np.float32)  # (colors, 3)
_GROUND = np.array(list(BACKGROUNDS.values()), dtype=np.float32)
_IN_PLANE = np.zeros((3, 3, 3), dtype=bool)  # neighbours lie in the same image only
_IN_PLANE[1] = True

Batch = Float[np.ndarray, "images 3 64 64"]
Points = Float[np.ndarray, "pixels 3"]  # RGB
Numbers = Int[np.ndarray, " pixels"]  # of the piece, or of the colour, that each pixel belongs to


@dataclass
class Grounds:
    """The background of each image: number (-1 unknown), margin in [0, 1], RGB, contrast limit."""

    index: Int[np.ndarray, " images"]
    margin: Float[np.ndarray, " images"]
    color: Float[np.ndarray, "images 3"]  # as found, which may be off the palette
    limit: Float[np.ndarray, " images"]  # smallest RGB distance that counts as foreground


@dataclass
class Segments:
    """The objects of all images, each with its image, colour, colour margin in [0, 1], and mask."""

    image: Int[np.ndarray, " objects"]
    color: Int[np.ndarray, " objects"]  # number in COLOR_NAMES
    margin: Float[np.ndarray, " objects"]
    striped: Bool[np.ndarray, " objects"]
    mask: Float[np.ndarray, "objects 64 64"]  # in [0, 1], smoothed by SMOOTH pixels
    crowded: Bool[np.ndarray, " images"]  # there is more in the image than these objects


def read_grounds(raw: Batch, smooth: Batch) -> Grounds:
    """The background of each image from its border, raw and smoothed."""
    edge = np.ones((SIZE, SIZE), dtype=bool)
    edge[2:-2, 2:-2] = False
    border = smooth[:, :, edge]  # (images, 3, pixels)
    color = np.median(border, axis=2)
    stray = np.median(np.linalg.norm(border - color[:, :, None], axis=1), axis=1)
    grain = 1.48 * np.median(np.abs(raw[:, :, edge] - color[:, :, None]), axis=(1, 2))
    # smoothing leaves 1 / (2 sqrt(pi) SMOOTH) of the grain; five of these in three channels
    limit = np.maximum(0.09, 5 * grain / (2 * math.sqrt(math.pi) * SMOOTH))
    # brightness drifts more easily than hue, so it counts for less
    offset = color[:, None] - _GROUND  # (images, grounds, 3)
    distance = np.linalg.norm(offset - 0.4 * offset.mean(axis=2, keepdims=True), axis=2)
    first, second = np.sort(distance, axis=1)[:, :2].T
    known = (first < 0.3) & (stray < ROUGH)
    index = np.where(known, distance.argmin(axis=1), -1)
    return Grounds(index, np.where(known, 1 - 2 * first / (first + second), 0.0), color, limit)


def _pieces(
    mask: Bool[np.ndarray, "planes 64 64"],
) -> tuple[Int[np.ndarray, "planes 64 64"], Int[np.ndarray, " pieces"]]:
    """Labels, from 1, of the connected pieces that are no specks, and the plane of each."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    ndimage.label(mask, structure=_IN_PLANE, output=labels)
    area = np.bincount(labels.ravel())
    keep = area >= SPECK
    keep[0] = False
    renamed = np.where(keep, np.cumsum(keep), 0)
    plane = np.array([s[0].start for s in ndimage.find_objects(labels)], dtype=int)
    return renamed[labels], plane[keep[1:]]


def _core(labels: np.ndarray) -> Bool[np.ndarray, "planes 64 64"]:
    return np.asarray(ndimage.binary_erosion(labels > 0, structure=_IN_PLANE))


def _stray(points: Points, ground: Points, color: Numbers) -> Float[np.ndarray, " pixels"]:
    """RGB distance of each pixel to the nearest blend of its background and one colour's paints."""
    light, dark = _PAINT[color], STRIPE_DARK * _PAINT[color]
    distances = []
    for start, end in ((ground, light), (ground, dark), (dark, light)):
        along = end - start
        t = ((points - start) * along).sum(1) / ((along**2).sum(1) + 1e-6)
        distances.append(np.linalg.norm(points - start - t.clip(0, 1)[:, None] * along, axis=1))
    return np.minimum.reduce(distances)


def _sums(
    piece: Numbers, values: Float[np.ndarray, "pixels c"], count: int
) -> Float[np.ndarray, "{count} c"]:
    """Sums of values within each piece."""
    columns = [np.bincount(piece, column, minlength=count) for column in values.T]
    return np.stack(columns, axis=1, dtype=float)  # numpy counts nothing at all in integers


def _colors(
    points: Points, piece: Numbers, ground: Points, count: int
) -> tuple[Int[np.ndarray, " {count}"], Float[np.ndarray, " {count}"], Int[np.ndarray, " {count}"]]:
    """First colour, its margin, and second colour (-1: none) of each piece, from its core."""
    distance = np.linalg.norm(points[:, None] - _PAINT, axis=2)  # (pixels, colors)
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


def _swing(
    points: Points, piece: Numbers, color: Numbers, place: Float[np.ndarray, " pixels"], count: int
) -> Float[np.ndarray, " {count}"]:
    """How far the brightness in each piece's core swings at the stripes' period, in any phase."""
    paint = _PAINT[color]
    shade = ((points * paint).sum(1) / (paint**2).sum(1))[:, None].clip(0, 1.2)
    number = np.maximum(np.bincount(piece, minlength=count), 1)
    swing = shade[:, 0] - (_sums(piece, shade, count)[:, 0] / number)[piece]
    turn = 2 * math.pi * place / (STRIPE_PERIOD * SIZE * math.sqrt(2))
    waves = np.stack([swing * np.cos(turn), swing * np.sin(turn)], axis=1)
    return np.linalg.norm(_sums(piece, waves, count), axis=1) / number


def _level(
    points: Points, ground: Points, color: Numbers, striped: Bool[np.ndarray, " pixels"]
) -> Float[np.ndarray, " pixels"]:
    """Share of the object in each pixel, in [0, 1]: its way from the background to the paint."""
    light, offset = _PAINT[color] - ground, points - ground
    plain = (offset * light).sum(1) / (light**2).sum(1)
    bright = np.linalg.norm(light, axis=1)
    dark = np.linalg.norm(STRIPE_DARK * _PAINT[color] - ground, axis=1)
    least = np.clip(dark, 0.45 * bright, bright)  # dark stripes on black are almost background
    return np.where(striped, np.linalg.norm(offset, axis=1) / least, plain).clip(0, 1)


def _inspect(
    pixels: Float[np.ndarray, "images 64 64 3"], grounds: Grounds, labels: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """First colour, margin, second colour, striped, and a third colour (bool) of each piece."""
    core = labels * _core(labels)
    n, y, x = np.nonzero(core)
    piece, n = core[n, y, x] - 1, n % len(pixels)  # labels may come in layers over all images
    points, ground = pixels[n, y, x], grounds.color[n]
    first, margin, second = _colors(points, piece, ground, count)
    two = second[piece] >= 0  # where these do not explain everything, there is a third
    strays = [_stray(points[two], ground[two], c[piece[two]]) for c in (first, second)]
    third = np.bincount(piece[two][np.minimum(*strays) > 0.25], minlength=count) >= SPECK
    swing = _swing(points, piece, first[piece], x + y + 1.0, count)
    margin = margin * (np.abs(swing - STRIPE_SWING) / 0.02).clip(0, 1)
    return first, margin, second, swing > STRIPE_SWING, third


def find_segments(smooth: Batch, grounds: Grounds) -> Segments:
    """The objects of smoothed images, specks left out."""
    pixels = np.ascontiguousarray(smooth.transpose(0, 2, 3, 1))  # (images, SIZE, SIZE, 3)
    total = len(pixels)
    contrast = np.linalg.norm(pixels - grounds.color[:, None, None], axis=3)
    labels, owner = _pieces(contrast > grounds.limit[:, None, None])
    crowded = np.bincount(owner, minlength=total) > MAX_PIECES
    labels[crowded | (grounds.index < 0)] = 0
    first, _, second, striped, third = _inspect(pixels, grounds, labels, len(owner))
    crowded[owner[third]] = True

    # give every pixel to the first or the second colour of its piece, then cut at half coverage
    n, y, x = np.nonzero(labels)
    piece, points, ground = labels[n, y, x] - 1, pixels[n, y, x], grounds.color[n]
    two = second[piece] >= 0
    strays = [_stray(points[two], ground[two], c[piece[two]]) for c in (first, second)]
    layer = np.zeros(len(n), dtype=int)
    layer[two] = strays[1] < strays[0]
    chosen = np.where(layer == 1, second[piece], first[piece])
    solid = np.zeros((2, *labels.shape), dtype=bool)
    solid[layer, n, y, x] = _level(points, ground, chosen, striped[piece]) > 0.5
    objects, plane = _pieces(solid.reshape(-1, SIZE, SIZE))

    # look again at each object alone: a neighbour in the same piece may have lent its colour
    color, margin, _, striped, _ = _inspect(pixels, grounds, objects, len(plane))
    wide = np.where(objects > 0, objects, ndimage.maximum_filter(objects, size=(1, 5, 5)))
    p, y, x = np.nonzero(wide)
    which, n = wide[p, y, x] - 1, p % total
    left_over = _core(labels) & ~(wide.reshape(2, *labels.shape) > 0).any(axis=0)
    crowded |= left_over.sum(axis=(1, 2)) >= SPECK  # there is something that no object explains
    mask = np.zeros((len(plane), SIZE, SIZE), dtype=np.float32)
    mask[which, y, x] = _level(pixels[n, y, x], grounds.color[n], color[which], striped[which])
    return Segments(plane % total, color, margin, striped, mask, crowded)
