"""Parts of customisation: prompts in the tower, additions to keys and values, sequences, loss."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny_model

from dsd_tutorial.customization import (
    CustomizationMismatch,
    DeepPrompts,
    Denoising,
    KeyValues,
    customize,
    files,
    references,
    training_pass,
    usual_time_steps,
)
from dsd_tutorial.customization.denoising import CHECKING
from dsd_tutorial.customization.fitting import random_crop
from dsd_tutorial.customization.references import Custom, Tuned
from dsd_tutorial.customization.tuning import Tuning
from dsd_tutorial.projection import fit_inverse
from dsd_tutorial.shapes import random_scenes, render
from dsd_tutorial.variation import states_to_edit, states_to_prompt


@pytest.fixture(scope="module")
def pictures():
    return render(random_scenes(4, 3, one_object_share=1.0))[0]


# -- deep prompts ------------------------------------------------------------------------------


def test_no_prompts_are_the_stock_tower(tiny, pictures):
    stock = tiny.encode_clip_image(pictures)
    ours = DeepPrompts(tiny, 0).encode(pictures)
    for a, b in zip(stock, ours, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_prompts_stand_behind_the_class_token_and_overwrite_no_patch(tiny, pictures):
    deep, seen, left = DeepPrompts(tiny, 3), [], []
    layers = tiny.clip.vision_model.encoder.layers
    with deep.active():
        # registered behind ours: they see what the layer reads, and what it hands on
        handles = [
            layer.register_forward_pre_hook(lambda m, a: seen.append(a[0])) for layer in layers
        ]
        handles += [
            layer.register_forward_hook(lambda m, a, out: left.append(out)) for layer in layers
        ]
        tiny.encode_clip_image(pictures)
    for handle in handles:
        handle.remove()
    assert [x.shape[1] for x in seen] == [1 + 3 + 64] * 2 and [x.shape[1] for x in left] == [65] * 2
    for own, states in zip(deep.prompts, seen, strict=True):
        assert torch.equal(states[:, 1:4], own.expand(4, -1, -1))
    # what goes in behind the prompts is what came out of the layer before, every patch of it
    assert torch.equal(seen[1][:, 4:], left[0][:, 1:]) and torch.equal(
        seen[1][:, :1], left[0][:, :1]
    )


@pytest.mark.parametrize("tokens", [1, 2, 4, 8, 32, 64])
def test_prompts_begin_as_the_patches_in_the_middle_of_equal_cells(tiny, pictures, tokens):
    seen = []
    layers = tiny.clip.vision_model.encoder.layers
    handles = [layer.register_forward_pre_hook(lambda m, a: seen.append(a[0])) for layer in layers]
    tiny.encode_clip_image(pictures)
    for handle in handles:
        handle.remove()
    deep = DeepPrompts(tiny, tokens, images=pictures)
    places = [1 + int((i + 0.5) * 64 / tokens) for i in range(tokens)]  # behind the class token
    for own, states in zip(deep.prompts, seen, strict=True):
        torch.testing.assert_close(own, states.mean(0)[places], atol=1e-6, rtol=1e-5)
    assert deep.prompts.dtype == torch.float32 and DeepPrompts(tiny, 0).prompts.shape == (2, 0, 48)


def test_gradients_reach_every_patch_and_every_prompt(tiny, pictures):
    deep = DeepPrompts(tiny, 2)
    images = pictures[:1].clone().requires_grad_(True)
    deep.encode(images).pooled.square().sum().backward()
    per_patch = F.unfold(images.grad.abs().sum(1, keepdim=True), 8, stride=8)[0].sum(0)
    assert per_patch.shape == (64,) and bool((per_patch > 0).all())
    assert bool((deep.prompts.grad.abs().sum(-1) > 0).all())
    assert all(p.grad is None for p in tiny.clip.parameters())


def test_prompts_that_look_like_patches_change_less_than_random_ones(tiny, pictures):
    stock, deep = tiny.encode_clip_image(pictures).embedding, DeepPrompts(tiny, 4, images=pictures)
    with torch.no_grad():
        start = float((deep.encode(pictures).embedding - stock).norm())
        deep.prompts.copy_(torch.randn(deep.prompts.shape, generator=torch.manual_seed(0)))
        assert 0 < start < float((deep.encode(pictures).embedding - stock).norm())


def test_the_tower_is_restored_after_an_error(tiny, pictures):
    stock, deep = tiny.encode_clip_image(pictures).pooled, DeepPrompts(tiny, 2)
    with pytest.raises(KeyboardInterrupt), deep.active():
        raise KeyboardInterrupt
    assert torch.equal(tiny.encode_clip_image(pictures).pooled, stock)
    for layer in tiny.clip.vision_model.encoder.layers:
        assert not layer._forward_hooks and not layer._forward_pre_hooks
    with pytest.raises(ValueError, match="need 0"):
        DeepPrompts(tiny, 65)


# -- keys and values -----------------------------------------------------------------------------


def test_additions_are_zero_at_first_and_equal_changed_weights_later(tiny):
    keys, context = KeyValues(tiny), tiny.encode_text("a red circle")
    z = torch.randn(1, *tiny.latent_shape, generator=torch.manual_seed(1))
    stock = tiny.predict_noise(z, 500, context)
    with keys.active(tiny):
        assert torch.equal(tiny.predict_noise(z, 500, context), stock)
    other = tiny_model()
    with torch.no_grad():
        for name, added in keys.added.items():
            added.normal_(0, 0.3, generator=torch.manual_seed(2))
            other.unet.get_submodule(keys.paths[name]).weight += added
    with keys.active(tiny):
        changed = tiny.predict_noise(z, 500, context)
        with keys.resting():
            assert torch.equal(tiny.predict_noise(z, 500, context), stock)
    torch.testing.assert_close(changed, other.predict_noise(z, 500, context), atol=1e-5, rtol=1e-4)
    assert float((changed - stock).detach().abs().max()) > 1e-3
    assert torch.equal(tiny.predict_noise(z, 500, context), stock)
    assert all(path.endswith(("attn2.to_k", "attn2.to_v")) for path in keys.paths.values())
    half = tiny_model(dtype=torch.bfloat16)
    with keys.active(half):
        rounded = half.predict_noise(z, 500, context)
    assert (rounded - changed).abs().max() < 0.1 * (changed - stock).abs().max()


# -- prompts ---------------------------------------------------------------------------------------


def test_editing_here_and_in_variation_are_the_same(tiny, pictures):
    variation = pytest.importorskip("dsd_tutorial.variation")
    inverse = fit_inverse(tiny, progress=False)
    one = customize(tiny, pictures[:1], inverse=inverse, steps=0, progress=False)
    for source in (None, "", "a red object"):
        how = {"alpha": 1.5, "source_prompt": source}
        ours = one.prompt(tiny, "a blue object", **how)
        theirs = variation.edit_prompt(tiny, pictures[:1], "a blue object", inverse, **how)
        torch.testing.assert_close(ours, theirs)


def test_gradients_flow_from_a_prompt_to_the_pictures_tower(tiny, pictures):
    deep, inverse = DeepPrompts(tiny, 2), fit_inverse(tiny, progress=False)
    h = inverse(deep.encode(pictures))
    for prompt in (states_to_prompt(tiny, h, copies=3), states_to_edit(tiny, h, "a star")):
        (slope,) = torch.autograd.grad(prompt[:, 3, 0].sum(), deep.prompts, retain_graph=True)
        assert float(slope.abs().sum()) > 0


# -- the loss --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_target_is_the_models_own(kind, pictures):
    """An exact answer in the model's target is the exact noise, as `predict_noise` reads it."""
    model = tiny_model(prediction_type=kind)
    denoising = Denoising(model, model.encode_image(pictures), batch_size=4)
    draw = denoising.draw(1)
    noisy, target = denoising.noisy(draw), denoising.target(draw)
    model._unet = lambda *args: target
    torch.testing.assert_close(
        model.predict_noise(noisy, draw.t, model.encode_text("")), draw.e, atol=1e-4, rtol=1e-4
    )
    assert float(denoising.errors(model.encode_text(""), draw).max()) == 0
    assert usual_time_steps(model) == ((0, 1000) if kind == "epsilon" else (400, 1000))


