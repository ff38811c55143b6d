"""The renderer: right areas, exact disjoint masks, any size, the same each time, and fast."""

import math
import time

import pytest
import torch

from dsd_tutorial.shapes.render import SIGNED_DISTANCE, coverage, render
from dsd_tutorial.shapes.scene import (
    ALL_COLORS,
    ALL_SHAPES,
    BACKGROUNDS,
    COLORS,
    Scene,
    Thing,
    random_scenes,
)

NAMES = [(color, shape) for color in ALL_COLORS for shape in ALL_SHAPES]


def one(value):
    return torch.tensor([value])


def supersampled(shape, x, y, radius, size, factor=16):
    """Share of each pixel inside the outline, by counting factor² points in it."""
    grid = (torch.arange(size * factor) + 0.5) / (size * factor)
    u, v = (grid[None, :] - x) / radius, (grid[:, None] - y) / radius
    inside = (SIGNED_DISTANCE[shape](*torch.broadcast_tensors(u, v)) < 0).float()
    return torch.nn.functional.avg_pool2d(inside[None, None], factor)[0, 0]


@pytest.mark.parametrize("shape", ALL_SHAPES)
def test_coverage_and_mask_agree_with_counting_points(shape):
    for x, y, radius in ((0.5, 0.5, 0.2), (0.313, 0.402, 0.15), (0.62, 0.55, 0.31)):
        exact = supersampled(shape, x, y, radius, 64)
        cover = coverage([shape], one(x), one(y), one(radius), 64)[0]
        assert (cover - exact).abs().mean() < 0.003
        assert (cover - exact).abs().max() < 0.45  # tips and notches only
        scene = Scene((Thing(shape, "red", x, y, radius),), "white")
        mask = render([scene])[1][0, 0]
        assert not (mask & (exact < 0.35)).any() and not (~mask & (exact > 0.65)).any()


def test_mean_area_is_the_analytic_one():
    radius, n = 0.2, 200
    at = 0.5 + (torch.rand(2, n, generator=torch.Generator().manual_seed(0)) - 0.5) / 10
    for shape, area in (("circle", math.pi), ("square", (2 * 0.86) ** 2)):
        cover = coverage([shape] * n, *at, torch.full((n,), radius), 64)
        found = cover.sum((1, 2)).mean() / 64**2
        assert abs(found / (area * radius**2) - 1) < 0.005, shape


def test_edges_are_blends_of_object_and_background():
    scene = Scene((Thing("circle", "red", 0.5, 0.5, 0.25),), "white")
    image = render([scene])[0][0]
    red = torch.tensor(COLORS["red"])[:, None, None]
    white = torch.tensor(BACKGROUNDS["white"])[:, None, None]
    share = ((image - white) / (red - white)).mean(0)
    assert ((image - white) - share * (red - white)).abs().max() < 1e-5
    soft = ((share > 0.02) & (share < 0.98)).sum()
    assert 60 < soft < 200  # about one pixel wide, 100 pixels around


def test_colors_and_masks():
    scenes = random_scenes(300, 4, names=NAMES)
    images, masks = render(scenes)
    assert images.shape == (300, 3, 64, 64) and masks.shape == (300, 2, 64, 64)
    assert images.dtype == torch.float32 and masks.dtype == torch.bool
    assert images.min() >= 0 and images.max() <= 1
    assert not (masks[:, 0] & masks[:, 1]).any()
    for scene, image, pair in zip(scenes, images, masks, strict=True):
        assert bool(pair[1].any()) == (len(scene.things) == 2)
        for thing, mask in zip(scene.things, pair, strict=False):
            expected = torch.tensor(ALL_COLORS[thing.color])
            assert (image[:, mask].median(1).values - expected).abs().max() < 0.02
            ys, xs = torch.where(mask)
            assert abs(float(xs.float().mean() + 0.5) / 64 - thing.x) < 0.02
            assert abs(float(ys.float().mean() + 0.5) / 64 - thing.y) < 0.06  # triangle, heart
        ground = torch.tensor(BACKGROUNDS[scene.background])
        assert torch.allclose(image[:, 0, 0], ground)


def test_stripes_swing_between_two_shades():
    thing = Thing("square", "yellow", 0.5, 0.5, 0.3, "striped")
    images, masks = render([Scene((thing,), "black")])
    shade = images[0, 0][masks[0, 0]] / COLORS["yellow"][0]
    assert shade.min() < 0.4 and shade.max() > 0.95
    assert 0.3 < (shade < 0.5).float().mean() < 0.6


@pytest.mark.parametrize("size", [16, 32, 96, 128, 512])
def test_any_size_shows_the_same_scene(size):
    scenes = random_scenes(6, 5, textures=("plain", "striped"))
    small, masks = render(scenes, 64)
    other, other_masks = render(scenes, size)
    assert other.shape == (6, 3, size, size)
    share, other_share = masks.float().mean((2, 3)), other_masks.float().mean((2, 3))
    assert (share - other_share).abs().max() < (0.03 if size < 32 else 0.02)  # of whole pixels
    pooled = torch.nn.functional.adaptive_avg_pool2d(other, 16)
    assert (pooled - torch.nn.functional.adaptive_avg_pool2d(small, 16)).abs().mean() < 0.02


def test_a_picture_does_not_depend_on_its_batch():
    scenes = random_scenes(40, 6, names=NAMES, textures=("plain", "striped"))
    images, masks = render(scenes)
    assert torch.equal(render(scenes)[0], images)
    for i in (0, 7, 39):
        alone, mask = render(scenes[i : i + 1])
        assert torch.equal(alone[0], images[i]) and torch.equal(mask[0], masks[i])


def test_no_scenes_is_an_error():
    with pytest.raises(ValueError, match="at least one scene"):
        render([])


def test_speed_on_one_core():
    scenes = random_scenes(1000, 7)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        best = 0.0
        for _ in range(5):
            start = time.process_time()  # of this process: other work on the machine is not ours
            render(scenes)
            best = max(best, len(scenes) / (time.process_time() - start))
    finally:
        torch.set_num_threads(threads)
    assert best >= 700, f"{best:.0f} images/s; 2,000 are expected on an idle core"
