"""Fitting: losses by hand, planted signals found, best step kept, files that belong together."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsd_tutorial.attention import choose_layers
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
    sources,
)
from dsd_tutorial.prompt_learning.scoring import item_pairs
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
    cold = infonce(scores, positive, temperature=0.5)
    torch.testing.assert_close(cold, infonce(2 * scores, positive))


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


def test_the_error_term_is_weighted_when_it_knows(tiny, cached):
    labelled, rest, parts = cached
    scoring = Scoring(time_steps=2)
    pair = [dataclasses.replace(p, errors=p.by_mask["all"][:, :, 2].mean(-1)) for p in parts[-1.0]]
    adapter = HeadWeights(tiny, scoring, over=("step",), kind="softmax", error=True)
    found = fit(
        tiny, adapter, labelled, scoring=scoring, validation=rest, parts=tuple(pair),
        steps=60, check_every=5, loss="infonce", progress=False,
    )  # fmt: skip
    assert found.accuracy > found.zero_shot[1] + 0.2  # here the error term speaks against
    assert adapter.error_weights(scoring).max() < 0 and adapter.size == 2 + 2


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
    found = fit(tiny, adapter, items, steps=9, check_every=1, patience=2, **how)
    assert (found.best_step, found.accuracy, found.loss) == (2, 0.6, 0.8)
    assert found.stopped == "patience" and len(states) == 4  # two checks without gain
    for name, value in adapter.state_dict().items():
        assert torch.equal(value, states[2][name])  # the state after step 2


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

    def passes(model, adapter, latents, texts, pairs, t, e, scoring, *, contexts):
        calls.append((t, e, texts, pairs))
        return torch.zeros(len(pairs), requires_grad=True), torch.zeros(len(pairs), 4, 16, 16)

    monkeypatch.setattr(sources, "pass_scores", passes)
    items = few_shot("refcoco", 4)
    fit(
        tiny, SoftPrompt(tiny), items, steps=6, time_steps=2, negatives=3,
        scoring=ONE, validation=False, progress=False, batch_pairs=8,
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


def test_wrong_settings_of_a_fit_are_refused(tiny):
    items = few_shot("comvg", 1)
    for bad, words in (
        ({"loss": "mse"}, "hinge, infonce"),
        ({"steps": -1}, "steps=-1"),
        ({"margin": -1.0}, "margin=-1"),
        ({"layer": "up"}, "unknown setting layer"),
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
    best = whole.by_mask["all"]
    known = dataclasses.replace(whole, by_mask={"all": best})
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
            tiny, HeadWeights(tiny, Scoring(time_steps=2)), rest, time_steps=2, token_mask="eos",
            parts=(parts[1.0][1], None), validation=False, progress=False,
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
        ({"config": {**about["config"], "n": 4}}, r"\(3, 32\).*asks for \(4, 32\)"),
        ({"kind": "magic"}, "soft prompt"),
    ):
        (folder / "adapter.json").write_text(json.dumps({**about, **change}))
        with pytest.raises(AdapterMismatch, match=words):
            load(folder, tiny)
    with pytest.raises(FileNotFoundError, match="adapter.json"):
        load(tmp_path, tiny)
