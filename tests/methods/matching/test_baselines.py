"""The methods that are compared: one interface, invariances, honest costs."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dsd_tutorial.matching.baselines.clip import pair_features
from dsd_tutorial.matching.baselines.method import NotFittedError
from dsd_tutorial.matching.cost import measure
from dsd_tutorial.matching.items import decision_loss, item_hits, matches, merit
from dsd_tutorial.prompt_learning.methods import METHODS, make_method
from dsd_tutorial.shapes.tasks import few_shot, make_task

QUICK = {
    "coop": {"steps": 2, "check_every": 1},
    "tip_tuned": {"steps": 3, "check_every": 1},
    "diffusion_classifier": {"steps": 2},
    "attention": {"steps": 1, "token_masks": ("words",)},
    "attention_error": {"steps": 1, "token_masks": ("no_start",)},
}
TASKS = {"comvg": 3, "refcoco": 2, "winoground": 2}


@pytest.fixture(scope="module")
def tasks():
    return {name: make_task(name, n) for name, n in TASKS.items()}


@pytest.fixture(scope="module")
def fitted(tiny):
    """Every method, fitted on a few items of the task that is asked for, once."""
    known = {}

    def get(name, task):
        if (name, task) not in known:
            method = make_method(name, **QUICK.get(name, {}))
            validation = make_task(task, 2, split="validation")
            cost = method.fit(tiny, few_shot(task, 4), validation, seed=1, progress=False)
            known[name, task] = method, cost
        return known[name, task]

    return get


def mirrored(task):
    """The same items with their candidates in the opposite order (texts, for two and two)."""
    items = []
    for item in task.items:
        if len(item.texts) > 1:
            last = len(item.texts) - 1
            item = replace(item, texts=item.texts[::-1], correct=last - item.correct)
        else:
            last = len(item.images) - 1
            item = replace(item, images=item.images[::-1], correct=last - item.correct)
        items.append(item)
    return replace(task, items=tuple(items))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", METHODS)
def test_scores_do_not_depend_on_batch_or_order(tiny, tasks, fitted, name, task):
    method, _ = fitted(name, task)
    items = tasks[task]
    settings = {"seed": 3, "progress": False}
    scores, _ = method.score(tiny, items, **settings)
    assert scores.shape == (len(items.items), np.prod(items.shape)) and scores.device.type == "cpu"
    assert torch.isfinite(scores).all() and scores.std() > 0 and not scores.requires_grad
    assert set(items.accuracy(scores.flatten())) == set(items.chance)
    alone, _ = method.score(tiny, replace(items, items=items.items[1:]), **settings)
    torch.testing.assert_close(alone, scores[1:], atol=5e-5, rtol=1e-4)
    turned, _ = method.score(tiny, mirrored(items), **settings)
    shape = (len(scores), *items.shape)
    flip = -1 if items.shape[1] > 1 else 1
    torch.testing.assert_close(
        turned.view(shape), scores.view(shape).flip(flip), atol=5e-5, rtol=1e-4
    )


@pytest.mark.parametrize("name", METHODS)
def test_fit_says_what_it_used(tiny, fitted, name):
    method, cost = fitted(name, "comvg")
    labels = {"nothing": 0, "validation": 2, "both": 6}[method.needs]
    assert cost.labels == labels and cost.seconds >= 0
    learned = {"coop": 32, "tip_tuned": 8 * 64, "probe": 65}
    if name == "coop":
        assert cost.parameters == method.context.numel() and method.context.shape[1] == 32
    else:
        assert cost.parameters == learned.get(name, 0)
    assert (cost.unet_passes > 0) == name.startswith("attention")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["diffusion_classifier", "attention", "attention_error", "clip"])
def test_passes_are_counted_by_item(tiny, tasks, fitted, name, task):
    method, items = make_method(name, **QUICK.get(name, {})), tasks[task]
    real = []
    # the last layer: what comes before the first text is computed once for rows that share it
    handle = tiny.unet.conv_out.register_forward_hook(lambda m, a, out: real.append(len(out)))
    try:
        _, cost = method.score(tiny, items, progress=False)
    finally:
        handle.remove()
    pairs = len({tuple(row) for row in np.stack(items.pairs(), 1).tolist()})
    steps = 0 if name == "clip" else method.steps
    expected = steps * pairs
    if name == "attention_error" or (name == "diffusion_classifier" and items.shape[0] > 1):
        expected += steps * len(items.scenes)  # the empty prompt
    assert cost.unet_passes == sum(real) == expected
    assert cost.labels == cost.parameters == 0


def test_the_meter_lets_go_after_an_error(tiny):
    with pytest.raises(ZeroDivisionError), measure(tiny):
        raise ZeroDivisionError
    assert not tiny.unet._forward_pre_hooks


def test_random_scores_depend_on_the_pair_and_the_seed_alone(tiny):
    items = make_task("refcoco", 200)
    method = make_method("random")
    a, _ = method.score(tiny, items, seed=0)
    b, _ = method.score(tiny, items, seed=1)
    assert not torch.equal(a, b) and torch.equal(a, method.score(tiny, items, seed=0)[0])
    assert 0.45 < a.mean() < 0.55 and abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 0.1
    assert 0.04 < items.accuracy(a.flatten())["accuracy"].mean() < 0.18


def test_clip_is_the_cosine(tiny, tasks):
    items = tasks["winoground"]
    scores, _ = make_method("clip").score(tiny, items)
    with torch.no_grad():
        images = tiny.encode_clip_image(items.images()).embedding
        texts = tiny.encode_clip_text(items.texts)
        table = F.cosine_similarity(images[:, None], texts[None], dim=-1)
    torch.testing.assert_close(scores.flatten(), table[items.pairs()], atol=1e-6, rtol=0)


@pytest.mark.parametrize("task", TASKS)
def test_right_answers_loss_and_merit_agree_with_the_task(tasks, task):
    items = tasks[task]
    right = matches(items).float()
    assert all(hit.all() for hit in items.accuracy(right.flatten()).values())
    assert not any(hit.any() for hit in items.accuracy(-right.flatten()).values())
    assert decision_loss(20 * right, items) < 1e-4 < decision_loss(0 * right, items)
    assert decision_loss(0 * right, items).item() == pytest.approx(np.log(items.candidates))
    value, margin = merit(right, items)
    assert value == 1.0 and margin > 1 and merit(7 * right + 3, items)[1] == pytest.approx(margin)
    assert merit(-right, items)[0] == 0.0
    each = 5.0 * torch.arange(len(items.items))[:, None]  # what is added to all pairs of an item
    assert merit(right + each, items)[1] == pytest.approx(margin)
    assert item_hits(items, right).all() and item_hits(items, right).shape == (len(items.items),)
    assert ("group" in items.accuracy(right.flatten())) == (items.shape == (2, 2))


def test_pair_features_hold_the_cosine(tiny, tasks):
    items = tasks["refcoco"]
    features = pair_features(tiny, items)
    scores, _ = make_method("clip").score(tiny, items)
    assert features.shape == (2, 10, 64) and bool((features[..., 32:] >= 0).all())
    torch.testing.assert_close(features[..., :32].sum(-1), scores, atol=1e-6, rtol=0)


def test_a_method_that_learns_wants_its_items(tiny, tasks):
    for name in ("tip", "tip_tuned", "probe"):
        with pytest.raises(NotFittedError, match="fit"):
            make_method(name).score(tiny, tasks["comvg"])
    with pytest.raises(ValueError, match="coop needs items"):
        make_method("coop").fit(tiny, None, tasks["comvg"])
    with pytest.raises(ValueError, match="attention needs validation"):
        make_method("attention").fit(tiny, tasks["comvg"], None)
    assert make_method("random").fit(tiny).labels == 0


def test_unknown_names_and_missing_towers_are_explained(tiny, tasks):
    with pytest.raises(ValueError, match="did you mean 'coop'.*random, clip, coop"):
        make_method("co-op")
    bare = copy.copy(tiny)
    bare.clip = None
    for name in ("clip", "coop"):
        with pytest.raises(ValueError, match="without CLIP"):
            make_method(name).score(bare, tasks["comvg"])
    with pytest.raises(ValueError, match="without CLIP"):
        make_method("tip").fit(bare, tasks["comvg"], tasks["comvg"])
