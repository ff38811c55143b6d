"""Steering adds exactly what it says, where and when it says, and nothing afterwards."""

import pytest
import torch

from dsd_tutorial.features import capture, random_direction, shows, steer
from dsd_tutorial.shapes import Scene, Thing, judge, render


def one_pass(model, t=400):
    noisy = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    return model.predict_noise(noisy, t, model.encode_text([""]))


@pytest.mark.parametrize("block", ["down.0", "mid", "up.2"])
def test_the_direction_is_added_in_lengths_of_the_features(tiny, block):
    with capture(tiny, block, lambda h: h) as before:
        plain = one_pass(tiny)
    direction = random_direction(before[block].shape[1], seed=1)
    with steer(tiny, block, 5 * direction, 0.5), capture(tiny, block, lambda h: h) as after:
        moved = one_pass(tiny)
    length = before[block].norm(dim=1).mean((1, 2))  # of each image
    added = after[block] - before[block]
    want = 0.5 * length[:, None, None, None] * direction[None, :, None, None]
    torch.testing.assert_close(added, want.expand_as(added), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(moved, plain, atol=1e-4)
    assert torch.equal(one_pass(tiny), plain)  # nothing is left behind


def test_a_down_block_is_steered_on_its_skip_way_too(tiny):
    block, seen = tiny.unet.down_blocks[1], []
    with steer(tiny, "down.1", random_direction(64), 1.0):
        hook = block.register_forward_hook(lambda m, a, output: seen.append(output))
        one_pass(tiny)
        hook.remove()
    hidden, skips = seen[0]
    assert skips[-1] is hidden


def test_strength_zero_and_other_time_steps_change_no_bit(tiny):
    plain, direction = one_pass(tiny), random_direction(64)
    with steer(tiny, "mid", direction, 0.0):
        assert torch.equal(one_pass(tiny), plain)
    with steer(tiny, "mid", direction, 1.0, steps=(500, 900)):
        assert torch.equal(one_pass(tiny), plain)
        later = one_pass(tiny, t=500)
    assert not torch.allclose(later, one_pass(tiny, t=500), atol=1e-4)


def test_a_guided_push_moves_the_second_half_of_the_batch_alone(tiny):
    plain, direction = one_pass(tiny), random_direction(64)
    with steer(tiny, "mid", direction, 1.0, guided=True):
        moved = one_pass(tiny)
    with steer(tiny, "mid", direction, 1.0):
        both = one_pass(tiny)
    torch.testing.assert_close(moved[:1], plain[:1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(moved[1:], both[1:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(moved[1:], plain[1:], atol=1e-4)


def test_a_mask_says_where(tiny):
    block = "up.2"
    with capture(tiny, block, lambda h: h) as before:
        one_pass(tiny)
    direction = random_direction(before[block].shape[1], seed=1)
    left = torch.zeros(2, 64, 64, dtype=torch.bool)
    left[0, :, :32] = True  # of the first image; nowhere in the second
    with steer(tiny, block, direction, 0.5, places=left), capture(tiny, block, lambda h: h) as part:
        one_pass(tiny)
    with steer(tiny, block, direction, 0.5), capture(tiny, block, lambda h: h) as whole:
        everywhere = one_pass(tiny)
    half = before[block].shape[-1] // 2
    torch.testing.assert_close(part[block][0, :, :, :half], whole[block][0, :, :, :half])
    assert torch.equal(part[block][0, :, :, half:], before[block][0, :, :, half:])
    assert torch.equal(part[block][1], before[block][1])
    with steer(tiny, block, direction, 0.5, places=torch.ones_like(left)):
        torch.testing.assert_close(one_pass(tiny), everywhere)
    three = torch.ones(3, 8, 8, dtype=torch.bool)
    with (
        pytest.raises(ValueError, match="places: 3 for a batch of 2"),
        steer(tiny, block, direction, 0.5, places=three),
    ):
        one_pass(tiny)


def test_each_image_has_a_direction_of_its_own(tiny):
    directions = torch.stack([random_direction(64, seed) for seed in (1, 2)])
    each = []
    for direction in directions:
        with steer(tiny, "mid", direction, 0.5):
            each.append(one_pass(tiny))
    with steer(tiny, "mid", directions, 0.5):
        both = one_pass(tiny)
    for i in range(2):
        torch.testing.assert_close(both[i], each[i][i])
        assert (both[i] - each[1 - i][i]).abs().max() > 1e-3
    with (
        pytest.raises(ValueError, match="directions: 3 for a batch of 2"),
        steer(tiny, "mid", torch.ones(3, 64), 0.5),
    ):
        one_pass(tiny)
    with pytest.raises(ValueError, match="leads nowhere"), steer(tiny, "mid", 0 * directions, 1):
        pass


def test_hooks_go_after_an_error(tiny):
    plain = one_pass(tiny)
    with pytest.raises(RuntimeError), steer(tiny, "mid", random_direction(64), 1.0):
        raise RuntimeError
    assert torch.equal(one_pass(tiny), plain)


def test_bad_requests_are_named(tiny):
    with pytest.raises(ValueError, match="leads nowhere"), steer(tiny, "mid", torch.zeros(64), 1):
        pass
    with (
        pytest.raises(ValueError, match=r"names up\.0, up\.1, up\.2"),
        steer(tiny, "up", random_direction(64), 1.0),
    ):
        pass


def test_random_directions_are_unit_and_follow_their_seed():
    a, b = random_direction(50, 3), random_direction(50, 4)
    assert float(a.norm()) == pytest.approx(1) and torch.equal(a, random_direction(50, 3))
    assert abs(float(a @ b)) < 0.6


def test_what_an_image_shows():
    scenes = [
        Scene((Thing("circle", "red", 0.25, 0.5, 0.2), Thing("star", "blue", 0.75, 0.5, 0.2)), g)
        for g in ("white", "pink")
    ]
    verdicts = judge(torch.cat([render(scenes)[0], torch.rand(1, 3, 64, 64)]))
    assert shows(verdicts, "color", "red") == [True, True, False]
    assert shows(verdicts, "shape", "star") == [True, True, False]
    assert shows(verdicts, "color", "green") == [False, False, False]
    assert shows(verdicts, "background", "pink")[:2] == [False, True]
