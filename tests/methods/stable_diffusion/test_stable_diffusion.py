"""The one object: text, images, noise. Loading and files are in test_model_files.py."""

import warnings

import pytest
import torch
from tiny_model import tiny_model

from dsd_tutorial.stable_diffusion import StableDiffusion, pick_device

TEXTS = ["a red circle left of a blue square", "a striped hexagon", ""]


@pytest.fixture(scope="module")
def images(tiny):
    return torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))


# -- what it is ------------------------------------------------------------------------------------


def test_sizes(tiny):
    assert (tiny.resolution, tiny.latent_shape, tiny.context_length) == (64, (4, 16, 16), 32)
    assert tiny.text_layer == "last" and tiny.prediction_type == "epsilon"
    assert not tiny.is_embedded and "64 pixels" in repr(tiny)


def test_everything_is_frozen_and_in_evaluation_mode(tiny):
    for part in (tiny.unet, tiny.vae, tiny.text_encoder, tiny.clip):
        assert not part.training
        assert not any(p.requires_grad for p in part.parameters())


def test_same_seed_same_model(tiny):
    assert tiny_model(0).sha256 == tiny.sha256 != tiny_model(1).sha256


# -- text ------------------------------------------------------------------------------------------


def test_padding_is_the_end_token(tiny):
    ids = tiny.tokenize(TEXTS)
    assert ids.shape == (3, 32) and ids.dtype == torch.int64
    ends = tiny.eos_positions(TEXTS)
    for row, end in zip(ids, ends, strict=True):
        assert row[0] == tiny.tokenizer.bos_token_id
        assert (row[end:] == tiny.tokenizer.eos_token_id).all()
        assert (row[:end] != tiny.tokenizer.eos_token_id).all()
    assert ends[2] == 1


def test_words_cover_every_position_once(tiny):
    for text in TEXTS:
        words = tiny.token_words(text)
        positions = [p for _, spelling in words for p in spelling]
        assert positions == list(range(1, int(tiny.eos_positions(text)[0])))
        assert " ".join(word for word, _ in words) == text
    assert any(len(spelling) > 1 for _, spelling in tiny.token_words(TEXTS[1]))


def test_a_text_that_is_cut_warns_and_one_that_just_fits_does_not(tiny):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny.tokenize("a " * 30)  # 30 words, start and end: exactly 32
    with pytest.warns(UserWarning, match="33 tokens cut to the 32"):
        tiny.tokenize("a " * 31)


def test_text_states(tiny):
    states = tiny.encode_text(TEXTS)
    assert states.shape == (3, 32, 32)
    assert torch.allclose(states[1:2], tiny.encode_text(TEXTS[1]), atol=1e-5)
    # causal: what stands before the first differing word is equal
    pair = tiny.encode_text(["a red circle", "a red square"])
    assert torch.allclose(pair[0, :3], pair[1, :3], atol=1e-6)
    assert not torch.allclose(pair[0, 3], pair[1, 3], atol=1e-3)


def test_clip_text_is_the_projected_end_state(tiny):
    """In SD 1.x the U-Net's text encoder is CLIP's text tower: W_t h (arXiv 2305.12716)."""
    states, ends = tiny.encode_text(TEXTS), tiny.eos_positions(TEXTS)
    projected = tiny.clip.text_projection(states[torch.arange(3), ends])
    assert torch.allclose(tiny.encode_clip_text(TEXTS), projected, atol=1e-5)


# -- images ----------------------------------------------------------------------------------------


def test_latents_do_not_depend_on_the_batch_and_nothing_is_sampled(tiny, images):
    latents = tiny.encode_image(images)
    assert latents.shape == (5, 4, 16, 16)
    assert torch.equal(latents, tiny.encode_image(images))
    alone = torch.cat([tiny.encode_image(image[None]) for image in images])
    assert torch.allclose(latents, alone, atol=1e-5)
    mean = tiny.vae.encode(2 * images - 1).latent_dist.mode()
    assert torch.allclose(latents, mean * tiny.vae.config.scaling_factor, atol=1e-5)


def test_decoding_undoes_the_scaling(tiny, images):
    latents = tiny.encode_image(images)
    raw = tiny.vae.decode(latents / tiny.vae.config.scaling_factor).sample
    decoded = tiny.decode_latents(latents)
    assert torch.allclose(decoded, (raw / 2 + 0.5).clamp(0, 1), atol=1e-5)


def test_images_that_do_not_fit_are_refused(tiny):
    with pytest.raises(ValueError, match="multiples of 4"):
        tiny.encode_image(torch.rand(1, 3, 63, 64))
    with pytest.raises(ValueError, match=r"need \[0, 1\]"):
        tiny.encode_image(torch.randn(1, 3, 64, 64))


def test_clip_image_equals_clip(tiny, images):
    seen = tiny.encode_clip_image(images, batch_size=2)
    assert seen.pooled.shape == (5, 48) and seen.embedding.shape == (5, 32)
    theirs = tiny.clip(
        input_ids=tiny.tokenize(TEXTS), pixel_values=tiny.image_processor(images)
    ).image_embeds
    ours = seen.embedding / seen.embedding.norm(dim=1, keepdim=True)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.allclose(tiny.clip.visual_projection(seen.pooled), seen.embedding)


def test_pil_pictures_are_accepted(tiny, images):
    from dsd_tutorial.stable_diffusion.pixels import to_pil

    as_pil = to_pil(images)
    assert torch.allclose(tiny.encode_image(as_pil), tiny.encode_image(images), atol=0.05)
    assert tiny.encode_clip_image(as_pil).embedding.shape == (5, 32)


