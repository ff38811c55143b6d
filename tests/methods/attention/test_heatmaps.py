"""Word heat maps of given and sampled images; the pointing game."""

import pytest
import torch
from jaxtyping import TypeCheckError
from tiny_model import pipeline_of, tiny_model

from dsd_tutorial.attention import alter, area_iou, heat_maps, observe, pointing_game, token_heat
from dsd_tutorial.attention.token_masks import word_positions
from dsd_tutorial.stable_diffusion.noising import shared_noise
from dsd_tutorial.variation.img2img import sdedit

TEXT = "a red circle left of a hexagon"
FAST = {"steps": 2, "progress": False}


@pytest.fixture(scope="module")
def image():
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_maps_by_hand_for_one_layer_of_full_size(tiny, image):
    got = heat_maps(tiny, image, TEXT, ["hexagon"], layers="up.2.1", **FAST)["hexagon"]
    at, want = word_positions(tiny, TEXT, "hexagon"), torch.zeros(16, 16)
    z0 = tiny.encode_image(image[None])
    with torch.no_grad():
        for i, t in enumerate((250, 750)):
            z_t = tiny.add_noise(z0, shared_noise(z0.shape[1:], 0, i), t)
            with observe(tiny, "up.2.1", maps=True) as seen:
                tiny.predict_noise(z_t, t, tiny.encode_text([TEXT]))
            want += seen.maps["up.2.1"][0, ..., at].mean((0, -1)).view(16, 16) / 2
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)


def test_every_word_gets_a_map_and_all_tokens_share_one(tiny, image):
    maps = heat_maps(tiny, image, TEXT, layers="up.2", **FAST)
    assert list(maps) == ["a", "red", "circle", "left", "of", "hexagon"]
    assert all(m.shape == (16, 16) and bool((m >= 0).all()) for m in maps.values())
    assert heat_maps(tiny, image, TEXT, ["red"], size=64, **FAST)["red"].shape == (64, 64)


def test_a_batch_equals_its_items(tiny, image):
    images = torch.stack([image, image.flip(-1), image.flip(-2)])
    texts = [TEXT, "a blue ring", "a pink heart"]
    words = [["circle"], ["blue", "ring"], [("heart", 0), "pink heart"]]
    batch = heat_maps(tiny, images, texts, words, batch_size=2, **FAST)
    for i, found in enumerate(batch):
        alone = heat_maps(tiny, images[i], texts[i], words[i], **FAST)
        assert list(found) == words[i]
        for word in words[i]:
            torch.testing.assert_close(found[word], alone[word], atol=1e-6, rtol=0)


