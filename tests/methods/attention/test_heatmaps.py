"""Word heat maps of given and sampled pictures; the pointing game."""

import pytest
import torch

from dsd_tutorial.attention import alter, observe
from dsd_tutorial.attention.heatmaps import heat_maps, mass_ratio, pointing_game, token_heat, trace
from dsd_tutorial.attention.token_masks import word_positions
from dsd_tutorial.stable_diffusion.noising import shared_noise

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
    assert pointing_game(heat["circle"], corner) and mass_ratio(heat["circle"], corner) > 3
    assert not pointing_game(heat["red"], corner) and mass_ratio(heat["red"], corner) < 0.7


def test_unknown_words_raise_with_the_words_there_are(tiny, image):
    with pytest.raises(ValueError, match="'square' is not in .* its words are 'a', 'red'"):
        heat_maps(tiny, image, TEXT, ["circle", "square"], **FAST)
    with pytest.raises(ValueError, match="square"):
        with trace(tiny, TEXT, ["square"]):
            pytest.fail("nothing may be sampled")
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
def test_traced_maps_are_those_of_the_conditional_rows(tiny, guided):
    with trace(tiny, TEXT, ["red"], layers="up.2.1") as heat:
        noisy, context = walk(tiny, [TEXT, "a blue ring", TEXT], guided=guided)
    assert heat["red"].shape == (2, 16, 16)
    at, want = word_positions(tiny, TEXT, "red"), 0
    for t in (900, 500, 100):
        with torch.no_grad(), observe(tiny, "up.2.1", maps=True) as seen:
            tiny.predict_noise(noisy, t, context)
        want = want + seen.maps["up.2.1"][[0, 2]][..., at].mean((1, -1)).view(2, 16, 16) / 3
    torch.testing.assert_close(heat["red"], want, atol=1e-6, rtol=0)


def test_a_second_batch_of_pictures_is_appended(tiny):
    with trace(tiny, TEXT, ["red"]) as both:
        walk(tiny, [TEXT], seed=0)
        walk(tiny, [TEXT], seed=1)
    for i in range(2):
        with trace(tiny, TEXT, ["red"]) as one:
            walk(tiny, [TEXT], seed=i)
        torch.testing.assert_close(both["red"][i], one["red"][0], atol=1e-6, rtol=0)


def test_tracing_the_sampler_itself(tiny):
    with trace(tiny, TEXT, ["circle"]) as heat:
        images = tiny.sample([TEXT] * 2, steps=2, guidance=3.0, seed=0, progress=False)
    assert heat["circle"].shape == (2, 16, 16) and len(images) == 2
    again = tiny.sample([TEXT] * 2, steps=2, guidance=3.0, seed=0, progress=False)
    assert torch.equal(images, again)  # watching changes nothing


def test_a_text_that_was_not_sampled_is_an_error_and_nothing_is_left(tiny):
    with pytest.raises(ValueError, match="not among the sampled prompts"):
        with trace(tiny, TEXT):
            walk(tiny, ["a blue ring"])
    with pytest.raises(KeyError, match="mine"):
        with trace(tiny, TEXT):
            raise KeyError("mine")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny.unet.modules())


def test_layers_of_odd_sizes_are_brought_to_one_grid():
    maps = {"full": torch.ones(2, 5 * 7, 3), "half": 3 * torch.ones(2, 3 * 4, 3)}
    heat = token_heat(maps, (5, 7))
    assert heat.shape == (2, 3, 5, 7)
    torch.testing.assert_close(heat, torch.full_like(heat, 2.0))
    with pytest.raises(ValueError, match="does not halve"):
        token_heat({"odd": torch.ones(1, 11, 3)}, (5, 7))


def test_pointing_game_and_its_chance():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:4, 2:6] = True
    heat = torch.zeros(8, 8)
    heat[3, 3] = 1.0
    assert pointing_game(heat, mask) and mass_ratio(heat, mask) == pytest.approx(8.0)
    assert not pointing_game(heat, ~mask) and mass_ratio(heat, ~mask) == 0.0
    flat = torch.ones(8, 8)
    assert not pointing_game(flat, mask) and mass_ratio(flat, mask) == pytest.approx(1.0)
    small = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    lower_left = torch.zeros(8, 8, dtype=torch.bool)
    lower_left[4:, :4] = True
    assert pointing_game(small, lower_left)
    numbers = torch.Generator().manual_seed(0)
    blind = [pointing_game(torch.rand(8, 8, generator=numbers), mask) for _ in range(2000)]
    assert sum(blind) / 2000 == pytest.approx(8 / 64, abs=0.03)  # the mask's share of the picture


@pytest.mark.parametrize(
    ("heat", "mask"),
    [
        (torch.ones(4, 4), torch.zeros(4, 4, dtype=torch.bool)),
        (torch.full((4, 4), float("nan")), torch.ones(4, 4, dtype=torch.bool)),
        (torch.ones(1, 4, 4), torch.ones(4, 4, dtype=torch.bool)),
        (torch.ones(4, 4), torch.ones(4, 4)),
    ],
)
def test_what_cannot_be_pointed_at_is_refused(heat, mask):
    with pytest.raises(ValueError, match="mask"):
        pointing_game(heat, mask)
