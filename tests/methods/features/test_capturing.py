"""Features are observed without a trace, and what is kept is decided inside the hook."""

import pytest
import torch

from dsd_tutorial.features import capture, choose_blocks, collect, grid, pooled, positions
from dsd_tutorial.features.capturing import at_masks
from dsd_tutorial.shapes import random_scenes, render

BLOCKS = ["down.0", "down.1", "down.2", "mid", "up.0", "up.1", "up.2"]


def one_pass(model, rows=3, seed=0):
    noisy = torch.randn(rows, *model.latent_shape, generator=torch.Generator().manual_seed(seed))
    return model.predict_noise(noisy, 400, model.encode_text([""]))


def hooks_of(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.unet.modules())


def test_every_block_is_seen_and_the_pass_is_bit_for_bit_the_plain_one(tiny):
    before, plain = hooks_of(tiny), one_pass(tiny)
    with capture(tiny, keep={"mean": pooled, "all": positions}) as seen:
        observed = one_pass(tiny)
        assert hooks_of(tiny) == before + len(BLOCKS)
    assert torch.equal(observed, plain)
    assert hooks_of(tiny) == before
    assert list(dict.fromkeys(block for block, _ in seen.keys())) == BLOCKS
    widths = {"down.0": 32, "down.1": 64, "mid": 64, "up.0": 64, "up.2": 32}
    assert {b: seen[b, "mean"].shape[1] for b in widths} == widths


def test_nothing_is_left_behind_after_an_error(tiny):
    before = hooks_of(tiny)
    with pytest.raises(RuntimeError, match="on the way"), capture(tiny):
        raise RuntimeError("on the way")
    assert hooks_of(tiny) == before


def test_what_is_seen_is_what_the_block_hands_on(tiny):
    """The mid block's features are the input of the first up block."""
    given = []
    hook = tiny.unet.up_blocks[0].register_forward_pre_hook(
        lambda module, args, kwargs: given.append(kwargs["hidden_states"]), with_kwargs=True
    )
    with capture(tiny, "mid", positions) as seen:
        one_pass(tiny)
    hook.remove()
    assert torch.equal(seen["mid"], given[0].flatten(2).transpose(1, 2))


def test_reductions_agree_with_one_another():
    """The mean of all positions is the mean of the four quarters, and that of a full mask."""
    hidden = torch.randn(2, 5, 4, 8, generator=torch.Generator().manual_seed(0))
    mean = pooled(hidden)
    torch.testing.assert_close(positions(hidden).mean(1), mean)
    torch.testing.assert_close(grid(hidden).view(2, 4, 5).mean(1), mean)
    masks = torch.zeros(2, 3, 16, 32, dtype=torch.bool)
    masks[:, 0] = True
    masks[:, 1, :8, 16:] = True  # top right: the second cell
    of_masks = at_masks(hidden, masks)  # (batch, masks, channels)
    torch.testing.assert_close(of_masks[:, 0], mean)
    torch.testing.assert_close(of_masks[:, 1], grid(hidden).view(2, 4, 5)[:, 1])
    assert torch.equal(of_masks[:, 2], torch.zeros(2, 5))  # an empty one


def test_positions_that_a_mask_hardly_covers_are_left_out():
    hidden = torch.arange(16.0).view(1, 1, 4, 4)
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    mask[..., 4:8, 4:9] = True  # all of one position, and a quarter of the next
    assert at_masks(hidden, mask).item() == 5.0


def test_the_whole_of_a_block_never_leaves_the_hook(tiny):
    """Memory is bounded: what is kept is as small as its reduction, not a view of something big."""
    with capture(tiny, "up.1", {"mean": pooled, "grid": grid}) as seen:
        one_pass(tiny)
        one_pass(tiny)
    for kind, width in (("mean", 64), ("grid", 256)):
        kept = seen["up.1", kind]
        assert kept.shape == (6, width)
        assert kept.untyped_storage().nbytes() == kept.numel() * kept.element_size()
        parts = seen._parts["up.1", kind]
        assert sum(p.untyped_storage().nbytes() for p in parts) == kept.numel() * 4


def test_passes_follow_one_another(tiny):
    with capture(tiny, "mid") as both:
        one_pass(tiny, 2, seed=0)
        one_pass(tiny, 1, seed=1)
    with capture(tiny, "mid") as second:
        one_pass(tiny, 1, seed=1)
    assert both["mid"].shape[0] == 3
    assert torch.equal(both["mid"][2:], second["mid"])


def test_names_are_checked_before_anything_runs(tiny):
    assert list(choose_blocks(tiny, ["up", "mid"])) == ["mid", "up.0", "up.1", "up.2"]
    with pytest.raises(ValueError, match=r"unknown block 'up\.9'.*nearest: up\..*all: down\.0"):
        choose_blocks(tiny, "up.9")
    with pytest.raises(ValueError, match="at least one name"), capture(tiny, []):
        pass
    with pytest.raises(ValueError, match="no down_blocks"):
        choose_blocks(torch.nn.Linear(2, 2))
    with capture(tiny, "mid", {"a": pooled, "b": grid}) as seen:
        one_pass(tiny, 1)
    with pytest.raises(KeyError, match="names 2 of what was captured"):
        seen["mid"]


def test_a_row_depends_on_its_scene_and_place_alone(tiny):
    scenes = random_scenes(5, 0, "train")
    how = {"blocks": ["mid", "up.2"], "steps": [300, 700], "progress": False, "latents": True}
    kinds = ["pooled", "grid", "regions", "positions"]
    whole = collect(tiny, scenes, kinds=kinds, batch_size=5, **how)
    parts = collect(tiny, scenes, kinds=kinds, batch_size=2, **how)
    assert list(whole) == list(parts) and len(whole) == 3 * 2 * 4
    for cell, rows in whole.items():
        torch.testing.assert_close(parts[cell], rows, atol=1e-4, rtol=1e-4)
    later = collect(tiny, scenes[2:], kinds="grid", seed=2, **how)
    found = later["mid", 300, "grid"]
    torch.testing.assert_close(found, whole["mid", 300, "grid"][2:], atol=1e-4, rtol=1e-4)
    other = collect(tiny, scenes[2:], kinds="grid", seed=3, **how)["mid", 300, "grid"]
    assert not torch.allclose(found, other, atol=1e-3)


def test_collected_features_are_those_of_a_plain_pass(tiny):
    scenes = random_scenes(2, 0, "train")
    cells = collect(tiny, scenes, "up.0", [250], ["positions", "regions"], progress=False, seed=4)
    images, masks = render(scenes)
    noise = torch.cat(
        [torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(s)) for s in (4, 5)]
    )
    noisy = tiny.add_noise(tiny.encode_image(images), noise, 250)
    with capture(tiny, "up.0", lambda hidden: hidden) as seen:
        tiny.predict_noise(noisy, 250, tiny.encode_text([""]))
    assert torch.equal(cells["up.0", 250, "positions"], positions(seen["up.0"]))
    masks = torch.cat([masks, ~masks.any(1, keepdim=True)], 1)
    assert torch.equal(cells["up.0", 250, "regions"], at_masks(seen["up.0"], masks))


def test_collect_refuses_what_it_cannot_do(tiny, unchecked):
    with pytest.raises(ValueError, match="unknown kind 'mean'; choose of pooled, grid"):
        collect(tiny, random_scenes(1, 0), kinds=["mean"])
    with pytest.raises(ValueError, match="no scenes"):
        collect(tiny, [])