def test_a_word_that_is_made_to_look_somewhere_is_found_there(tiny, image):
    """Plant attention: add to one word's logits in the lower right corner, and see it there."""
    at = word_positions(tiny, TEXT, "circle")

    def plant(logits, name):
        side = int(logits.shape[2] ** 0.5)
        boost = torch.zeros(side, side)
        boost[side // 2 :, side // 2 :] = 9.0
        logits = logits.clone()
        logits[..., at] += boost.view(-1, 1)
        return logits

    with alter(tiny, plant):
        heat = heat_maps(tiny, image, TEXT, ["circle", "red"], **FAST)
    corner = torch.zeros(64, 64, dtype=torch.bool)
    corner[32:, 32:] = True
    assert pointing_game(heat["circle"], corner) and not pointing_game(heat["red"], corner)
    shares = {word: (x[8:, 8:].sum() / x.sum()).item() for word, x in heat.items()}
    assert shares["circle"] > 0.75 and shares["red"] < 0.18


def test_unknown_words_raise_with_the_words_there_are(tiny, image):
    with pytest.raises(ValueError, match="'square' is not in .* its words are 'a', 'red'"):
        heat_maps(tiny, image, TEXT, ["circle", "square"], **FAST)
    with pytest.raises(ValueError, match="must be a list"):
        heat_maps(tiny, image, TEXT, "circle", **FAST)
    with pytest.raises(ValueError, match="give one each"):
        heat_maps(tiny, image, [TEXT, TEXT], **FAST)


def walk(model, texts, steps=(900, 500, 100), seed=0, guided=True):
    """What a sampler does to the U-Net: [without text, with text] at falling time steps."""
    noisy = torch.randn(
        len(texts), *model.latent_shape, generator=torch.Generator().manual_seed(seed)
    )
    context = model.encode_text(texts)
    empty = model.encode_text([""] * len(texts))
    with torch.no_grad():
        for t in steps:
            if guided:
                model.predict_noise(torch.cat([noisy] * 2), t, torch.cat([empty, context]))
            else:
                model.predict_noise(noisy, t, empty[:, :9])
                model.predict_noise(noisy, t, context)
    return noisy, context


@pytest.mark.parametrize("guided", [True, False])
def test_recorded_maps_are_those_of_the_rows_whose_prompt_has_the_word(tiny, guided):
    with observe(tiny, "up.2.1", heat=True) as seen:
        noisy, context = walk(tiny, [TEXT, "a blue ring", TEXT], guided=guided)
    heat = seen.heat_map("red", size=16)
    assert heat.shape == (2, 16, 16)
    at, want = word_positions(tiny, TEXT, "red"), 0
    for t in (900, 500, 100):
        with torch.no_grad(), observe(tiny, "up.2.1", maps=True) as plain:
            tiny.predict_noise(noisy, t, context)
        want = want + plain.maps["up.2.1"][[0, 2]][..., at].mean((1, -1)).view(2, 16, 16) / 3
    torch.testing.assert_close(heat, want, atol=1e-6, rtol=0)
    assert seen.heat_map("ring").shape == (1, 64, 64) and seen.heat_map("a").shape == (3, 64, 64)


def test_recorded_heat_equals_heat_maps(tiny, image):
    text = "a pink heart above a hexagon"
    latents, prompts = tiny.encode_image(image[None]), tiny.encode_text([text])
    with torch.no_grad(), observe(tiny, heat=True) as seen:
        for i, t in enumerate((250, 750)):
            e = shared_noise(latents.shape[1:], 0, i)
            tiny.predict_noise(tiny.add_noise(latents, e, t), t, prompts)
    words = ["heart", "pink heart", ("a", 1), "hexagon"]
    for size in (64, 16, (20, 30)):
        want = heat_maps(tiny, image, text, words, size=size, **FAST)
        for word in words:
            assert torch.equal(seen.heat_map(word, size)[0], want[word])


def test_heat_of_the_sampler_in_batches(tiny):
    """Two batches of one prompt are four images; a rising time step within a batch is none."""
    how = {"steps": 2, "guidance": 3.0, "progress": False}
    with observe(tiny, heat=True) as seen:
        images = tiny.sample([TEXT], n=4, batch_size=2, **how)
    assert seen.heat_map("circle").shape == (4, 64, 64)
    assert torch.equal(images, tiny.sample([TEXT], n=4, batch_size=2, **how))  # nothing changed
    with observe(tiny, heat=True) as alone:
        tiny.sample([TEXT], seed=3, **how)
    torch.testing.assert_close(alone.heat_map("circle")[0], seen.heat_map("circle")[3])
    with observe(tiny, heat=True) as seen:
        walk(tiny, [TEXT], steps=(100, 900), guided=False)
    assert len(seen.heat_map("circle")) == 1


def test_heat_of_edited_images_in_batches(tiny, image):
    """diffusers' own pipeline calls the U-Net; each of its batches has other images."""
    with observe(tiny, heat=True) as seen:
        sdedit(tiny, image.expand(3, -1, -1, -1), TEXT, steps=2, batch_size=2, progress=False)
    assert seen.heat_map("circle").shape == (3, 64, 64)


def test_what_is_guided_away_from_is_no_image(tiny):
    tiny.encode_text("a blue circle")  # met before as a prompt
    with observe(tiny, heat=True) as seen:
        tiny.sample([TEXT], negative="a blue circle", steps=1, guidance=3.0, progress=False)
    assert seen.heat_map("circle").shape == (1, 64, 64)
    with pytest.raises(ValueError, match="'blue' is not in 'a red circle"):
        seen.heat_map("blue")


def test_heat_says_what_is_lacking_and_nothing_is_left(tiny):
    with observe(tiny, heat=True) as seen:
        tiny.sample(["a ring", "a star"], steps=1, progress=False)
    wrong = "'square' is not in 'a ring'; its words are 'a', 'ring'; 'square' is not in 'a star'"
    with pytest.raises(ValueError, match=wrong):
        seen.heat_map("square")
    with observe(tiny, heat=True) as seen:
        tiny.sample(embeddings=torch.randn(1, 32, 32), steps=1, progress=False)
    with pytest.raises(ValueError, match=r"heat_map\('ring'\).*cannot be known"):
        seen.heat_map("ring")
    with observe(tiny, heat=True) as seen:
        tiny.sample("", steps=1, progress=False)
    with pytest.raises(ValueError, match="the prompt is empty"):
        seen.heat_map("ring")
    with observe(tiny) as seen:
        tiny.sample("a ring", steps=1, progress=False)
    with pytest.raises(ValueError, match="heat=True"):
        seen.heat_map("ring")
    with pytest.raises(ValueError, match="not a bare U-Net"), observe(tiny.unet, heat=True):
        pass
    with pytest.raises(KeyError, match="mine"), observe(tiny, heat=True):
        raise KeyError("mine")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny.unet.modules())


