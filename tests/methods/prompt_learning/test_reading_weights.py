"""Weights over readings: from where they start to what labels say."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dsd_tutorial.matching.items import decisions
from dsd_tutorial.prompt_learning.reading_weights import (
    choose_readings,
    fit_readings,
    reading_components,
)
from dsd_tutorial.shapes import few_shot, make_task

READ = ("log_sum_exp", "direction", "error")
HOW = {"layers": ("mid.0", "up.0.0"), "steps": (400,), "progress": False}


@pytest.fixture(scope="module")
def items():
    return few_shot("winoground", 6)


@pytest.fixture(scope="module")
def parts(tiny, items):
    return reading_components(tiny, items, READ, **HOW)


@pytest.fixture(scope="module")
def start(tiny, items, parts):
    return choose_readings(tiny, items, readings=READ, most=2, parts=parts, **HOW)


def test_a_large_penalty_leaves_the_zero_shot_score(tiny, items, parts, start):
    held = fit_readings(tiny, items, readings=READ, start=start, penalty=1e9, parts=parts, **HOW)
    together = torch.corrcoef(torch.stack([held.score(parts), start.score(parts)]))
    assert together[0, 1] > 1 - 1e-6  # up to a factor
    blank = fit_readings(tiny, items, readings=READ, penalty=1e9, parts=parts, **HOW)
    assert blank.score(parts).abs().max() < 1e-3


def test_a_choice_is_a_plain_sum_and_a_single_reading_is_itself(tiny, items, parts, start):
    assert 1 <= len(start.readings) <= 2 and set(start.readings) <= set(READ)
    one = choose_readings(tiny, items, readings=["direction"], parts=parts, **HOW)
    alone = parts.select("direction").score()
    together = torch.corrcoef(torch.stack([one.score(parts), alone]))
    assert together[0, 1] > 1 - 1e-5 and one.cost.labels == 6 and one.cost.parameters == 0


@pytest.mark.parametrize("task", ["comvg", "vqa", "winoground"])
def test_fitting_makes_the_labels_likelier(tiny, task):
    items = few_shot(task, 6)
    parts = reading_components(tiny, items, READ, **HOW)
    losses = []
    for penalty in (1e6, 1.0, 1e-3):
        fitted = fit_readings(tiny, items, readings=READ, penalty=penalty, parts=parts, **HOW)
        scores = fitted.score(parts).view(len(items.items), -1)
        rows, right = decisions(scores, items.shape, [item.correct for item in items.items])
        losses.append(float(F.cross_entropy(rows, right)))
    assert losses[0] == pytest.approx(math.log(items.candidates), abs=1e-3)
    assert losses[0] > losses[1] + 0.01 > losses[2]


def test_scores_do_not_depend_on_a_readings_unit(tiny, items, parts):
    scaled = replace(parts, by_reading={name: 7 * x for name, x in parts.by_reading.items()})
    one, other = (fit_readings(tiny, items, readings=READ, parts=p, **HOW) for p in (parts, scaled))
    assert torch.allclose(one.score(parts), other.score(scaled), atol=1e-3)


def test_other_items_are_scored_by_what_was_fitted(tiny, items):
    fitted = fit_readings(tiny, items, readings=READ[:2], prior="validation", **HOW)
    assert fitted.cost.labels == 6 and fitted.cost.unet_passes > 0
    test = make_task("winoground", 3)
    scores = fitted.scores(tiny, test, progress=False)
    assert scores.shape == (3, 4)
    again = fitted.scores(tiny, test, progress=False, batch_size=3)
    assert torch.allclose(scores, again, atol=1e-4)


def test_what_cannot_be_fitted_is_refused(tiny, items):
    with pytest.raises(ValueError, match="penalty=-1"):
        fit_readings(tiny, items, penalty=-1.0, **HOW)
    other = choose_readings(
        tiny, items, readings=["peak"], layers=HOW["layers"], steps=(400,), progress=False
    )
    with pytest.raises(ValueError, match="start reads .'peak', 'mid.0'.*not among"):
        fit_readings(tiny, items, readings=READ[:2], start=other, **HOW)
