"""Whitening changes how the loss looks to the optimiser and nothing of what the U-Net computes."""

from __future__ import annotations

import torch

from lab.training.whitening import change_coordinates, readers, whitening


def loud_and_quiet_states(n: int = 4000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -1.5, 16)
    return torch.randn(n, 16, generator=generator) * scales + 0.5


def test_whitened_states_are_equally_loud_in_all_directions():
    states = loud_and_quiet_states()
    whiten, _ = whitening(states, floor=1e-6)
    white = states @ whiten
    moment = white.T @ white / len(white)
    torch.testing.assert_close(moment, torch.eye(16), atol=1e-2, rtol=0)


def test_the_floor_keeps_noise_from_being_amplified():
    states = torch.cat([loud_and_quiet_states(), torch.zeros(4000, 1)], dim=1)
    whiten, _ = whitening(states, floor=1e-3)
    mean = states.pow(2).sum(1).mean() / 17
    assert torch.linalg.matrix_norm(whiten, 2) <= (1e-3 * mean) ** -0.5 * 1.001


def test_there_and_back_is_the_identity():
    whiten, back = whitening(loud_and_quiet_states())
    torch.testing.assert_close(whiten @ back, torch.eye(16), atol=1e-4, rtol=0)


def test_the_unet_computes_the_same_in_both_coordinates(tiny):
    unet, L = tiny.unet, tiny.context_length
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *tiny.latent_shape, generator=generator)
    states = tiny.encode_text(["a red circle", "a blue square above a star"])
    assert states.shape[1] == L
    whiten, back = whitening(states)
    kept = [layer.weight.detach().clone() for layer in readers(unet)]
    before = unet(x, 500, states).sample
    try:
        change_coordinates(unet, back)
        inside = unet(x, 500, states @ whiten).sample
        changed = unet(x, 500, states).sample
        change_coordinates(unet, whiten)
        after = unet(x, 500, states).sample
    finally:
        for layer, weight in zip(readers(unet), kept, strict=True):
            layer.weight.data.copy_(weight)
    torch.testing.assert_close(inside, before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    assert (changed - before).abs().max() > 1e-3  # the coordinates do matter


def test_every_cross_attention_is_a_reader(tiny):
    crossed = [n for n, _ in tiny.unet.named_modules() if n.endswith("attn2")]
    assert len(list(readers(tiny.unet))) == 2 * len(crossed) > 0
