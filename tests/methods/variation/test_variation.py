"""Images as prompts: what fills the sequence, and what the number of copies weighs."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dsd_tutorial.attention import alter, observe
from dsd_tutorial.projection import calibrate, fit_inverse
from dsd_tutorial.variation import image_to_prompt, states_to_prompt, vary
from dsd_tutorial.variation.prompting import slerp


@pytest.fixture(scope="module")
def inverse(tiny):
    return fit_inverse(tiny, calibration=calibrate(tiny, n=20, progress=False), copies=5)


@pytest.fixture(scope="module")
def states(tiny):
    numbers = torch.Generator().manual_seed(0)
    return 5.5 * F.normalize(torch.randn(2, 32, generator=numbers), dim=-1)


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def copy_bonus(copies):
    """An edit of logits that makes position 1 count as `copies` of it."""

    def edit(logits, layer):
        raised = logits.clone()
        raised[..., 1] += math.log(copies)
        return raised

    return edit


def noise_of(model, context, edit=None):
    latents = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        if edit is None:
            return model.predict_noise(latents, 400, context)
        with alter(model, edit):
            return model.predict_noise(latents, 400, context)


@pytest.mark.parametrize("copies", [1, 7, 31, "all", None])
def test_the_start_token_stays_and_the_copies_follow(tiny, states, copies):
    prompt = states_to_prompt(tiny, states, copies=copies)
    n = 31 if copies in ("all", None) else copies
    empty = tiny.encode_text("")[0]
    assert prompt.shape == (2, 32, 32)
    assert torch.equal(prompt[:, 0], empty[:1].expand(2, -1))
    assert torch.equal(prompt[:, 1 : 1 + n], states[:, None].expand(-1, n, -1))
    assert torch.equal(prompt[:, 1 + n :], empty[1 + n :].expand(2, -1, -1))


def test_strength_goes_from_the_empty_prompt_to_the_image(tiny, states):
    empty = tiny.encode_text("").expand(2, -1, -1)
    assert torch.equal(states_to_prompt(tiny, states, strength=0), empty)
    full = states_to_prompt(tiny, states, copies=4)
    likeness = [
        float(
            F.cosine_similarity(states_to_prompt(tiny, states, copies=4, strength=s), full, dim=-1)[
                :, 1
            ].mean()
        )
        for s in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert likeness == sorted(likeness) and likeness[-1] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("copies", [2, 9, 31])
def test_n_copies_are_one_copy_with_its_logit_raised_by_ln_n(tiny, states, copies):
    """METHODS.md B.3, held in the real U-Net's attention; without the bonus it does not hold."""
    many = states_to_prompt(tiny, states[:1], copies=copies)
    once = torch.cat([many[:, :2], many[:, 1 + copies :]], dim=1)
    want = noise_of(tiny, many)
    torch.testing.assert_close(noise_of(tiny, once, copy_bonus(copies)), want, atol=1e-5, rtol=1e-4)
    assert float((noise_of(tiny, once) - want).abs().max()) > 1e-4


def test_copies_share_the_mass_that_one_raised_copy_takes(tiny, states):
    many = states_to_prompt(tiny, states[:1], copies=6)
    once = torch.cat([many[:, :2], many[:, 7:]], dim=1)
    latents = torch.randn(1, *tiny.latent_shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), observe(tiny, "mid", maps=True) as first:
        tiny.predict_noise(latents, 400, many)
    with torch.no_grad(), alter(tiny, copy_bonus(6)), observe(tiny, "mid", maps=True) as second:
        tiny.predict_noise(latents, 400, once)
    for name, maps in first.maps.items():
        torch.testing.assert_close(
            maps[..., 1:7].sum(-1), second.maps[name][..., 1], atol=1e-5, rtol=1e-4
        )


def test_a_picture_becomes_the_states_of_its_inverse(tiny, inverse, pictures):
    prompt = image_to_prompt(tiny, pictures, inverse)
    states = inverse(tiny.encode_clip_image(pictures))
    assert torch.equal(prompt, states_to_prompt(tiny, states, copies=5))
    assert torch.equal(
        image_to_prompt(tiny, pictures, inverse, copies="all"), states_to_prompt(tiny, states)
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 16), st.floats(0, 1), st.integers(0, 1000))
def test_slerp_stays_on_the_sphere(width, share, seed):
    numbers = torch.Generator().manual_seed(seed)
    a, b = F.normalize(torch.randn(2, width, generator=numbers, dtype=torch.float64), dim=-1)
    middle = slerp(3 * a, 5 * b, share)
    assert float(middle.norm()) == pytest.approx(3 + 2 * share)
    angle = torch.acos((a @ b).clamp(-1, 1))
    if 0.01 < float(angle) < 3.13:
        way = torch.acos((middle / middle.norm() @ a).clamp(-1, 1))
        assert float(way) == pytest.approx(share * float(angle), abs=1e-6)
    torch.testing.assert_close(slerp(a, a, share), a)
    assert torch.equal(slerp(a, b, 0), a) and torch.equal(slerp(a, b, 1), b)


def test_variations_come_picture_by_picture(tiny, inverse, pictures):
    found = vary(tiny, pictures, 2, inverse, steps=2, seed=[4, 5, 4, 5], progress=False)
    assert found.shape == (4, 3, 64, 64)
    prompts = image_to_prompt(tiny, pictures, inverse)
    want = tiny.sample(embeddings=prompts[1:], steps=2, seed=5, progress=False)
    torch.testing.assert_close(found[3:], want, atol=1e-4, rtol=0)
    nothing = vary(tiny, pictures[:1], 1, inverse, strength=0, steps=2, seed=4, progress=False)
    empty = tiny.sample([""], steps=2, seed=4, progress=False)
    torch.testing.assert_close(nothing, empty, atol=1e-4, rtol=0)


def test_what_does_not_fit_is_named(unchecked, tiny, states):
    for options, message in (
        ({"copies": 0}, "1 to 31"),
        ({"copies": 32}, "1 to 31"),
        ({"copies": 2.5}, "1 to 31"),
        ({"copies": "most"}, "1 to 31"),
        ({"strength": 1.5}, "0 .the empty prompt"),
        ({"strength": -0.1}, "0 .the empty prompt"),
    ):
        with pytest.raises(ValueError, match=message):
            states_to_prompt(tiny, states, **options)
    with pytest.raises(ValueError, match=r"\(batch, 32\)"):
        states_to_prompt(tiny, states[0])


def test_between_opposite_states_the_way_is_straight_and_no_number_is_lost():
    states = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0))
    for share in (0.1, 0.4, 0.6, 0.9):
        way = slerp(states, -states, share)
        assert bool(way.isfinite().all())
        want = states if share < 0.5 else -states
        assert float(F.cosine_similarity(way, want).min()) > 0.99
        torch.testing.assert_close(slerp(states, 2 * states, share), (1 + share) * states)


def test_a_prompt_is_a_number_and_keeps_no_graph(tiny, inverse, pictures):
    images = pictures.clone().requires_grad_() if torch.is_tensor(pictures) else pictures
    assert not image_to_prompt(tiny, images, inverse).requires_grad