def test_without_clip_the_remedy_is_named(tiny):
    from dsd_tutorial.stable_diffusion.registry import REGISTRY

    bare = StableDiffusion(
        **{p: getattr(tiny, p) for p in ("vae", "unet", "text_encoder", "tokenizer", "scheduler")},
        entry=REGISTRY["sd-1.5"],
        name="sd-1.5",
    )
    with pytest.raises(ValueError, match="hf download openai/clip-vit-large-patch14"):
        bare.encode_clip_text("a")


# -- noise -----------------------------------------------------------------------------------------


def test_add_noise_is_the_schedulers(tiny):
    latents, noise = torch.randn(2, 4, 4, 16, 16).unbind()
    steps = torch.tensor([0, 10, 500, 999])
    theirs = tiny.scheduler.add_noise(latents, noise, steps)
    assert torch.allclose(tiny.add_noise(latents, noise, steps), theirs, atol=1e-6)
    one = tiny.add_noise(latents, noise, 500)
    assert torch.allclose(one[2], theirs[2], atol=1e-6)


def test_predict_noise_is_the_unet(tiny):
    noisy = torch.randn(3, 4, 16, 16)
    context = tiny.encode_text(TEXTS)
    steps = torch.tensor([3, 400, 900])
    ours = tiny.predict_noise(noisy, steps, context)
    assert torch.allclose(ours, tiny.unet(noisy, steps, context).sample, atol=1e-6)
    for i in range(3):  # batch composition does not matter, an int step is a tensor of it
        alone = tiny.predict_noise(noisy[i : i + 1], int(steps[i]), context[i : i + 1])
        assert torch.allclose(alone, ours[i : i + 1], atol=1e-5)


def test_context_may_be_shared_and_of_any_length(tiny):
    noisy = torch.randn(3, 4, 16, 16)
    context = tiny.encode_text("a red circle")
    shared = tiny.predict_noise(noisy, 100, context)
    assert torch.allclose(shared, tiny.predict_noise(noisy, 100, context.expand(3, -1, -1)))
    # n copies of one key change nothing (arXiv 2305.12716): softmax over equal logits
    one = tiny.predict_noise(noisy, 100, context[:, :1])
    assert torch.allclose(
        one, tiny.predict_noise(noisy, 100, context[:, :1].expand(-1, 50, -1)), atol=1e-5
    )


def test_gradients_reach_the_context_and_only_it(tiny):
    context = tiny.encode_text("a red circle").clone().requires_grad_()
    tiny.predict_noise(torch.randn(1, 4, 16, 16), 100, context).square().mean().backward()
    assert context.grad.abs().sum() > 0
    assert all(p.grad is None for p in tiny.unet.parameters())


def test_velocity_becomes_noise(monkeypatch):
    """With v = sqrt(abar) e - sqrt(1 - abar) z0 as the U-Net's answer, e comes back exactly."""
    model = tiny_model(prediction_type="v_prediction")
    latents, noise = torch.randn(2, 3, 4, 16, 16).unbind()
    steps = torch.tensor([1, 500, 998])
    velocity = model.scheduler.get_velocity(latents, noise, steps)
    monkeypatch.setattr(model, "_unet", lambda *_: velocity)
    found = model.predict_noise(model.add_noise(latents, noise, steps), steps, torch.zeros(3, 1, 1))
    assert torch.allclose(found, noise, atol=1e-5)


@pytest.mark.parametrize(
    ("latents", "context", "message"),
    [
        ((2, 4, 16, 16), (2, 32, 31), r"need \(2 or 1, length, 32\)"),
        ((2, 4, 16, 16), (3, 32, 32), r"need \(2 or 1, length, 32\)"),
        ((2, 4, 16, 16), (32, 32), r"need \(2 or 1, length, 32\)"),
        ((2, 3, 64, 64), (2, 32, 32), "as encode_image returns"),
    ],
)
def test_wrong_shapes_are_named(tiny, latents, context, message):
    with pytest.raises(ValueError, match=message):
        tiny.predict_noise(torch.zeros(latents), 1, torch.zeros(context))


# -- devices ---------------------------------------------------------------------------------------


def test_auto_is_the_best_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="cuda:3.*offer cuda:0, cuda:1, mps, cpu"):
        pick_device("cuda:3")


def test_wrong_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="not available.*device='auto'"):
        pick_device("cuda")
    with pytest.raises(ValueError, match="no device name. Use auto or"):
        pick_device("gpu")


def test_half_precision_stays_inside(tiny):
    """U-Net and autoencoder run in bfloat16; what goes in and comes out is float32."""
    model = tiny_model()
    model = StableDiffusion(
        **{p: getattr(model, p) for p in ("vae", "unet", "text_encoder", "tokenizer", "scheduler")},
        dtype=torch.bfloat16,
    )
    noisy, context = torch.randn(2, 4, 16, 16), model.encode_text(TEXTS[:2])
    assert context.dtype == torch.float32 and model.unet.dtype == torch.bfloat16
    noise = model.predict_noise(noisy, 100, context)
    assert noise.dtype == torch.float32
    assert torch.allclose(noise, tiny.predict_noise(noisy, 100, context), atol=0.1)
    assert model.encode_image(torch.rand(1, 3, 64, 64)).dtype == torch.float32
    assert model.sample("a", steps=2, progress=False).dtype == torch.float32
