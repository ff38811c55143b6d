"""Diffusion Classifier with its rounds, and the attention score with its choices."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsd_tutorial.matching import components
from dsd_tutorial.matching.baselines.attention_score import ERROR_WEIGHTS
from dsd_tutorial.matching.baselines.diffusion_classifier import Rounds, spread_order
from dsd_tutorial.prompt_learning.methods import (
    AttentionPlusError,
    DiffusionClassifier,
    ZeroShotAttention,
)
from dsd_tutorial.shapes.tasks import make_task
from dsd_tutorial.stable_diffusion.noising import shared_noise, time_grid

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def ten():
    return make_task("refcoco", 2)


@pytest.fixture(scope="module")
def two():
    return make_task("comvg", 2)


@torch.no_grad()
def plain_errors(model, items, steps, seed, text=None):
    """(items * candidates,) mean squared noise error, one pair at a time."""
    z0, found = model.encode_image(items.images()), []
    for i, j in zip(*items.pairs(), strict=True):
        errors = []
        for k, t in enumerate(time_grid(steps)):
            e = shared_noise(z0.shape[1:], seed, k)
            noisy = model.add_noise(z0[i : i + 1], e, t)
            state = model.encode_text(items.texts[j] if text is None else text)
            errors.append((e - model.predict_noise(noisy, t, state)).square().mean())
        found.append(torch.stack(errors).mean())
    return torch.stack(found)


def test_one_round_is_the_plain_mean(tiny, ten):
    scores, _ = DiffusionClassifier(steps=3).score(tiny, ten, seed=5, **QUIET)
    want = -plain_errors(tiny, ten, 3, 5)
    torch.testing.assert_close(scores.flatten(), want, atol=1e-5, rtol=0)


def test_where_images_compete_the_empty_prompt_is_subtracted(tiny, two):
    scores, _ = DiffusionClassifier(steps=2).score(tiny, two, seed=5, **QUIET)
    want = plain_errors(tiny, two, 2, 5, text="") - plain_errors(tiny, two, 2, 5)
    torch.testing.assert_close(scores.flatten(), want, atol=1e-5, rtol=0)


def test_elimination_spends_less_and_keeps_the_mean_of_who_stays(tiny, ten):
    whole, full = DiffusionClassifier(steps=4).score(tiny, ten, **QUIET)
    method = DiffusionClassifier(steps=4, keep={1: 5, 3: 2})
    some, cost = method.score(tiny, ten, **QUIET)
    assert full.unet_passes == 2 * 4 * 10
    assert cost.unet_passes == 2 * (1 * 10 + 2 * 5 + 1 * 2)
    staying = torch.isclose(some, whole, atol=1e-6, rtol=0)
    assert bool((staying.sum(1) >= 2).all())
    best = some.topk(2, dim=1)
    torch.testing.assert_close(best.values, whole.gather(1, best.indices), atol=1e-6, rtol=0)


tables = st.tuples(st.integers(0, 10**6), st.integers(2, 10), st.integers(2, 6))


@settings(max_examples=40, deadline=None)
@given(tables)
def test_who_leaves_stands_below_who_stays(drawn):
    seed, candidates, steps = drawn
    numbers = torch.Generator().manual_seed(seed)
    evidence = torch.randn(steps, 3, candidates, generator=numbers, dtype=torch.float64)
    keep = {1: max(2, candidates // 2), 2: 1} if steps > 2 else {1: 1}
    order = torch.randperm(candidates, generator=numbers)
    rounds, mixed = Rounds(evidence[0].shape, keep), Rounds(evidence[0].shape, keep)
    left_at = torch.full((3, candidates), steps + 1)
    for i, found in enumerate(evidence):
        before = rounds.alive.clone()
        rounds.add(torch.where(rounds.alive, found, 0.0))
        mixed.add(torch.where(mixed.alive, found[:, order], 0.0))
        left_at[before & ~rounds.alive] = i
    scores = rounds.scores()
    assert torch.equal(scores[:, order], mixed.scores())
    for row, when in zip(scores, left_at, strict=True):  # later to leave, higher
        assert torch.equal(when[row.argsort()], when.sort().values)
    torch.testing.assert_close(scores[rounds.alive], evidence.mean(0)[rounds.alive])


def test_equals_are_not_told_apart_by_their_place():
    rounds = Rounds(torch.Size((1, 4)), {1: 1})
    rounds.add(torch.tensor([[1.0, 2.0, 2.0, 0.0]]))
    assert rounds.alive.tolist() == [[False, True, True, False]]


@settings(deadline=None)
@given(st.integers(1, 200))
def test_every_beginning_of_the_order_is_spread(n):
    order = spread_order(n)
    assert sorted(order) == list(range(n))
    assert n < 4 or max(order[:2]) - min(order[:2]) >= n // 4
    assert spread_order(8) == [0, 4, 2, 6, 1, 5, 3, 7]


def test_rounds_that_make_no_sense_are_refused(tiny):
    for keep in ({2: 5, 4: 5}, {0: 3}, {8: 2}, {2: 0}):
        with pytest.raises(ValueError, match="keep"):
            DiffusionClassifier(steps=8, keep=keep)
    with pytest.raises(ValueError, match="four pairs"):
        DiffusionClassifier(2, keep={1: 1}).score(tiny, make_task("winoground", 1), **QUIET)
    with pytest.raises(ValueError, match="noises must"):
        DiffusionClassifier(noises=0)


def test_unfitted_attention_reads_what_the_released_code_reads(tiny, two):
    found, _ = ZeroShotAttention(steps=2).score(tiny, two, seed=4, **QUIET)
    images = two.images()
    same = {"steps": 2, "layers": "last", "seed": 4, "progress": False}
    pairs = torch.from_numpy(np.stack(two.pairs(), 1))
    want = components(tiny, images, two.texts, pairs, errors=True, **same)
    torch.testing.assert_close(found.flatten(), want.score(), atol=1e-5, rtol=0)
    both, _ = AttentionPlusError(steps=2, error_weight=1.0).score(tiny, two, seed=4, **QUIET)
    torch.testing.assert_close(both.flatten(), want.score(error_weight=1.0), atol=1e-4, rtol=0)
    assert not torch.allclose(both, found)


def test_the_choice_is_the_best_on_validation_and_alone_is_computed(tiny, two, ten):
    method = ZeroShotAttention(steps=3, token_masks=("all", "words"))
    spent = method.fit(tiny, None, two, **QUIET)
    assert spent.labels == 2 and spent.unet_passes == 3 * 4
    best = max(row[1:] for row in method.history)
    assert [row[1:] for row in method.history if row[0] == method.choice] == [best]
    tried = [row[0] for row in method.history]
    assert len(set(tried)) == len(tried) and method.default(tiny) in tried
    assert {choice.token_mask for choice in tried} == {"all", "words"}
    _, cost = method.score(tiny, two, **QUIET)
    assert cost.unet_passes == len(method.choice.steps) * 4
    want = components(
        tiny, ten.images(), ten.texts, torch.from_numpy(np.stack(ten.pairs(), 1)),
        steps=method.choice.steps, layers=method.choice.layers,
        token_mask=method.choice.token_mask, seed=2, progress=False,
    ).score()  # fmt: skip
    found, _ = method.score(tiny, ten, seed=2, **QUIET)
    torch.testing.assert_close(found.flatten(), want, atol=1e-5, rtol=0)


def test_the_weight_of_the_error_is_chosen_too(tiny, two):
    method = AttentionPlusError(steps=1, token_masks=("all",))
    method.fit(tiny, None, two, **QUIET)
    assert {choice.error_weight for choice, *_ in method.history} == set(ERROR_WEIGHTS)
    assert method.choice.error_weight in ERROR_WEIGHTS
    with pytest.raises(ValueError, match="error_weight=0"):
        AttentionPlusError(error_weight=0.0)
    with pytest.raises(ValueError, match="token_masks"):
        ZeroShotAttention(token_masks=("word",))