@settings(max_examples=20, deadline=None)
@given(low=st.integers(0, 900), width=st.integers(1, 100), count=st.integers(1, 9))
def test_draws_are_repeatable_in_range_and_spread(tiny, low, width, count):
    latents = torch.zeros(3, *tiny.latent_shape)
    denoising = Denoising(tiny, latents, batch_size=count, time_steps=(low, low + width), seed=4)
    a, b = denoising.draw(2), denoising.draw(2)
    assert torch.equal(a.e, b.e) and torch.equal(a.t, b.t) and torch.equal(a.index, b.index)
    assert bool(((a.t >= low) & (a.t < low + width)).all())
    cells = ((a.t - low).double() / width * count).floor().sort().values
    if width % count == 0:  # one in each of `count` equal cells
        assert cells.tolist() == list(range(count))
    assert not torch.equal(a.e, denoising.draw(3).e)
    assert not torch.equal(a.e, denoising.draw(2, CHECKING).e)


def test_pictures_come_round_evenly(tiny):
    denoising = Denoising(tiny, torch.zeros(5, *tiny.latent_shape), batch_size=3)
    seen = torch.cat([denoising.draw(step).index for step in range(5)])
    assert seen.bincount().tolist() == [3] * 5


def test_low_precision_and_checkpointing_give_nearly_the_same_gradient(tiny, pictures):
    latents, found = tiny.encode_image(pictures), []
    before = {n: type(p) for n, p in tiny.unet.attn_processors.items()}
    for dtype, small in ((None, False), (None, True), ("bfloat16", False)):
        context = tiny.encode_text("a red circle").requires_grad_(True)
        denoising = Denoising(tiny, latents, batch_size=4, dtype=dtype)
        with training_pass(tiny, gradient_checkpointing=small):
            assert tiny.unet.is_gradient_checkpointing is small
            denoising.errors(context, denoising.draw(0)).sum().backward()
        found.append(context.grad)
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-4)
    assert float(F.cosine_similarity(found[0].flatten(), found[2].flatten(), dim=0)) > 0.98
    assert not tiny.unet.is_gradient_checkpointing
    assert {n: type(p) for n, p in tiny.unet.attn_processors.items()} == before


