"""The same code on Stable Diffusion 1.5 and 2.1-base, by shapes alone (meta device)."""

import pytest
import torch
from real_sizes import SIZES, real_model


@pytest.fixture(scope="module", params=list(SIZES))
def real(request):
    return real_model(request.param)


def count(part) -> int:
    return sum(p.numel() for p in part.parameters())


def test_the_configurations_are_the_real_ones(real):
    """Parameter counts are public; a wrong width or head count would show here."""
    parts = (real.unet, real.vae, real.text_encoder, real.clip)
    expected = {
        "sd-1.5": (859_520_964, 83_653_863, 123_060_480, 427_616_513),
        "sd-2.1-base": (865_910_724, 83_653_863, 340_387_840, 986_109_441),
    }
    assert tuple(map(count, parts)) == expected[real.name]


def test_sizes(real):
    assert (real.resolution, real.vae_factor, real.latent_shape) == (512, 8, (4, 64, 64))
    assert real.context_length == 77
    assert real.text_layer == {"sd-1.5": "last", "sd-2.1-base": "penultimate"}[real.name]


def test_text_layer_is_inferred_without_an_entry(real):
    entry, real.entry = real.entry, None
    try:
        assert real.text_layer == entry.text_layer
    finally:
        real.entry = entry


def test_shapes_of_one_tour(real):
    width = SIZES[real.name]["unet"]["cross_attention_dim"]
    texts = ["a red circle", "a blue square left of a green star"]
    context = real.encode_text(texts)
    assert context.shape == (2, 77, width)
    assert real.encode_clip_text(texts).shape == (2, SIZES[real.name]["projection"])
    assert real.eos_positions(texts).shape == (2,)

    images = torch.empty(2, 3, 512, 512, device="meta")
    latents = real.encode_image(images)
    assert latents.shape == (2, 4, 64, 64)
    seen = real.encode_clip_image(images)
    assert seen.pooled.shape == (2, SIZES[real.name]["vision"]["hidden_size"])
    assert seen.embedding.shape == (2, SIZES[real.name]["projection"])

    noisy = real.add_noise(latents, torch.empty_like(latents), 500)
    assert real.predict_noise(noisy, 500, context).shape == (2, 4, 64, 64)
    assert real.decode_latents(latents).shape == (2, 3, 512, 512)


def test_sixteen_cross_attention_layers(real):
    layers = [module for name, module in real.unet.named_modules() if name.endswith("attn2")]
    assert len(layers) == 16
    heads = {"sd-1.5": {8}, "sd-2.1-base": {5, 10, 20}}[real.name]
    assert {layer.heads for layer in layers} == heads
