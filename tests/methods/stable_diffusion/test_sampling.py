"""Sampling: equal to diffusers, one seed per image, guidance as it is defined."""

import pytest
import torch
from tiny_model import pipeline_of, tiny_model

from dsd_tutorial.stable_diffusion.sampling import guided, initial_noise, seed_list

PROMPTS = ["a red circle", "a blue square left of a green star", "a yellow ring"]
QUICK = {"steps": 3, "progress": False}


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_equal_to_the_pipeline_of_diffusers(tiny, guidance):
    noise = torch.randn(3, *tiny.latent_shape, generator=torch.Generator().manual_seed(1))
    pipe = pipeline_of(tiny)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        PROMPTS,
        latents=noise.clone(),
        guidance_scale=guidance,
        num_inference_steps=5,
        output_type="pt",
    ).images
    ours = tiny.sample(PROMPTS, noise=noise, guidance=guidance, steps=5, progress=False)
    assert ours.shape == (3, 3, 64, 64)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert pipe.unet is tiny.unet


def test_an_image_depends_on_its_seed_and_prompt_alone(tiny):
    together = tiny.sample(PROMPTS, seed=[7, 8, 9], **QUICK)
    for i, prompt in enumerate(PROMPTS):
        alone = tiny.sample(prompt, seed=7 + i, **QUICK)
        assert torch.allclose(alone[0], together[i], atol=1e-4)
    split = tiny.sample(PROMPTS, seed=7, batch_size=2, **QUICK)  # 7, 8, 9 again
    assert torch.allclose(split, together, atol=1e-4)
    other = tiny.sample(PROMPTS, seed=70, **QUICK)
    assert not torch.allclose(other, together, atol=1e-2)


def test_repeats_are_prompt_by_prompt(tiny):
    images = tiny.sample(PROMPTS[:2], n=2, seed=0, **QUICK)
    assert images.shape[0] == 4
    third = tiny.sample(PROMPTS[1], seed=2, **QUICK)
    assert torch.allclose(images[2], third[0], atol=1e-4)


def test_embeddings_are_as_good_as_prompts(tiny):
    from_states = tiny.sample(embeddings=tiny.encode_text(PROMPTS), **QUICK)
    assert torch.allclose(from_states, tiny.sample(PROMPTS, **QUICK), atol=1e-5)


def test_negatives(tiny):
    plain = tiny.sample(PROMPTS, guidance=4.0, **QUICK)
    for empty in ("", ["", "", ""], tiny.encode_text("")):
        again = tiny.sample(PROMPTS, guidance=4.0, negative=empty, **QUICK)
        assert torch.allclose(again, plain, atol=1e-5)
    away = tiny.sample(PROMPTS, guidance=4.0, negative="a star", **QUICK)
    assert not torch.equal(away, plain)
    with pytest.raises(ValueError, match="2 negatives for 3 images"):
        tiny.sample(PROMPTS, negative=["a", "b"], **QUICK)


def test_contexts_of_another_length_take_two_passes(tiny):
    short = tiny.encode_text(PROMPTS)[:, :9]
    assert tiny.sample(embeddings=short, guidance=4.0, **QUICK).shape == (3, 3, 64, 64)


def test_guidance_formula():
    context, negative = torch.full((1, 2, 1), 3.0), torch.full((1, 2, 1), 1.0)

    def predict(latents, timestep, states):  # the prediction is the state's value
        return torch.ones_like(latents) * states[:, :1, :, None]

    for length in (2, 1):  # one stacked pass, then two
        out = guided(predict, torch.zeros(1, 1, 2, 2), 0, context, negative[:, :length], 2.5)
        assert torch.allclose(out, torch.tensor(1 + 2.5 * 2.0))
    assert torch.allclose(
        guided(predict, torch.zeros(1, 1, 2, 2), 0, context, negative, 1), torch.tensor(3.0)
    )


def test_the_callback_sees_every_step(tiny):
    seen = []
    tiny.sample(
        PROMPTS, batch_size=2, callback=lambda i, t, z, e: seen.append((i, t, *z.shape)), **QUICK
    )
    assert [row[0] for row in seen] == [0, 1, 2, 0, 1, 2]
    assert [row[1] for row in seen[:3]] == sorted((row[1] for row in seen[:3]), reverse=True)
    assert {row[2] for row in seen[:3]} == {2} and {row[2] for row in seen[3:]} == {1}


def test_progress_can_be_silenced(tiny, capfd):
    tiny.sample(PROMPTS[0], steps=2, progress=False)
    assert capfd.readouterr().err == ""
    tiny.sample(PROMPTS[0], steps=2)
    assert "sampling" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["EulerAncestralDiscreteScheduler", "PNDMScheduler"])
def test_other_schedulers(name):
    """Schedulers with a memory, and those that add noise, still treat each image alone."""
    import diffusers

    model = tiny_model()
    model.scheduler = getattr(diffusers, name).from_config(model.scheduler.config)
    together = model.sample(PROMPTS, seed=3, steps=5, progress=False)
    assert together.isfinite().all()
    alone = model.sample(PROMPTS[2], seed=5, steps=5, progress=False)
    assert torch.allclose(alone[0], together[2], atol=1e-3)


def test_velocity_models_sample_as_diffusers_does():
    model = tiny_model(prediction_type="v_prediction")
    noise = torch.randn(1, *model.latent_shape)
    pipe = pipeline_of(model)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe("a", latents=noise.clone(), num_inference_steps=3, output_type="pt").images
    assert torch.allclose(model.sample("a", noise=noise, guidance=7.5, **QUICK), theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either prompts or embeddings"),
        ({"prompts": "a", "embeddings": torch.zeros(1, 32, 32)}, "either prompts or embeddings"),
        ({"prompts": "a", "steps": 0}, r"steps in 1\.\.1000"),
        ({"prompts": "a", "n": 0}, "n >= 1"),
        ({"prompts": "a", "seed": [1, 2]}, "2 seeds for 1 images"),
    ],
)
def test_wrong_requests(tiny, arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny.sample(**arguments)


def test_seeds_and_noise():
    assert seed_list(5, 3) == (5, 6, 7)
    noise = initial_noise((4, 8, 8), [1, 2])
    assert torch.equal(noise[1:], initial_noise((4, 8, 8), [2]))
    assert not torch.equal(noise[0], noise[1])
