"""Isolations, errors, votes and heat: identities, limits, and what must not depend on the batch."""

import pytest
import torch

from dsd_tutorial.attention import heat_maps
from dsd_tutorial.grounding import (
    box_heat,
    crop_boxes,
    gain_map,
    ground,
    ground_by_attention,
    ground_by_clip,
    ground_by_gain,
    ground_by_pairs,
    isolation_errors,
    mask_boxes,
    phrase_heat,
    vote,
)
from dsd_tutorial.grounding.grounding import pair_scores
from dsd_tutorial.grounding.heat import joined, thing_words
from dsd_tutorial.matching.cost import measure
from dsd_tutorial.shapes import boxes_of, referring_expressions, render
from dsd_tutorial.stable_diffusion.noising import shared_noise, time_grid

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


@pytest.fixture(scope="module")
def scene():
    e = referring_expressions(2, "validation")[1]
    images, masks = render([e.scene])
    return images[0], boxes_of(masks[0, : len(e.scene.things)]), e


def test_the_whole_image_is_its_own_isolation(scene):
    image, _, _ = scene
    assert torch.equal(crop_boxes(image, WHOLE, 64)[0], image)
    assert torch.equal(mask_boxes(image, WHOLE)[0], image)


def test_a_crop_shows_the_thing_and_the_background_around_it(scene):
    image, boxes, e = scene
    for fit, margin in (("square", 0.0), ("square", 0.5), ("centre", 0.0)):
        crops = crop_boxes(image, boxes, 64, margin, fit)
        assert crops.shape == (len(boxes), 3, 64, 64)
        assert crops.min() >= 0 and crops.max() <= 1
    wide = crop_boxes(image, boxes, 64, 0.5)
    border = torch.ones(64, 64, dtype=torch.bool)
    border[4:-4, 4:-4] = False
    others = torch.tensor([len(e.scene.things) > 1])  # a wide window may show a neighbour's edge
    spread = (wide[:, :, border] - wide[:, :, border].median(-1, keepdim=True).values).abs()
    assert bool(others) and spread.median() < 0.01


def test_a_square_window_keeps_the_ends_of_a_long_box_and_the_centre_cut_loses_them():
    image = torch.zeros(3, 64, 64)
    image[0, 28:36, 4:12] = 1.0  # two marks at the ends of a long box
    image[1, 28:36, 52:60] = 1.0
    box = torch.tensor([[4 / 64, 28 / 64, 60 / 64, 36 / 64]])
    square, centre = (crop_boxes(image, box, 64, 0.0, fit)[0] for fit in ("square", "centre"))
    assert square[0].max() > 0.9 and square[1].max() > 0.9
    assert centre.max() < 0.1


def test_what_is_painted_over_takes_the_colour_asked_for(scene):
    image, boxes, e = scene
    for fill in ("background", "mean", "black"):
        masked = mask_boxes(image, boxes, fill)
        for i, (left, top, right, bottom) in enumerate((boxes * 64).round().int().tolist()):
            assert torch.equal(
                masked[i, :, top:bottom, left:right], image[:, top:bottom, left:right]
            )
            outside = torch.ones(64, 64, dtype=torch.bool)
            outside[top:bottom, left:right] = False
            assert masked[i][:, outside].std(1).max() < 1e-6
    alone = mask_boxes(image, boxes)[e.target]
    assert torch.equal(alone[:, 0, 0], image[:, 0, 0])
    with pytest.raises(ValueError, match="unknown fill 'pink'"):
        mask_boxes(image, boxes, "pink")


def test_two_boxes_can_be_left_standing(scene):
    image, boxes, _ = scene
    one, two = mask_boxes(image, boxes[:2])
    keep = torch.zeros(1, 64, 64, dtype=torch.bool)
    keep |= (one != one[:, :1, :1]).any(0) | (two != two[:, :1, :1]).any(0)
    both = mask_boxes(image, keep)[0]
    assert torch.equal(both, torch.where((one != one[:, :1, :1]).any(0), one, two))


