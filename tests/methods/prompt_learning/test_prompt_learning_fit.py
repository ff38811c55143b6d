"""Fitting: losses by hand, planted signals found, best step kept, files that belong together."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsd_tutorial.attention import choose_layers
from dsd_tutorial.matching.cost import Memory, Meter
from dsd_tutorial.matching.items import item_pairs
from dsd_tutorial.matching.parts import Components
from dsd_tutorial.prompt_learning import (
    AdapterMismatch,
    AttentionPrompt,
    HeadWeights,
    LoRA,
    Scoring,
    SoftPrompt,
    choose,
    choose_scoring,
    decisions,
    evaluate_items,
    fit,
    gradient_guided,
    hinge,
    infonce,
    load,
    objectives,
    sources,
    weights,
)
from dsd_tutorial.prompt_learning.adapters import Adapter
from dsd_tutorial.prompt_learning.loop import Loop
from dsd_tutorial.prompt_learning.objectives import spread
from dsd_tutorial.shapes.tasks import few_shot, make_task

ONE = Scoring(time_steps=1)
QUICK = {"scoring": ONE, "validation": False, "progress": False, "batch_pairs": 4}


# -- losses ------------------------------------------------------------------------------------


def test_losses_by_hand():
    scores, positive = torch.tensor([[1.0, 0.95, 0.2], [0.0, 3.0, 1.0]]), torch.tensor([0, 2])
    # hardest negatives 0.95 and 3: max(0, 0.95 - 1 + 0.1) and 3 - 1 + 0.1
    assert hinge(scores, positive, 0.1).item() == pytest.approx((0.05 + 2.1) / 2)
    want = -(scores[0].softmax(0)[0].log() + scores[1].softmax(0)[2].log()) / 2
    assert infonce(scores, positive).item() == pytest.approx(want.item())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=16, max_size=16), st.lists(st.integers(0, 1), min_size=4,
       max_size=4))  # fmt: skip
def test_the_four_decisions_of_two_by_two_are_the_group_score(numbers, correct):
    task = make_task("winoground", 4)
    items = [dataclasses.replace(i, correct=c) for i, c in zip(task.items, correct, strict=True)]
    task = dataclasses.replace(task, items=tuple(items))
    scores = torch.tensor(numbers).view(4, 4)
    rows, positive = decisions(scores, (2, 2), correct)
    won = (rows.gather(1, positive[:, None]) > rows.gather(1, 1 - positive[:, None])).view(4, 4)
    group = task.accuracy(scores.flatten())["group"]
    assert np.array_equal(won.all(0).numpy(), group)  # (kind of decision, item)


def test_decisions_refuse_scores_of_another_shape():
    with pytest.raises(ValueError, match="10 pairs"):
        decisions(torch.zeros(3, 9), (1, 10), [0, 1, 2])


# -- weights on cached components ----------------------------------------------------------------


def _planted(tiny, items, seed: int, sign: float = 1.0):
    """Components of noise, but for layer 2, whose heads know the answer; errors are noise."""
    numbers = torch.Generator().manual_seed(seed)
    names = tuple(choose_layers(tiny))
    right = torch.zeros(len(items.items), int(np.prod(items.shape)))
    right[torch.arange(len(right)), torch.tensor([i.correct for i in items.items])] = 1.0
    table = torch.randn(right.numel(), 2, len(names), 4, generator=numbers)
    table[:, :, 2] += sign * 1.5 * right.flatten()[:, None, None]
    errors = torch.randn(right.numel(), 2, generator=numbers)
    pairs = item_pairs(items).flatten(0, 1)
    return Components({"all": table}, errors, names, (250, 750), pairs)


@pytest.fixture(scope="module")
def cached(tiny):
    labelled, rest = few_shot("comvg", 16), make_task("comvg", 64)
    return labelled, rest, {
        s: (_planted(tiny, labelled, 0, s), _planted(tiny, rest, 1, s)) for s in (1.0, -1.0)
    }  # fmt: skip


@pytest.mark.parametrize("form, sign", [("signed", 1.0), ("signed", -1.0), ("softmax", 1.0)])
def test_fitted_weights_find_the_layer_that_knows(tiny, cached, form, sign):
    labelled, rest, parts = cached
    scoring = Scoring(time_steps=2)
    adapter = HeadWeights(tiny, scoring, over=["layer"], kind=form)
    found = fit(
        tiny, adapter, labelled, scoring=scoring, validation=rest, parts=parts[sign],
        steps=60, check_every=5, loss="infonce", progress=False,
    )  # fmt: skip
    assert found.accuracy > found.zero_shot[1] + 0.08 and found.best_step > 0
    moved = adapter.theta.detach().flatten()
    assert moved.abs().argmax() == 2 and (moved[2] > 0) == (sign > 0)
    assert found.cost.unet_passes == 0 and found.cost.labels == 16 + 64


def test_the_gradient_points_at_the_layer_that_knows(tiny, cached):
    labelled, _, parts = cached
    gains = {}
    for sign in (1.0, -1.0):
        adapter = gradient_guided(
            tiny, labelled, Scoring(time_steps=2), over=("layer",), parts=parts[sign][0]
        )
        # weight per spread of the layer's own score: the positive part of gradient x attention
        gains[sign] = adapter.weights().mean((0, 2)) / adapter.unit.flatten()
        assert gains[sign].min() > -1e-5
    assert gains[1.0].argmax() == 2
    assert gains[-1.0][2].abs() < 1e-5  # a layer that speaks against is not listened to


@pytest.mark.parametrize("error", [False, True])
@pytest.mark.parametrize("over", [("layer",), ("step", "head")])
def test_guided_weights_share_out_one_and_none_is_negative(tiny, cached, over, error):
    labelled, _, parts = cached
    scoring = Scoring(time_steps=2, error_weight=0.5)
    knowing = parts[1.0][0].by_reading["all"][:, :, 2].mean(-1)
    part = dataclasses.replace(parts[1.0][0], errors=knowing)
    adapter = gradient_guided(tiny, labelled, scoring, over=over, error=error, parts=part)
    shares = [(1 + adapter.theta * adapter.unit) / adapter.unit]
    if error:
        shares.append(
            (scoring.error_weight + adapter.theta_error * adapter.unit_error) / adapter.unit_error
        )
    for share in (share.detach() for share in shares):
        assert bool((share > -1e-5).all()) and float(share.max()) > 0.01
    assert float(sum(share.detach().sum() for share in shares)) == pytest.approx(1, abs=1e-4)


def test_where_nothing_speaks_for_the_labels_the_plain_average_stays(tiny, cached):
    labelled, _, parts = cached
    same = torch.ones_like(parts[1.0][0].scores)
    silent = dataclasses.replace(
        parts[1.0][0], by_reading={"all": same}, errors=torch.zeros_like(parts[1.0][0].errors)
    )
    scoring = Scoring(time_steps=2)
    adapter = gradient_guided(tiny, labelled, scoring, over=("layer",), error=True, parts=silent)
    assert not adapter.theta.any() and not adapter.theta_error.any()


def test_the_error_term_is_weighted_when_it_knows(tiny, cached):
    labelled, rest, parts = cached
    scoring = Scoring(time_steps=2)
    pair = [
        dataclasses.replace(p, errors=p.by_reading["all"][:, :, 2].mean(-1)) for p in parts[-1.0]
    ]
    adapter = HeadWeights(tiny, scoring, over=("step",), kind="softmax", error=True)
    found = fit(
        tiny, adapter, labelled, scoring=scoring, validation=rest, parts=tuple(pair),
        steps=60, check_every=5, loss="infonce", progress=False,
    )  # fmt: skip
    assert found.accuracy > found.zero_shot[1] + 0.2  # here the error term speaks against
    assert adapter.error_weights(scoring).max() < 0 and adapter.size == 2 + 2


@pytest.mark.parametrize("over", [("step",), ("layer",), ("step", "layer", "head")])
@pytest.mark.parametrize("error", [True, False])
def test_each_theta_moves_the_score_by_one_zero_shot_spread(tiny, cached, over, error):
    """One against several weights of the error term too: each has the unit of its own part."""
    labelled, _, parts = cached
    scoring, part = Scoring(time_steps=2, error_weight=0.5), parts[1.0][0]
    adapter = HeadWeights(tiny, scoring, over=over, error=error)

    def pooled():
        return adapter.pool(part, scoring)

    def spread_of(scores):
        rows = scores.detach().view(len(labelled.items), -1)
        return spread(decisions(rows, labelled.shape, [i.correct for i in labelled.items])[0])

    plain = pooled().detach()
    adapter.calibrate(part, labelled, scoring)
    torch.testing.assert_close(pooled().detach(), plain)  # at theta = 0 nothing moves
    learned = dict(adapter.named_parameters())
    sizes = {"step": 2, "layer": len(adapter.layers), "head": 4}
    shape = tuple(n if axis in over else 1 for axis, n in sizes.items())
    assert learned["theta"].shape == shape and ("theta_error" in learned) == error
    if error:
        assert learned["theta_error"].shape == (2 if "step" in over else 1,)
    for name, parameter in learned.items():
        for index in np.ndindex(*parameter.shape):
            with torch.no_grad():
                parameter[index] = 1.0
                moved = pooled() - plain
                parameter[index] = 0.0
            assert spread_of(moved) == pytest.approx(spread_of(plain), rel=1e-3), (name, index)


def test_units_are_measured_from_plain_thetas_each_time(tiny, cached):
    labelled, _, parts = cached
    scoring, part = Scoring(time_steps=2), parts[1.0][0]
    adapter = HeadWeights(tiny, scoring, over=("layer",))
    with torch.no_grad():
        adapter.theta.normal_(generator=torch.Generator().manual_seed(0))
    adapter.calibrate(part, labelled, scoring)
    once = adapter.unit.clone()
    adapter.calibrate(part, labelled, scoring)
    assert torch.equal(adapter.unit, once)
    whole = adapter.average.expand(2, -1, -1) * (1 + adapter.theta.detach())  # units of one
    shares = [
        (part.scores * adapter.average)[:, :, i].sum(-1).mean(-1) for i in range(len(once[0]))
    ]

    def spread_of(scores):
        rows = scores.view(len(labelled.items), -1)
        return spread(decisions(rows, labelled.shape, [i.correct for i in labelled.items])[0])

    top = spread_of((part.scores * whole).sum((-1, -2)).mean(-1))
    for unit, share in zip(once.flatten().tolist(), shares, strict=True):
        assert unit == pytest.approx(top / spread_of(share), rel=1e-3)


def test_units_of_the_error_are_measured_from_plain_thetas_too(tiny):
    scoring, items = Scoring(time_steps=2, error_weight=1.0), few_shot("comvg", 6)
    adapter = HeadWeights(tiny, scoring, over=("step",), error=True)
    numbers = torch.Generator().manual_seed(0)
    shape = 2, len(adapter.layers), max(adapter.heads)
    parts = Components(
        {scoring.token_mask: torch.randn(12, *shape, generator=numbers)},
        torch.randn(12, 2, generator=numbers), adapter.layers, adapter.grid,
        torch.zeros(12, 2).long(),
    )  # fmt: skip
    with torch.no_grad():
        for theta in adapter.parameters():
            theta.normal_(generator=numbers)
    whole = weights._spread(adapter.pool(parts, scoring).detach(), items)  # units are ones yet
    for _ in range(2):
        adapter.calibrate(parts, items, scoring)
        for unit, own in zip(adapter.unit_error.tolist(), parts.errors.T, strict=True):
            assert unit == pytest.approx(whole / weights._spread(own / 2, items), rel=1e-4)
    assert len(HeadWeights(tiny, scoring, over=("step",)).unit_error) == 0


def test_components_of_validation_items_alone_are_not_looked_at(tiny, cached):
    labelled, _, parts = cached
    scoring = Scoring(time_steps=2)
    adapter = HeadWeights(tiny, scoring, over=("layer",))
    how = {"validation": False, "parts": parts[1.0], "steps": 2, "progress": False}
    found = fit(tiny, adapter, labelled, scoring=scoring, **how)
    assert found.accuracy is None and found.best_step == 2


def test_softmax_weights_stay_an_average(tiny):
    adapter = HeadWeights(tiny, Scoring(time_steps=2), over=("step", "layer"), kind="softmax")
    with torch.no_grad():
        adapter.theta.normal_(generator=torch.Generator().manual_seed(0))
    weights = adapter.weights()
    assert weights.min() > 0 and weights.sum((1, 2)).mean().item() == pytest.approx(1.0)


# -- fitting through the U-Net -------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, loss, lr",
    [
        (lambda m: SoftPrompt(m), "infonce", 0.2),
        (lambda m: SoftPrompt(m, where="before"), "hinge", 0.2),
        (lambda m: AttentionPrompt(m), "infonce", 0.2),
        (lambda m: LoRA(m), "hinge", 0.03),
    ],
)
def test_fitting_makes_the_loss_fall_on_its_own_items(tiny, monkeypatch, make, loss, lr):
    noise = sources.shared_noise((4, 16, 16), 0, 0)
    monkeypatch.setattr(sources, "shared_noise", lambda *place: noise)  # losses to be compared
    items, adapter = few_shot("comvg", 2), make(tiny)
    found = fit(tiny, adapter, items, steps=6, lr=lr, loss=loss, margin=3.0, **QUICK)
    losses = found.history["loss"].dropna().to_numpy()
    assert len(losses) == 6 and losses[-1] < losses[0] - 0.01
    assert found.accuracy is None and found.best_step == 6  # without validation: the last step
    assert found.cost.unet_passes == 4 + 6 * 4 and found.cost.parameters == adapter.size
    assert found.peak_memory > 2**20


@pytest.mark.parametrize(
    ("how", "every"), [({"steps": 12}, 2), ({"steps": 3}, 1), ({"steps": 12, "check_every": 7}, 7)]
)
def test_validation_is_looked_at_as_often_as_the_adapter_says(tiny, monkeypatch, how, every):
    class Begun(Exception):
        pass

    def begin(adapter, source, objective, steps, every, *rest):
        raise Begun(steps, every)

    monkeypatch.setattr(sys.modules[fit.__module__], "Loop", begin)
    adapter = SoftPrompt(tiny)
    assert adapter.checks == 5
    with pytest.raises(Begun) as begun:
        fit(tiny, adapter, few_shot("comvg", 1), **QUICK, **how)
    assert begun.value.args == (how["steps"], every)


def test_weights_decay_a_little(tiny):
    (group,) = SoftPrompt(tiny).optimiser(0.1).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.01)


def test_the_best_step_on_validation_is_kept_and_zero_shot_is_a_candidate(tiny, monkeypatch):
    seen = iter([(0.5, 1.0), (0.6, 0.9), (0.6, 0.8), (0.4, 0.1), (0.6, 0.9)])
    monkeypatch.setattr(sources.Passes, "validate", lambda self: next(seen))
    items, adapter, states = few_shot("comvg", 1), SoftPrompt(tiny), []
    plain = sources.Passes.batch

    def batch(self, step):
        states.append({k: v.clone() for k, v in adapter.state_dict().items()})
        return plain(self, step)

    monkeypatch.setattr(sources.Passes, "batch", batch)
    how = {**QUICK, "validation": items}
    found = fit(tiny, adapter, items, steps=4, check_every=1, **how)
    assert (found.best_step, found.accuracy, found.loss) == (2, 0.6, 0.8)
    assert found.stopped == "end" and len(states) == 4
    for name, value in adapter.state_dict().items():
        assert torch.equal(value, states[2][name])  # the state after step 2


class Given:
    """A source of batches whose validation answers are given: `Loop` alone is under test."""

    def __init__(self, number, answers):
        self.number, self.answers = number, iter(answers)

    def batch(self, step):
        scores = self.number * torch.tensor([[1.0, 0.0]])
        return sources.Batch(scores, torch.tensor([0]), torch.zeros(()))

    def validate(self):
        return next(self.answers)


class OneNumber(Adapter):
    def __init__(self):
        super().__init__()
        self.number = torch.nn.Parameter(torch.ones(()))


def looped(answers, steps, every=1):
    adapter = OneNumber()
    loop = Loop(
        adapter, Given(adapter.number, answers), infonce, steps, every, 0.1, 0.0,
        Meter(), Memory(torch.device("cpu")),
    )  # fmt: skip
    loop.run(0.5, False)
    return loop


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.4, 0.5, 0.6]), st.sampled_from([0.1, 0.2])), min_size=1,
             max_size=9)
)  # fmt: skip
def test_of_equal_steps_the_earliest_is_kept(answers):
    """Most accurate, then the lowest loss, then the earliest."""
    loop, best, at = looped(answers, len(answers) - 1), (0.0, 0.0), None
    for step, (accuracy, loss) in enumerate(answers):
        if at is None or (accuracy, -loss) > best:
            best, at = (accuracy, -loss), step
    assert (loop.best, loop.best_step) == (best, at)
    assert [row["step"] for row in loop.rows] == list(range(len(answers)))
    assert loop.stopped == "end"


def test_no_steps_is_zero_shot(tiny):
    items = few_shot("comvg", 1)
    found = fit(tiny, AttentionPrompt(tiny), items, steps=0, **{**QUICK, "validation": items})
    assert found.best_step == 0 and found.accuracy == found.zero_shot[1]
    want = evaluate_items(tiny, items, None, ONE, progress=False)
    torch.testing.assert_close(
        found.scores(tiny, items, progress=False), want, atol=1e-6, rtol=1e-6
    )


def test_an_interrupt_keeps_the_best_so_far(tiny, monkeypatch):
    plain = sources.Passes.batch

    def batch(self, step):
        if step == 3:
            raise KeyboardInterrupt
        return plain(self, step)

    monkeypatch.setattr(sources.Passes, "batch", batch)
    adapter = SoftPrompt(tiny)
    found = fit(
        tiny, adapter, few_shot("comvg", 1), steps=9, check_every=1, loss="infonce", **QUICK
    )
    assert found.stopped == "interrupted" and found.best_step == 2
    assert found.history["step"].tolist() == [0, 1, 2]
    assert max(p.abs().max() for p in adapter.parameters()) > 0


def test_changed_weights_are_noticed(tiny, monkeypatch):
    plain, weight = sources.Passes.batch, next(tiny.unet.parameters())
    before = weight.detach().clone()  # + 1 - 1 would round

    def batch(self, step):
        with torch.no_grad():
            weight.view(-1)[0] += 1
        return plain(self, step)

    monkeypatch.setattr(sources.Passes, "batch", batch)
    try:
        with pytest.raises(RuntimeError, match="weights of unet changed"):
            fit(tiny, SoftPrompt(tiny), few_shot("comvg", 1), steps=1, **QUICK)
    finally:
        with torch.no_grad():
            weight.copy_(before)


def test_the_same_seed_gives_the_same_fit(tiny):
    states = []
    for seed in (0, 0, 1):
        adapter = LoRA(tiny)
        fit(tiny, adapter, few_shot("comvg", 2), steps=2, lr=0.1, seed=seed, **QUICK)
        states.append(torch.cat([p.detach().flatten() for p in adapter.parameters()]))
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_all_candidates_of_a_step_share_one_step_and_one_noise(tiny, monkeypatch):
    calls = []

    def passes(model, adapter, latents, texts, pairs, t, e, scoring, *, prompts):
        calls.append((t, e, texts, pairs))
        return torch.zeros(len(pairs), requires_grad=True), torch.zeros(len(pairs), 4, 16, 16)

    monkeypatch.setattr(sources, "pass_scores", passes)
    items = few_shot("refcoco", 4)
    fit(
        tiny, SoftPrompt(tiny), items, steps=6, negatives=3,
        scoring=Scoring(time_steps=2), validation=False, progress=False, batch_pairs=8,
    )  # fmt: skip
    places = []
    for t, e, texts, pairs in calls:
        assert t in (250, 750) and e.shape == (1, 4, 16, 16) and len(pairs) == 8
        for image, rows in zip(pairs[::4, 0].tolist(), pairs.view(-1, 4, 2), strict=True):
            item = items.items[image]
            offered = [texts[i] for i in rows[:, 1]]
            assert (rows[:, 0] == image).all() and len(set(offered)) == 4
            assert set(offered) <= set(item.texts)
            places.append(offered.index(item.texts[item.correct]))  # raises if it is not there
    assert len(set(places)) > 1  # the right one is not always first
    assert len({float(e.sum()) for _, e, _, _ in calls}) == 6  # fresh noise every step


def passes_of(model, adapter, items, **how):
    given = {"seed": 0, "batch_pairs": 8, "negatives": None, "drawing": False, "progress": False}
    return sources.Passes(model, adapter, items, None, ONE, **{**given, **how})


def test_a_step_takes_as_many_items_as_fit_and_one_at_least(tiny, monkeypatch):
    def scores(model, items, *rest, **how):
        return torch.rand(len(items.items), items.shape[0] * items.shape[1])

    monkeypatch.setattr(sources, "evaluate_items", scores)
    adapter = LoRA(tiny)
    two, ten = few_shot("comvg", 3), few_shot("refcoco", 3)
    for items, pairs, negatives, count, columns in (
        (two, 1, None, 1, 2), (two, 3, None, 1, 2), (two, 4, None, 2, 2), (two, 99, None, 3, 2),
        (two, 4, 1, 2, 2), (ten, 10, None, 1, 10), (ten, 20, None, 2, 10), (ten, 8, 3, 2, 4),
        (ten, 8, 8, 1, 9), (ten, 20, 9, 2, 10), (ten, 20, 10, 2, 10), (ten, 20, 40, 2, 10),
    ):  # fmt: skip
        source = passes_of(tiny, adapter, items, batch_pairs=pairs, negatives=negatives)
        assert (source.count, source.columns) == (count, columns), (pairs, negatives)


def test_texts_are_encoded_once_where_nothing_changes_them(tiny):
    items = few_shot("comvg", 1)
    assert passes_of(tiny, SoftPrompt(tiny), items).prompts is None
    kept = passes_of(tiny, LoRA(tiny), items).prompts
    assert torch.equal(kept, tiny.encode_text(list(items.texts))) and not kept.requires_grad


@pytest.mark.parametrize(
    ("task", "correct", "rows"),
    [("comvg", [0, 1], [[0], [1]]), ("winoground", [0, 1], [[0, 3], [1, 2]])],
)
def test_the_drawing_loss_is_that_of_the_right_pairs(tiny, task, correct, rows):
    source = passes_of(tiny, LoRA(tiny), few_shot(task, 2))
    e = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    columns = source.columns
    eps = e + torch.arange(1.0, 2 * columns + 1).view(-1, 1, 1, 1)  # pair k misses by k + 1
    want = [(columns * i + k + 1) ** 2 for i, own in enumerate(rows) for k in own]
    got = source._drawing(eps, e, torch.tensor(correct))
    assert got.item() == pytest.approx(sum(want) / len(want), rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_drawing_is_looked_at_where_it_counts(tiny, monkeypatch, weight):
    calls, plain = [], sources.Passes._drawing

    def drawing(self, *given):
        calls.append(len(given))
        return plain(self, *given)

    monkeypatch.setattr(sources.Passes, "_drawing", drawing)
    fit(tiny, LoRA(tiny), few_shot("comvg", 1), steps=1, diffusion_weight=weight, **QUICK)
    assert len(calls) == (weight > 0)


def test_validation_on_the_cache_keeps_no_graph(tiny, cached, monkeypatch):
    labelled, rest, parts = cached
    scoring, seen = Scoring(time_steps=2), []
    source = sources.Cached(
        tiny, HeadWeights(tiny, scoring), labelled, rest, scoring, parts[1.0], False
    )

    def pool(self, *given):
        seen.append(torch.is_grad_enabled())
        return plain(self, *given)

    plain = HeadWeights.pool
    monkeypatch.setattr(HeadWeights, "pool", pool)
    accuracy, loss = source.validate()
    assert 0 <= accuracy <= 1 and loss > 0
    assert source.batch(0).scores.requires_grad and seen == [False, True]


def test_settings_at_the_edge_of_the_range_are_taken(tiny):
    for how in ({"batch_pairs": 1, "margin": 0.0}, {"negatives": 1}):
        found = fit(tiny, LoRA(tiny), few_shot("comvg", 1), steps=1, **{**QUICK, **how})
        assert found.history["step"].tolist() == [0, 1]
    for how in ({"batch_pairs": 0}, {"negatives": 0}):
        with pytest.raises(ValueError, match="too small"):
            fit(tiny, LoRA(tiny), few_shot("comvg", 1), steps=1, **{**QUICK, **how})


def test_wrong_settings_of_a_fit_are_refused(tiny, unchecked):
    items = few_shot("comvg", 1)
    for bad, words in (
        ({"loss": "mse"}, "hinge, infonce"),
        ({"steps": -1}, "steps=-1"),
        ({"margin": -1.0}, "margin=-1"),
    ):
        with pytest.raises(ValueError, match=words):
            fit(tiny, SoftPrompt(tiny), items, **{**QUICK, **bad})


# -- choices and files -----------------------------------------------------------------------------


def test_choosing_takes_the_most_accurate_and_then_the_lowest_loss():
    def made(accuracy, loss):
        return type("Made", (), {"accuracy": accuracy, "loss": loss})()

    fits = {"a": made(0.5, 0.1), "b": made(0.7, 0.9), "c": made(0.7, 0.8)}
    assert choose(fits) == "c"
    with pytest.raises(ValueError, match="blind"):
        choose({**fits, "blind": made(None, None)})


def test_zero_shot_choices_find_the_layer_that_knows(tiny, cached, monkeypatch):
    from dsd_tutorial.prompt_learning import choosing

    _, rest, parts = cached
    whole = parts[1.0][1]
    best = whole.by_reading["all"]
    known = dataclasses.replace(whole, by_reading={"all": best})
    monkeypatch.setattr(choosing, "item_components", lambda *a, **k: known)
    found = choose_scoring(tiny, rest, time_steps=2, token_masks=["all"])
    assert found.layers == (known.layers[2],) and found.error_weight == 0
    right = [[float(i == item.correct) for i in range(2)] for item in rest.items]
    known = dataclasses.replace(known, errors=torch.tensor(right).view(-1, 1).repeat(1, 2))
    mixes = [(1.0, 0.0), (0.0, 1.0)]
    found = choose_scoring(tiny, rest, time_steps=2, token_masks=["all"], mixes=mixes)
    assert (found.attention_weight, found.error_weight) == (0.0, 1.0)


def test_zero_shot_choices_are_no_worse_than_the_default_on_their_own_items(tiny):
    items = few_shot("comvg", 2)
    chosen = choose_scoring(tiny, items, time_steps=1, progress=False)
    accuracy = [
        items.accuracy(evaluate_items(tiny, items, None, s, progress=False).flatten())["accuracy"]
        for s in (chosen, ONE)
    ]
    assert accuracy[0].mean() >= accuracy[1].mean()


def test_components_without_the_token_mask_are_refused(tiny, cached):
    _, rest, parts = cached
    with pytest.raises(ValueError, match="not 'eos'"):
        fit(
            tiny, HeadWeights(tiny, Scoring(time_steps=2)), rest, parts=(parts[1.0][1], None),
            scoring=Scoring(time_steps=2, token_mask="eos"), validation=False, progress=False,
        )  # fmt: skip


@pytest.mark.parametrize("kind", ["soft", "attention", "lora", "weights"])
def test_what_is_saved_comes_back(tiny, tmp_path, kind):
    scoring = Scoring(time_steps=2, token_mask="words", layers=["mid", "up.0.0"])
    adapter = {
        "soft": lambda: SoftPrompt(tiny, where="before", n=3),
        "attention": lambda: AttentionPrompt(tiny, layers=["up"], seed=4),
        "lora": lambda: LoRA(tiny, rank=2, layers=["mid.0"], seed=5),
        "weights": lambda: HeadWeights(tiny, scoring, error=True, on=LoRA(tiny, rank=1)),
    }[kind]()
    with torch.no_grad():
        for p in adapter.parameters():
            p.add_(0.5)
    from dsd_tutorial.prompt_learning import save

    again, read = load(save(adapter, tiny, tmp_path / "kept", scoring), tiny)
    assert read == scoring and again.config() == adapter.config()
    assert again.state_dict().keys() == adapter.state_dict().keys()
    for name, value in adapter.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_files_of_another_model_or_shape_are_refused(tiny, tmp_path):
    from dsd_tutorial.prompt_learning import save

    folder = save(SoftPrompt(tiny, n=3), tiny, tmp_path / "kept")
    about = json.loads((folder / "adapter.json").read_text())
    for change, words in (
        ({"model_sha256": "0" * 64}, "000000000000; this model is tiny"),
        ({"config": {**about["config"], "n": 4}}, r"\[3, 32\].*\[4, 32\]"),
        ({"kind": "magic"}, "soft prompt"),
    ):
        (folder / "adapter.json").write_text(json.dumps({**about, **change}))
        with pytest.raises(AdapterMismatch, match=words):
            load(folder, tiny)
    with pytest.raises(FileNotFoundError, match="adapter.json"):
        load(tmp_path, tiny)


def test_a_missing_or_a_further_number_is_refused(tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    from dsd_tutorial.prompt_learning import save

    folder = save(SoftPrompt(tiny, n=3), tiny, tmp_path / "several" / "below")
    assert save(SoftPrompt(tiny, n=3), tiny, folder) == folder  # over what is there
    file = folder / "adapter.safetensors"
    whole = load_file(file)
    for tensors, name in (
        ({**whole, "more": torch.zeros(1)}, "(?s)do not belong together.*Unexpected key.*more"),
        ({"residual.start": whole["residual.start"]}, "(?s)Missing key.*residual.padding"),
    ):
        save_file(tensors, file)
        with pytest.raises(AdapterMismatch, match=name):
            load(folder, tiny)


# -- what is compared, averaged, drawn and refused ------------------------------------------------


def test_zero_shot_choices_try_the_last_layers_and_single_steps_of_several(
    tiny, cached, monkeypatch
):
    from dsd_tutorial.prompt_learning import choosing

    _, rest, parts = cached
    whole, asked = parts[1.0][1], []
    monkeypatch.setattr(choosing, "item_components", lambda *a, **k: whole)

    def judge(items, scores):
        asked.append(scores)
        return 0.5, 1.0

    monkeypatch.setattr(choosing, "judge", judge)
    first = choose_scoring(tiny, rest, time_steps=2, token_masks=["all"])
    assert first.layers is None and first.time_steps == whole.steps  # of equals the first
    last = {name.split(".")[0]: i for i, name in enumerate(whole.layers)}
    want = whole.by_reading["all"][:, :, list(last.values())].mean((1, 2, 3))
    want = want.view(len(rest.items), -1)
    assert sum(torch.allclose(scores, want, atol=1e-5) for scores in asked) >= 1
    assert len(asked) == (len(whole.layers) + 2) * 3  # both steps, and each alone
    first_step = {"all": whole.by_reading["all"][:, :1]}
    one = dataclasses.replace(whole, by_reading=first_step, steps=whole.steps[:1], errors=None)
    monkeypatch.setattr(choosing, "item_components", lambda *a, **k: one)
    asked.clear()
    choose_scoring(tiny, rest, time_steps=1, token_masks=["all"])
    assert len(asked) == len(whole.layers) + 2


def test_of_equally_accurate_choices_the_lower_loss_wins(tiny, cached, monkeypatch):
    from dsd_tutorial.prompt_learning import choosing

    _, rest, parts = cached
    whole, losses = parts[1.0][1], iter([0.9, 0.2, 0.5, *[0.7] * 100])
    monkeypatch.setattr(choosing, "item_components", lambda *a, **k: whole)
    monkeypatch.setattr(choosing, "judge", lambda items, scores: (0.5, next(losses)))
    found = choose_scoring(tiny, rest, time_steps=2, token_masks=["all"])
    assert found.time_steps == (whole.steps[0],)  # the second that is tried


def test_the_shown_accuracy_is_a_running_mean(monkeypatch):
    shares = iter([1.0, 0.0, 1.0, 1.0])
    monkeypatch.setattr(Loop, "_step", lambda self, optimiser, step: (0.1, next(shares)))
    loop = looped([(0.5, 0.1)] * 5, 4)
    want = [0.5, 1.0, 0.9, 0.9 * 0.9 + 0.1, 0.9 * (0.9 * 0.9 + 0.1) + 0.1]
    assert [row["accuracy"] for row in loop.rows] == pytest.approx(want)


@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_validation_is_asked_now_and_then_and_at_the_end(every):
    loop = looped([(0.5, 0.1)] * 9, 7, every=every)
    checked = [r["step"] for r in loop.rows if not np.isnan(r["validation_accuracy"])]
    assert checked == sorted({0, 7, *range(every, 8, every)})


def test_drawing_is_added_with_its_weight_and_steep_losses_are_clipped():
    for weight, gradient in ((0.0, 0.0), (0.25, 0.25), (50.0, 1.0)):
        adapter = OneNumber()
        scores = torch.zeros(1, 2)

        def batch(step, number=adapter.number, scores=scores):
            return sources.Batch(scores + 0 * number, torch.tensor([0]), number)

        source = type("Source", (), {"batch": staticmethod(batch)})()
        loop = Loop(
            adapter, source, infonce, 1, 1, 0.1, weight, Meter(), Memory(torch.device("cpu")),
        )  # fmt: skip
        loop._step(torch.optim.SGD([adapter.number], lr=0.1), 1)
        assert float(adapter.number.grad) == pytest.approx(gradient, abs=1e-5)
        assert float(adapter.number) == pytest.approx(1 - 0.1 * gradient, abs=1e-5)


def test_ties_are_wrong_and_a_lone_right_one_is_right():
    scores = torch.tensor([[1.0, 1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [-5.0, -6.0, -7.0]])
    found = objectives.right(scores, torch.tensor([0, 0, 0, 0]))
    assert found.tolist() == [False, True, False, True]


def test_of_a_long_list_the_right_one_is_always_kept_and_its_place_told(tiny):
    items = make_task("refcoco", 6)
    source = passes_of(tiny, Adapter(), items, negatives=3)
    total = source.pairs.shape[1]
    assert source.columns == 4 < total
    chosen = torch.arange(6)
    for _ in range(20):
        kept, place = source._candidates(chosen)
        assert bool((kept.gather(1, place[:, None])[:, 0] == source.correct).all())
        assert kept.shape == (6, 4) and bool((kept.diff(dim=1) > 0).all())
    everything = passes_of(tiny, Adapter(), items, negatives=total - 1)
    assert everything.columns == total
    kept, place = everything._candidates(chosen)
    assert torch.equal(kept[0], torch.arange(total)) and torch.equal(place, source.correct)


def test_each_round_takes_every_item_once(tiny):
    source = passes_of(tiny, Adapter(), few_shot("comvg", 4), batch_pairs=8)
    assert source.count == 4
    for _ in range(3):
        assert sorted(source._next_items().tolist()) == [0, 1, 2, 3] and source.waiting == []


def test_without_validation_only_the_labelled_items_are_counted_and_computed(tiny, monkeypatch):
    asked = []
    real = sources.item_components

    def counted(model, items, *more, **how):
        asked.append(len(items.items))
        return real(model, items, *more, **how)

    monkeypatch.setattr(sources, "item_components", counted)
    how = {"scoring": ONE, "steps": 1, "progress": False}
    labelled, rest = few_shot("comvg", 2), make_task("comvg", 3)
    found = fit(tiny, HeadWeights(tiny, ONE), labelled, validation=False, **how)
    assert asked == [2] and found.cost.labels == 2
    found = fit(tiny, HeadWeights(tiny, ONE), labelled, validation=rest, **how)
    assert asked == [2, 2, 3] and found.cost.labels == 5


def test_a_scoring_is_a_fixed_thing_whatever_it_was_made_from():
    found = Scoring(time_steps=[100, 500], layers=["mid.0", "up"])
    assert found == Scoring(time_steps=(100, 500), layers=("mid.0", "up"))
    assert hash(found) == hash(Scoring(time_steps=(100, 500), layers=("mid.0", "up")))


@pytest.mark.parametrize(
    ("over", "kind"), [((), "signed"), (("layer",), "hard"), (("x",), "signed")]
)
def test_weights_over_nothing_or_of_another_kind_are_refused(tiny, unchecked, over, kind):
    with pytest.raises(ValueError, match="weights go over some of"):
        HeadWeights(tiny, ONE, over=over, kind=kind)


def test_layers_of_fewer_heads_have_no_weight_where_they_have_no_head(tiny):
    adapter = HeadWeights(tiny, ONE)
    adapter.heads = [4, 2]
    torch.testing.assert_close(
        adapter.average, torch.tensor([[0.25] * 4, [0.5, 0.5, 0.0, 0.0]]) / 2
    )


def test_units_do_not_depend_on_what_was_learned_nor_on_the_scores_weight(tiny, cached):
    labelled, _, parts = cached
    known = parts[1.0][0]
    found = []
    for weight in (1.0, 4.0):
        scoring = Scoring(time_steps=2, attention_weight=weight, error_weight=weight)
        adapter = HeadWeights(tiny, scoring, over=["layer"], error=True)
        adapter.unit.fill_(7.0)
        adapter.unit_error.fill_(7.0)
        adapter.calibrate(known, labelled, scoring)
        found.append((adapter.unit.clone(), adapter.unit_error.clone()))
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(4 * found[0][1], found[1][1])


def test_guided_weights_do_not_depend_on_the_components_size(tiny, cached):
    labelled, _, parts = cached
    known, found = parts[1.0][0], []
    for size in (1.0, 20.0):
        larger = dataclasses.replace(known, by_reading={"all": size * known.by_reading["all"]})
        how = {"over": ("layer", "head"), "parts": larger}
        found.append(gradient_guided(tiny, labelled, Scoring(time_steps=2), **how).weights())
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)
