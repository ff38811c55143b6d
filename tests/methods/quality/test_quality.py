"""Degradations of known strength, readings of quality prompts, and prompts that are learned."""

import numpy as np
import pytest
import torch

from dsd_tutorial.attention import observe
from dsd_tutorial.matching.cost import measure
from dsd_tutorial.quality import (
    KINDS,
    degrade,
    degraded_scenes,
    encode_prompts,
    fit_prompts,
    pixel_statistics,
    quality_readings,
    rank_correlation,
    regression,
)
from dsd_tutorial.quality.prompts import joint_context, noised
from dsd_tutorial.shapes import random_scenes, render

STEPS = (20, 150)
TEXTS = ("a large picture", "a small picture of it")


@pytest.fixture(scope="module")
def images():
    return render(random_scenes(6, 3, "train"), 64)[0]


@pytest.fixture(scope="module")
def known(tiny):
    return degraded_scenes(tiny, 24, seed=5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_degradation_starts_at_the_image_and_grows_with_its_strength(images, kind):
    assert (degrade(images, kind, 0.0) - images).abs().max() < 1e-5
    far = torch.stack([
        (degrade(images, kind, strength, seed=1) - images).square().flatten(1).mean(1)
        for strength in (0.1, 0.4, 1.0)
    ])  # fmt: skip
    assert (far.diff(dim=0) > 0).all() and (far[0] > 0).all()


def test_a_degradation_does_not_depend_on_the_images_beside_it(images):
    kinds = [KINDS[i % 4] for i in range(6)]
    strengths = torch.linspace(0.1, 1, 6)
    all_at_once = degrade(images, kinds, strengths, seed=2)
    first_two = degrade(images[:2], kinds[:2], strengths[:2], seed=2)
    assert torch.equal(all_at_once[:2], first_two)
    assert not torch.equal(degrade(images, "noise", 0.5, 1), degrade(images, "noise", 0.5, 2))
    assert 0 <= all_at_once.min() and all_at_once.max() <= 1


def test_blocks_keep_what_is_constant_in_a_block():
    plain = torch.full((1, 3, 20, 12), 0.5)  # sides that no whole number of blocks covers
    changed = degrade(plain, "blocks", 1.0)
    assert changed.shape == plain.shape and (changed - changed[0, 0, 0, 0]).abs().max() < 1e-5
    assert (changed - plain).abs().max() <= 0.4 / 8 / 2 + 1e-5  # half a step of the mean


@pytest.mark.parametrize(
    ("kinds", "strengths", "says"),
    [
        ("fog", 0.5, "unknown kind 'fog'; choose one of blur"),
        (["blur"], 0.5, "1 kinds for 6 images"),
        ("blur", 1.5, "strength 1.5: from 0"),
    ],
)
def test_what_cannot_be_degraded_is_refused(images, kinds, strengths, says):
    with pytest.raises(ValueError, match=says):
        degrade(images, kinds, strengths)


def test_scenes_are_degraded_in_every_kind_and_can_be_selected(tiny, known):
    assert {known.kinds.count(kind) for kind in KINDS} == {6}
    rest = known.select([kind for kind in KINDS if kind != "noise"])
    assert len(rest) == 18 and "noise" not in rest.kinds
    rows = [i for i, kind in enumerate(known.kinds) if kind != "noise"]
    assert torch.equal(rest.images, known.images[rows])
    assert torch.equal(rest.strengths, known.strengths[rows])


def test_a_reading_is_the_log_sum_exp_of_one_prompts_tokens(tiny, images):
    """As computed by hand from the logits of a pass over the joint context."""
    prompts = encode_prompts(tiny, TEXTS)
    read = quality_readings(tiny, images, prompts, steps=[150], layers="mid", progress=False)
    context, masks = joint_context(tiny, prompts)
    with observe(tiny, "mid", logits=True) as seen, torch.no_grad():
        tiny.predict_noise(noised(tiny, tiny.encode_image(images), 0, 0, 150), 150, context)
    (logits,) = seen.logits.values()  # (images, heads, pixels, positions)
    by_hand = []
    for mask in masks:
        soft = logits[..., mask].logsumexp(-1) - np.log(int(mask.sum()))
        grid = soft.unflatten(-1, (4, 4))
        steps = [(grid[..., 1:] - grid[..., :-1]), (grid[..., 1:, :] - grid[..., :-1, :])]
        rough = sum(x.abs().mean((2, 3)) for x in steps) / 2
        by_hand += [soft.mean(-1), soft.std(-1), rough]
    by_hand = torch.stack(by_hand, -1).unflatten(-1, (2, 3)).transpose(1, 2).flatten(1)
    torch.testing.assert_close(read, by_hand, atol=1e-4, rtol=1e-4)
    assert not any(mask[0] for mask in masks) and sum(masks).max() == 1


def test_readings_do_not_depend_on_the_batch_and_cost_a_pass_per_step(tiny, images):
    prompts = encode_prompts(tiny, TEXTS)
    how = {"steps": STEPS, "progress": False}
    with measure(tiny) as meter:
        whole = quality_readings(tiny, images, prompts, **how)
    assert meter.unet_passes == len(images) * len(STEPS)
    parts = quality_readings(tiny, images, TEXTS, batch_size=4, **how)
    torch.testing.assert_close(whole, parts, atol=1e-4, rtol=1e-4)
    alone = quality_readings(tiny, images[2:3], prompts, **how)
    torch.testing.assert_close(whole[2:3], alone, atol=1e-4, rtol=1e-4)


def test_learning_lowers_the_error_of_the_regression_and_leaves_the_model_alone(tiny, known):
    start = encode_prompts(tiny, TEXTS)
    how = {"steps": [20], "layers": "up", "progress": False}
    before = {name: p.clone() for name, p in tiny.unet.named_parameters()}
    assert torch.equal(fit_prompts(tiny, known, start, updates=0, **how), start)
    learned = fit_prompts(tiny, known, start, updates=6, batch_images=24, lr=0.1, **how)
    again = fit_prompts(tiny, known, start, updates=6, batch_images=24, lr=0.1, **how)
    assert torch.equal(learned, again) and learned.shape == start.shape
    assert not learned.requires_grad and (learned - start).abs().max() > 0.01
    assert all(torch.equal(p, before[n]) and p.grad is None
               for n, p in tiny.unet.named_parameters())  # fmt: skip

    def left(prompts):
        """What a regression of one fixed penalty leaves of the fitted images."""
        read = quality_readings(tiny, known.images, prompts, **how).numpy()
        model = regression([10.0]).fit(read, known.strengths.numpy())
        return np.square(model.predict(read) - known.strengths.numpy()).mean()

    assert left(learned) < left(start)


@pytest.mark.parametrize("wrong", [{"updates": -1}, {"lr": 0.0}])
def test_a_fit_that_cannot_be_is_refused(tiny, known, wrong):
    with pytest.raises(ValueError, match=r"need updates >= 0 and lr > 0"):
        fit_prompts(tiny, known, TEXTS, **wrong)


def test_no_prompt_is_refused(tiny):
    with pytest.raises(ValueError, match="texts is empty"):
        encode_prompts(tiny, [])


def test_rank_correlation_is_spearmans_within_kinds():
    from scipy.stats import spearmanr

    numbers = np.random.default_rng(0)
    true, kinds = numbers.random(40), ["a"] * 20 + ["b"] * 20
    predicted = true + 0.3 * numbers.standard_normal(40)
    found = rank_correlation(predicted, true, kinds)
    by_hand = [spearmanr(predicted[s], true[s]).statistic for s in (slice(20), slice(20, 40))]
    assert found.value == pytest.approx(np.mean(by_hand)) and found.n == 40
    assert found.low < found.value < found.high
    shifted = predicted + np.repeat([0.0, 9.0], 20)  # kinds may lie apart
    assert rank_correlation(shifted, true, kinds).value == pytest.approx(found.value)
    assert rank_correlation(np.exp(true), true, kinds).value == pytest.approx(1)
    assert rank_correlation(np.ones(40), true, kinds).value == 0


def test_a_difference_is_paired_and_seeds_are_averaged():
    numbers = np.random.default_rng(1)
    true, kinds = numbers.random(40), ["a", "b"] * 20
    good, bad = (true + spread * numbers.standard_normal(40) for spread in (0.1, 0.6))
    gap = rank_correlation(good, true, kinds, against=bad)
    each = [rank_correlation(x, true, kinds) for x in (good, bad)]
    assert gap.value == pytest.approx(each[0].value - each[1].value) and gap.low > 0
    none = rank_correlation(good, true, kinds, against=good)
    assert none.value == none.low == none.high == 0
    both = rank_correlation(np.stack([good, bad]), true, kinds)
    assert both.value == pytest.approx((each[0].value + each[1].value) / 2)


def test_what_has_no_rank_correlation_is_refused():
    with pytest.raises(ValueError, match="three images of each kind"):
        rank_correlation(np.arange(4.0), np.arange(4.0), ["a", "a", "a", "b"])
    with pytest.raises(ValueError, match="and 3 kinds: give one each"):
        rank_correlation(np.arange(4.0), np.arange(4.0), ["a", "a", "a"])


def test_pixel_statistics_tell_strengths_of_each_kind(images):
    """The baseline is no straw man: on average each kind moves some statistic one way."""
    for kind in KINDS:
        levels = [pixel_statistics(degrade(images, kind, s, 3)) for s in (0.0, 0.3, 0.6, 1.0)]
        table = torch.stack(levels)  # (levels, images, features)
        assert table.isfinite().all()
        steps = table.mean(1).diff(dim=0)
        assert ((steps > 0).all(0) | (steps < 0).all(0)).any(), kind


def test_distances_from_the_mean_rank_what_goes_either_way():
    numbers = np.random.default_rng(3)
    strengths = numbers.random(80)
    signs = np.repeat([-1, 1], 40)  # two kinds that move one feature in opposite directions
    x = (signs * strengths)[:, None]
    kinds = ["down"] * 40 + ["up"] * 40
    agree = [
        rank_correlation(regression(unsigned=u).fit(x, strengths).predict(x), strengths, kinds)
        for u in (False, True)
    ]
    assert abs(agree[0].value) < 0.1 and agree[1].value > 0.9