def test_a_precision_by_name_is_that_of_the_passes(tiny, pictures):
    latents, context = tiny.encode_image(pictures), tiny.encode_text("a star")
    full, half = (Denoising(tiny, latents, dtype=d) for d in (None, "bfloat16"))
    assert full.dtype is None and half.dtype == torch.bfloat16
    with torch.no_grad():
        exact, coarse = (d.errors(context, d.draw(0)) for d in (full, half))
        raw = tiny._unet(full.noisy(full.draw(0)), full.draw(0).t, context)
        want = (raw - full.target(full.draw(0))).square().mean((1, 2, 3))
    torch.testing.assert_close(exact, want, atol=1e-6, rtol=1e-5)
    assert exact.dtype == torch.float32 and not torch.equal(exact, coarse)


def test_a_check_sees_fixed_noises_that_training_never_does(tiny, pictures):
    denoising = Denoising(tiny, tiny.encode_image(pictures), batch_size=2)
    asked = []

    def context(step):
        asked.append(step)
        return tiny.encode_text("a star")

    with torch.no_grad():
        loss, check = references.single_loss(denoising, context)
        states = tiny.encode_text("a star")
        fixed = denoising.errors(states, denoising.draw(0, CHECKING, 16)).mean()
        assert torch.equal(check(), fixed) and torch.equal(check(), fixed)
        for step in (1, 2):
            want = denoising.errors(states, denoising.draw(step)).mean()
            assert torch.equal(loss(step)["error"], want)
    assert asked == [0, 0, 1, 2]


@pytest.mark.parametrize(
    "wrong", [{"time_steps": (5, 5)}, {"time_steps": (0, 1001)}, {"batch_size": 0}]
)
def test_what_cannot_be_drawn_is_refused(tiny, wrong):
    with pytest.raises(ValueError, match="need"):
        Denoising(tiny, torch.zeros(1, *tiny.latent_shape), **wrong)


def test_crops_lie_inside_and_to_all_sides():
    """On a ramp along either axis: the slope is the same everywhere, so no border is repeated."""
    middles = []
    for axis in (2, 3):
        ramp = torch.linspace(0, 1, 64).view(1, 1, *((64, 1) if axis == 2 else (1, 64)))
        cropped = random_crop(ramp.expand(200, 3, 64, 64), 0.6, 3, 7)
        line = cropped[:, 0].mean(2 if axis == 2 else 1)  # (pictures, 64)
        slopes = line.diff(dim=1)[:, 1:-1]
        assert float((slopes - slopes.mean(1, keepdim=True)).abs().max()) < 1e-4
        share = slopes.mean(1) * 63
        assert float(share.min()) > 0.595 and float(share.max()) < 1.001
        middles.append(line.mean(1))
        assert float(line.min()) >= 0 and float(line.max()) <= 1
    for middle in middles:
        assert abs(float(middle.mean()) - 0.5) < 0.02 and float(middle.std()) > 0.04


def test_even_pictures_have_the_size_that_the_tower_takes(tiny):
    class Seen(Exception):
        pass

    model = copy.copy(tiny)

    def encode_clip_image(images, *, batch_size):
        raise Seen(tuple(images.shape), batch_size, images[:, 0, 0, 0].tolist())

    for processor, size in ((tiny.image_processor, 64), (None, 224)):
        model.image_processor, model.encode_clip_image = processor, encode_clip_image
        with pytest.raises(Seen) as found:
            DeepPrompts(model, 2)
        assert found.value.args == ((5, 3, size, size), 5, [0.0, 0.25, 0.5, 0.75, 1.0])


