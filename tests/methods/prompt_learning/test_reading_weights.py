"""Weights over readings: from where they start to what labels say."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dsd_tutorial.matching.items import decisions, item_hits
from dsd_tutorial.prompt_learning import choose_readings, fit_readings, reading_components
from dsd_tutorial.prompt_learning.reading_weights import simplest
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


def test_validation_takes_the_simplest_that_is_no_worse(tiny, items, parts, start):
    rows = [1, 1, 0, 0] * 9, [1, 1, 1, 0] * 9, [1, 1, 1, 1] + [1, 1, 1, 0] * 8
    hits = [np.array(row) for row in rows]
    assert simplest(hits) == 1  # one item of 36 more is no more than its standard error
    assert simplest(hits[1:]) == 0 and simplest(hits[:1] * 3) == 0
    how = {"readings": READ, "parts": parts, **HOW}
    tried = [(begin, x) for begin in (start, None) for x in (1e9, 1.0)]
    fits = [fit_readings(tiny, items, start=begin, penalty=x, **how) for begin, x in tried]
    wanted = fits[simplest([item_hits(items, fitted.score(parts)) for fitted in fits])]
    found = fit_readings(
        tiny, items, start=(start, None), penalty=(1e9, 1.0), validation=(items, parts), **how
    )
    torch.testing.assert_close(found.weights, wanted.weights)
    assert found.cost.labels == 6 + 6
    with pytest.raises(ValueError, match="2 combinations of start and penalty.*validation="):
        fit_readings(tiny, items, penalty=(1.0, 2.0), **how)


def test_what_cannot_be_fitted_is_refused(tiny, items):
    with pytest.raises(ValueError, match="penalty=-1"):
        fit_readings(tiny, items, penalty=-1.0, **HOW)
    other = choose_readings(
        tiny, items, readings=["peak"], layers=HOW["layers"], steps=(400,), progress=False
    )
    with pytest.raises(ValueError, match="start reads .'peak', 'mid.0'.*not among"):
        fit_readings(tiny, items, readings=READ[:2], start=other, **HOW)


def test_each_time_step_of_the_error_has_a_weight_of_its_own(tiny, items):
    """At steps where no reading is read, too; equal weights are the mean error."""
    where = {**HOW, "error_steps": (200, 400, 800)}
    parts = reading_components(tiny, items, READ, **where)
    assert parts.steps == (200, 400, 800)
    chosen = choose_readings(tiny, items, readings=["error"], parts=parts, **where)
    torch.testing.assert_close(chosen.score(parts), parts.errors.mean(1) / chosen.scale[0])
    fitted = fit_readings(tiny, items, readings=READ, start=chosen, parts=parts, **where)
    assert [step for name, step in fitted.table() if name == "error"] == ["200", "400", "800"]
    assert len(fitted.weights) == 2 * 2 + 3
    later = fitted.components(tiny, items, progress=False)
    torch.testing.assert_close(fitted.score(later), fitted.score(parts), atol=1e-4, rtol=1e-4)


def test_heads_and_time_steps_may_have_weights_of_their_own(tiny, items):
    """Their means are what is read without; a layer with fewer heads has fewer numbers."""
    where = {**HOW, "steps": (200, 600)}
    parts = reading_components(tiny, items, (*READ, "heads"), **where)
    fine = fit_readings(tiny, items, readings=(*READ, "heads"), by_step=True, parts=parts, **where)
    columns = fine.reads.columns(parts)
    assert tuple(columns) == fine.names and len(fine.weights) == len(columns)
    heads = torch.stack([x for (name, _), x in columns.items() if name == "heads"])
    steps = torch.stack([x for (name, _), x in columns.items() if name == "log_sum_exp"])
    assert len(steps) == 2 * 2 and len(heads) >= 2 * 2
    first = heads[: len(heads) // 2]  # of the first layer
    torch.testing.assert_close(first.mean(0), steps[:2].mean(0), atol=1e-5, rtol=1e-5)
    later = fine.components(tiny, items, progress=False)
    torch.testing.assert_close(fine.score(later), fine.score(parts), atol=1e-3, rtol=1e-3)