def test_heat_in_half_precision_and_through_the_pipeline_of_diffusers():
    model = tiny_model(dtype=torch.bfloat16)
    with observe(model, heat=True) as seen:
        model.sample(["a ring", "a star"], steps=2, progress=False)
    assert seen.heat_map("a").shape == (2, 64, 64) and seen.heat_map("star").shape == (1, 64, 64)
    model = tiny_model()
    pipeline, prompts = pipeline_of(model), model.encode_text("a ring")
    pipeline.set_progress_bar_config(disable=True)
    with observe(model, heat=True) as seen:
        pipeline(prompt_embeds=prompts, negative_prompt_embeds=model.encode_text(""),
                 num_inference_steps=2, output_type="latent")  # fmt: skip
    assert seen.heat_map("ring").shape == (1, 64, 64)


def test_layers_of_odd_sizes_are_brought_to_one_grid():
    maps = {"full": torch.ones(2, 5 * 7, 3), "half": 3 * torch.ones(2, 3 * 4, 3)}
    heat = token_heat(maps, (5, 7))
    assert heat.shape == (2, 3, 5, 7)
    torch.testing.assert_close(heat, torch.full_like(heat, 2.0))
    with pytest.raises(ValueError, match="does not halve"):
        token_heat({"odd": torch.ones(1, 11, 3)}, (5, 7))


def test_what_is_enlarged_stays_where_it_was():
    maps = torch.zeros(1, 16, 1)
    maps[0, 1 * 4 + 2] = 1.0
    (large,) = token_heat({"up.0": maps}, (4, 4), 32)[0]
    centres = torch.arange(32) + 0.5
    share = large / large.sum()
    assert float((share.sum(1) * centres).sum()) == pytest.approx(8 * 1.5, abs=0.1)
    assert float((share.sum(0) * centres).sum()) == pytest.approx(8 * 2.5, abs=0.1)


def test_pointing_game_and_its_chance():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:4, 2:6] = True
    heat = torch.zeros(8, 8)
    heat[3, 3] = 1.0
    assert pointing_game(heat, mask) and not pointing_game(heat, ~mask)
    assert not pointing_game(torch.ones(8, 8), mask)
    small = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    lower_left = torch.zeros(8, 8, dtype=torch.bool)
    lower_left[4:, :4] = True
    assert pointing_game(small, lower_left)
    numbers = torch.Generator().manual_seed(0)
    blind = [pointing_game(torch.rand(8, 8, generator=numbers), mask) for _ in range(2000)]
    assert sum(blind) / 2000 == pytest.approx(8 / 64, abs=0.03)  # the mask's share of the image


def test_area_iou_and_its_chance():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4] = True
    heat = torch.arange(64.0).view(8, 8)
    assert area_iou(-heat, mask) == 1 and area_iou(heat, mask) == 0
    half = torch.where(torch.arange(8)[None] < 4, 10.0, 0.0) + heat / 64  # the left half
    assert area_iou(half, mask) == pytest.approx(16 / 48)
    assert area_iou(torch.ones(8, 8), mask) == 0  # a flat map covers nothing
    numbers = torch.Generator().manual_seed(0)
    blind = [area_iou(torch.rand(8, 8, generator=numbers), mask) for _ in range(500)]
    assert sum(blind) / 500 == pytest.approx(1 / 3, abs=0.02)


def test_area_iou_enlarges_a_small_map():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4, :4] = True
    assert area_iou(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), mask) > 0.8


@pytest.mark.parametrize("measured", [pointing_game, area_iou])
@pytest.mark.parametrize(
    ("heat", "mask"),
    [
        (torch.ones(4, 4), torch.zeros(4, 4, dtype=torch.bool)),
        (torch.full((4, 4), float("nan")), torch.ones(4, 4, dtype=torch.bool)),
        (torch.ones(1, 4, 4), torch.ones(4, 4, dtype=torch.bool)),
        (torch.ones(4, 4), torch.ones(4, 4)),
    ],
)
def test_what_cannot_be_pointed_at_is_refused(measured, heat, mask):
    with pytest.raises((ValueError, TypeCheckError), match="mask"):
        measured(heat, mask)