def test_what_was_tuned_must_say_how_it_prompts():
    assert Tuned.__abstractmethods__ == {"prompt"}


def test_a_crop_shows_a_part_of_the_picture():
    ramp = torch.linspace(0, 1, 64).expand(8, 3, 64, 64)
    cropped = random_crop(ramp, 0.9, 0, 1)
    assert torch.equal(random_crop(ramp, 0.9, 0, 1), cropped)
    slope = (cropped[:, 0, 32, 60] - cropped[:, 0, 32, 4]) * 63 / 56
    assert bool(((slope > 0.88) & (slope < 1.01)).all()) and float(slope.std()) > 0
    assert torch.equal(random_crop(ramp, 1.0, 0, 1), ramp)


# -- edges, and what is taken as it is given ------------------------------------------------------


def test_prompts_pass_layers_called_by_name_or_by_place(tiny):
    """Layers have been called both ways, and have answered with a tensor or a tuple."""
    deep = DeepPrompts(tiny, 2)
    states = torch.randn(3, 65, deep.prompts.shape[2], generator=torch.Generator().manual_seed(0))
    hook = deep._insert(deep.prompts[0])
    (longer, *rest), named = hook(None, (states, "mask"), {"more": 1})
    assert longer.shape[1] == 67 and rest == ["mask"] and named == {"more": 1}
    places, named = hook(None, (), {"hidden_states": states, "mask": "mask"})
    assert places == () and named["mask"] == "mask"
    assert torch.equal(named["hidden_states"], longer)
    assert torch.equal(deep._take_out(None, (), longer), states)
    kept, *rest = deep._take_out(None, (), (longer, "weights", "more"))
    assert torch.equal(kept, states) and rest == ["weights", "more"]


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_a_single_prompt_stands_for_the_middle(tiny, pictures, tokens):
    deep = DeepPrompts(tiny, tokens, images=pictures)
    assert deep.prompts.shape[1] == tokens
    assert not deep.prompts.requires_grad or deep.prompts.is_leaf


def test_every_picture_comes_once_a_round_in_another_order(tiny):
    denoising = Denoising(tiny, torch.zeros(7, *tiny.latent_shape), batch_size=7)
    rounds = [denoising.draw(step).index for step in range(4)]
    assert all(r.sort().values.tolist() == list(range(7)) for r in rounds)
    assert len({tuple(r.tolist()) for r in rounds}) > 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 64))
def test_a_time_step_is_never_the_end_itself(tiny, seed, count):
    denoising = Denoising(
        tiny, torch.zeros(1, *tiny.latent_shape), batch_size=count, time_steps=(998, 999), seed=seed
    )
    assert denoising.draw(0).t.tolist() == [998] * count


def test_shapes_that_one_side_lacks_are_named(tmp_path):
    module = references.one_vector("x", "a", torch.zeros(2))
    for tensors, said in (
        ({"x.a": torch.zeros(2), "b": torch.zeros(3)}, "b"),
        ({}, "a"),
        ({"x.a": torch.zeros(4)}, "x.a.*4.*2"),
    ):
        with pytest.raises(CustomizationMismatch, match=rf"{said}.*tune and save again"):
            files.fill(module, tensors, tmp_path)


def test_how_it_went_comes_back_whether_or_not_anything_was_best():
    for best in (math.inf, 0.25):
        told = Tuning(best=best, rows=[{"step": 0, "error": math.nan}])
        back = files.recall(files.record(told))
        assert back.best == best and math.isnan(back.rows[0]["error"])


def test_files_are_written_into_folders_that_are_not_there_yet(tiny, tmp_path):
    made = Custom(references.one_vector("state", "h", torch.ones(2)), {"a": 1})
    folder = files.write(tmp_path / "a" / "b", tiny, made)
    tensors, about = files.read(folder, ("custom",), tiny)
    assert torch.equal(tensors["state.h"], torch.ones(2)) and about["settings"] == {"a": 1}


def test_on_a_cpu_attention_is_explicit_while_training_and_as_it_was_later(tiny):
    before = {name: type(p).__name__ for name, p in tiny.unet.attn_processors.items()}
    with training_pass(tiny):
        assert {type(p).__name__ for p in tiny.unet.attn_processors.values()} == {"AttnProcessor"}
    assert {n: type(p).__name__ for n, p in tiny.unet.attn_processors.items()} == before