def test_errors_are_what_one_pass_each_gives(tiny, scene):
    image, boxes, _ = scene
    images = crop_boxes(image, boxes, 64)
    texts = ["a red circle", ""]
    errors = isolation_errors(tiny, images, texts, steps=2, seed=4)
    assert errors.shape == (len(images), 2, 2)
    latents = tiny.encode_image(images)
    for s, t in enumerate(time_grid(2)):
        e = shared_noise(latents.shape[1:], 4, s)
        for j, text in enumerate(texts):
            with torch.no_grad():
                noisy = tiny.add_noise(latents, e.expand_as(latents), t)
                eps = tiny.predict_noise(noisy, t, tiny.encode_text([text]))
            far = (e - eps).square().mean((1, 2, 3))
            torch.testing.assert_close(errors[:, j, s], far, atol=1e-5, rtol=1e-4)


def test_errors_do_not_depend_on_batch_or_company(tiny, scene):
    image, boxes, _ = scene
    images = mask_boxes(image, boxes)
    how = {"steps": 2, "seed": 1}
    errors = isolation_errors(tiny, images, ["a red circle"], **how)
    small = isolation_errors(tiny, images, ["a red circle"], batch_size=1, **how)
    alone = isolation_errors(tiny, images[1:2], ["a red circle"], **how)
    torch.testing.assert_close(errors, small, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(errors[1:2], alone, atol=1e-5, rtol=1e-4)


def test_equal_images_tie_under_shared_noise_and_not_under_their_own(tiny, scene):
    image, _, _ = scene
    twice = image[None].expand(2, -1, -1, -1)
    shared = isolation_errors(tiny, twice, ["a red circle"], steps=2)
    own = isolation_errors(tiny, twice, ["a red circle"], steps=2, own_noise=True)
    torch.testing.assert_close(shared[0], shared[1], atol=1e-6, rtol=1e-5)
    assert (own[0] - own[1]).abs().min() > 1e-4
    torch.testing.assert_close(shared[0], own[0], atol=1e-6, rtol=1e-5)  # the first draws the same


def test_a_vote_ignores_what_is_common_and_prefers_low_errors():
    errors = torch.tensor([[0.3, 0.1, 0.2], [0.5, 0.6, 0.9]])
    scores = vote(errors)
    torch.testing.assert_close(scores, vote(errors + torch.tensor([[3.0], [-1.0]])))
    assert scores.argmax() == 1
    torch.testing.assert_close(-scores, errors[0].softmax(0) + errors[1].softmax(0))
    torch.testing.assert_close(scores.sum(), torch.tensor(-2.0))


def test_grounding_by_errors_is_its_parts(tiny, scene):
    image, boxes, _ = scene
    how = {"steps": 2, "seed": 3}
    with measure(tiny) as meter:
        found = ground(tiny, image, boxes, "a red circle", **how)
    assert meter.unet_passes == 2 * len(boxes) * 2
    images = torch.cat([crop_boxes(image, boxes, 64, 0.25), mask_boxes(image, boxes)])
    errors = isolation_errors(tiny, images, ["a red circle"], **how).mean((1, 2))
    torch.testing.assert_close(found.scores, vote(errors.view(2, -1)))
    assert torch.equal(found.box, boxes[found.chosen])
    order = list(range(len(boxes)))[::-1]
    mixed = ground(tiny, image, boxes[order], "a red circle", **how)
    torch.testing.assert_close(mixed.scores, found.scores[order], atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="need some of crop, mask"):
        ground(tiny, image, boxes, "a red circle", isolations=["blur"])


def test_with_the_empty_prompt_taken_off_the_empty_phrase_says_nothing(tiny, scene):
    image, boxes, _ = scene
    scores = ground(tiny, image, boxes, "", steps=1, base=True).scores
    torch.testing.assert_close(scores, torch.full_like(scores, -2 / len(boxes)), atol=1e-5, rtol=0)


def test_pairs_find_the_partner_that_fits():
    pairs = [(0, 1), (0, 2), (1, 2)]
    together = torch.tensor([[0.1, 0.2], [0.2, 0.2], [0.2, 0.2]])  # only 0 and 1 fit the phrase
    alone = torch.tensor([[0.1, 0.2, 0.2], [0.2, 0.1, 0.2], [0.1, 0.2, 0.2]])
    scores = pair_scores(pairs, together, alone)  # 0 and 2 fit the first part, 1 the second
    assert scores.argmax() == 0
    torch.testing.assert_close(scores, torch.tensor([0.3, 0.1, 0.2]))


def test_pairs_need_two_boxes_and_rank_the_same_in_any_order(tiny, scene):
    image, boxes, _ = scene
    how = {"phrase": "a circle left of a star", "parts": ("a circle", "a star"), "steps": 1}
    found = ground_by_pairs(tiny, image, boxes, **how)
    turned = ground_by_pairs(tiny, image, boxes.flip(0), **how)
    torch.testing.assert_close(found.scores, turned.scores.flip(0), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="at least two boxes"):
        ground_by_pairs(tiny, image, boxes[:1], **how)


def test_words_of_a_thing(tiny):
    text = "a red circle left of a blue circle"
    assert thing_words(tiny, text) == [("circle", 0), ("red", 0)]
    assert thing_words(tiny, text, -1) == [("circle", 1), ("blue", 0)]
    with pytest.raises(ValueError, match="the things it names are circle, circle"):
        thing_words(tiny, text, 2)


def test_the_heat_of_a_noun_is_that_of_heat_maps(tiny, scene):
    image, _, _ = scene
    text = "a red circle"
    heat = phrase_heat(tiny, image[None], [text], join="noun", steps=2)[0]
    plain = heat_maps(tiny, image, text, ["circle"], steps=2, progress=False)["circle"]
    torch.testing.assert_close(heat, plain / plain.sum())


def test_joined_maps_sum_to_one_and_a_product_needs_both():
    a, b = torch.tensor([[4.0, 1.0], [1.0, 0.0]]), torch.tensor([[1.0, 4.0], [1.0, 0.0]])
    for how in ("noun", "mean", "product"):
        torch.testing.assert_close(joined([a, b], how).sum(), torch.tensor(1.0))
    third = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert joined([a, third], "product")[0, 0] < 0.01 < joined([a, third], "mean")[0, 0]
    torch.testing.assert_close(joined([a], "product"), a / 6)


def test_box_heat_goes_from_mass_to_density():
    heat = torch.zeros(16, 16)
    heat[4:12, 4:12] = 1.0
    boxes = torch.tensor([[0.25, 0.25, 0.75, 0.75], [0.375, 0.375, 0.625, 0.625], [0, 0, 1, 1.0]])
    mass, middle, density = (box_heat(heat, boxes, power) for power in (0.0, 0.5, 1.0))
    assert mass.argmax() == 2 and middle.argmax() == 0 and density.argmax() == 1
    torch.testing.assert_close(mass[2], torch.tensor(1.0))
    torch.testing.assert_close(density, mass / torch.tensor([0.25, 0.0625, 1.0]))


def test_grounding_by_attention_costs_one_pass_a_step_whatever_the_boxes(tiny, scene):
    image, boxes, _ = scene
    with measure(tiny) as meter:
        found = ground_by_attention(tiny, image, boxes, "a red circle", steps=3)
    assert meter.unet_passes == 3 and found.scores.shape == (len(boxes),)


def test_grounding_by_clip_is_a_cosine_per_crop(tiny, scene):
    image, boxes, _ = scene
    found = ground_by_clip(tiny, image, boxes, "a red circle")
    assert found.scores.abs().max() <= 1 + 1e-5
    alone = ground_by_clip(tiny, image, boxes[1:2], "a red circle")
    torch.testing.assert_close(found.scores[1:2], alone.scores, atol=1e-5, rtol=1e-4)


def test_the_gain_sums_to_the_difference_of_two_errors_and_is_zero_for_no_phrase(tiny, scene):
    image, boxes, _ = scene
    how = {"steps": 2, "seed": 5}
    with measure(tiny) as meter:
        gain = gain_map(tiny, image[None], ["a red circle"], **how)[0]
    assert meter.unet_passes == 4
    far = isolation_errors(tiny, image[None], ["a red circle", ""], **how).mean(-1)[0]
    numbers = tiny.encode_image(image[None]).numel()
    torch.testing.assert_close(gain.sum() / numbers, far[1] - far[0], atol=1e-5, rtol=1e-3)
    assert gain_map(tiny, image[None], [""], **how).abs().max() < 1e-4
    found = ground_by_gain(tiny, image, boxes, "a red circle", **how)
    torch.testing.assert_close(found.scores, box_heat(gain, boxes))
    with pytest.raises(ValueError, match="1 images, 2 texts"):
        gain_map(tiny, image[None], ["a", "b"])
