"""The few-shot tables: one computation for many methods, true costs, and rows that go on."""

import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch

from dsd_tutorial.course.records import ResultsError
from dsd_tutorial.matching import components
from dsd_tutorial.matching.cost import measure
from dsd_tutorial.matching.metrics import seeds_difference
from dsd_tutorial.prompt_learning import (
    HeadWeights,
    Scoring,
    choose_readings,
    evaluate_items,
    fit,
    reading_components,
)
from dsd_tutorial.prompt_learning.methods import (
    AttentionPlusError,
    DiffusionClassifier,
    ZeroShotAttention,
)
from dsd_tutorial.prompt_learning.reading_sums import STRUCTURE
from dsd_tutorial.shapes.tasks import few_shot as labelled
from dsd_tutorial.shapes.tasks import make_task, validation_set
from lab.measuring import few_shot, few_shot_task, lora_settings, pairs
from lab.measuring.few_shot import FewShotPlan, evaluate_few_shot, measure_one, summary
from lab.measuring.few_shot_methods import (
    BY_PASSES,
    CACHED,
    METHODS,
    ON_CLIP,
    ON_READINGS,
    ZERO_SHOT,
)
from lab.measuring.few_shot_task import TaskSetup
from lab.measuring.few_shot_verdicts import ADAPTERS, READS, chosen_adapter, hits_of, verdicts
from lab.measuring.lora_settings import evaluate_lora_settings
from lab.measuring.pairs import PairCache, measure_pairs


@pytest.fixture(scope="module")
def pair_cache(tiny, tmp_path_factory):
    return PairCache(tiny, tmp_path_factory.mktemp("seen"), steps=2, progress=False)


def known(task):
    """A validation set that is smaller than the fixed one."""
    return make_task(task, 6, "validation")


@pytest.fixture(scope="module")
def setup(pair_cache):
    setup = TaskSetup("comvg", pair_cache, n=6, most=4, updates=2, fit_steps=1)
    setup.validation_items = known("comvg")
    return setup


# -- what is computed once ---------------------------------------------------------------------


@pytest.mark.parametrize("task", ["comvg", "refcoco", "winoground"])
def test_parts_are_those_of_matching_and_of_the_diffusion_classifier(tiny, pair_cache, task):
    items = make_task(task, 2)
    seen = pair_cache.get(items, "test")
    rows = torch.stack([torch.from_numpy(index) for index in items.pairs()], 1)
    masks = tuple(seen.components.by_reading)
    how = {"steps": 2, "token_mask": masks, "errors": True, "progress": False}
    want = components(tiny, items.images(64), items.texts, rows, **how)
    assert (want.layers, want.steps) == (seen.layers, seen.steps)
    for mask in masks:
        torch.testing.assert_close(seen.components.by_reading[mask], want.by_reading[mask])
    torch.testing.assert_close(seen.components.errors, want.errors, atol=1e-4, rtol=0)
    scores, cost = DiffusionClassifier(steps=2).score(tiny, items, progress=False)
    torch.testing.assert_close(seen.evidence(), scores, atol=1e-6, rtol=1e-4)
    assert seen.cost(error=items.shape[0] > 1).unet_passes == cost.unet_passes


def test_blocks_are_read_again_and_shared_with_longer_tasks(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "BLOCK", 2)
    pair_cache = PairCache(tiny, tmp_path, steps=1, progress=False)
    short = pair_cache.get(make_task("comvg", 4), "test")
    with measure(tiny) as meter:
        again = pair_cache.get(make_task("comvg", 4), "test")
    assert meter.unet_passes == 0 and torch.equal(again.table, short.table)
    with measure(tiny) as meter:
        long = pair_cache.get(make_task("comvg", 6), "test")
    assert meter.unet_passes == 2 * (2 + 2)  # two items: two pairs and two empty prompts each
    assert torch.equal(long.pick(range(4)).table, short.table)
    assert torch.equal(long.pick(range(4)).squares, short.squares)
    assert long.pick(range(4)).cost(error=True).unet_passes == 4 * 4
    for other in (
        PairCache(tiny, tmp_path, steps=2, progress=False),
        PairCache(tiny, tmp_path, 1, seed=1),
    ):
        other.progress = False
        with measure(tiny) as meter:
            found = other.get(make_task("comvg", 2), "test")
        assert meter.unet_passes and found.steps == other.grid


def test_other_items_under_the_same_name_and_half_files_are_computed_anew(tiny, tmp_path):
    pair_cache = PairCache(tiny, tmp_path, steps=1, progress=False)
    first = pair_cache.get(make_task("comvg", 2), "test")
    other = pair_cache.get(make_task("comvg", 2, seed=5), "test")
    assert not torch.equal(first.table, other.table)
    for path in tmp_path.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(pair_cache.get(make_task("comvg", 2), "test").table, first.table)


# -- what a method would cost alone ------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [
    ("log_sum_exp", ZeroShotAttention), ("log_sum_exp_error", AttentionPlusError),
])  # fmt: skip
def test_zero_shot_chooses_and_costs_what_the_method_alone_does(tiny, setup, name, kind):
    alone = kind(steps=2)
    fitting = alone.fit(tiny, None, known("comvg"), progress=False)
    scores, scoring = alone.score(tiny, make_task("comvg", 6), progress=False)
    outcome = measure_one(setup, name)
    best = setup.choices[name == "log_sum_exp_error"]
    assert best == alone.choice
    assert outcome.cost.unet_passes == fitting.unet_passes + scoring.unet_passes
    assert (outcome.cost.labels, outcome.cost.parameters) == (6, 0) and outcome.cost.seconds > 0
    assert outcome.hits.shape == (6,) and set(outcome.hits) <= {0, 1}
    if best.steps == setup.test.steps:  # else the noise of a time step is another
        reached = make_task("comvg", 6).accuracy(scores.flatten())["accuracy"]
        assert outcome.hits.tolist() == reached.astype(int).tolist()


@pytest.mark.parametrize("task", ["comvg", "refcoco"])
def test_readings_are_chosen_and_fitted_as_without_the_cache(tiny, pair_cache, task):
    """And cost as much: the prior where one image chooses among texts, the error at all steps."""
    setup = TaskSetup(task, pair_cache, n=3, most=2)
    setup.validation_items = known(task)
    inner, grid = pair_cache.inner, pair_cache.grid
    assert inner == (750,) and grid == (250, 750)
    prior = "validation" if task == "refcoco" else None
    how = {"steps": inner, "prior": prior, "progress": False}
    whole = {**how, "steps": grid}  # the noise of a time step goes by its place among them
    parts = reading_components(tiny, known(task), STRUCTURE, **whole)
    chosen = choose_readings(tiny, known(task), parts=parts, **how)
    assert setup.sums[0].readings == chosen.readings and setup.sums[0].reads.steps == inner
    # in units of a spread that is tiny in an untrained model: rounding counts, by the processor
    torch.testing.assert_close(
        setup.sums[0].score(setup.validation.structure), chosen.score(parts), atol=1e-2, rtol=1e-3
    )
    outcome = measure_one(setup, "attention")
    chosen = choose_readings(tiny, known(task), **how)  # without the cache it reads these alone
    with measure(tiny) as meter:
        chosen.scores(tiny, make_task(task, 3), progress=False)
    assert outcome.cost.unet_passes == chosen.cost.unet_passes + meter.unet_passes
    assert (outcome.cost.labels, outcome.cost.parameters) == (6, 0)
    plain = measure_one(setup, "attention_plain").cost.unet_passes
    assert plain < outcome.cost.unet_passes if prior else plain == outcome.cost.unet_passes

    outcome = measure_one(setup, "readings_error", 2, 1)
    assert outcome.cost.labels == 2 + 6
    assert outcome.cost.parameters == len(STRUCTURE) * 3 + 2  # three layers, two time steps


def test_prior_is_taken_off_where_it_is_known_and_nowhere_else(tiny, pair_cache):
    data = pair_cache.get(make_task("vqa", 2), "test")
    read, plain = (parts.by_reading["peak"] for parts in (data.structure, data.plain_structure))
    assert read[:, 0].isnan().all() and not read[:, 1].isnan().any()
    texts = list(data.items.texts)
    prior = (plain - read)[:, 1, :, 0]
    first = [texts.index(texts[j]) for j in data.items.pairs()[1]]
    torch.testing.assert_close(prior, prior[first])  # a text has one prior, whatever the image
    two = pair_cache.get(make_task("winoground", 2), "test")
    assert two.prior is None and two.prior_cost(3).unet_passes == 0


def test_weights_read_from_the_cache_are_those_fitted_without(tiny, setup, monkeypatch):
    form = ("signed", ("layer", "head"))
    monkeypatch.setattr("lab.measuring.few_shot_methods.FORMS", (form,))
    choice = setup.plain_choices[False]
    monkeypatch.setattr(setup, "choices", setup.plain_choices)  # one start
    outcome = measure_one(setup, "head_weights", 4, 1)
    scoring = Scoring(choice.steps, token_mask=choice.token_mask)
    adapter = HeadWeights(tiny, scoring, over=form[1], kind=form[0])
    few, items = labelled("comvg", 4, 1), make_task("comvg", 6)
    with measure(tiny) as meter:
        how = {"scoring": scoring, "validation": known("comvg"), "progress": False}
        fitted = fit(tiny, adapter, few, seed=1, **how)
        scores = evaluate_items(tiny, items, fitted.adapter, scoring, progress=False)
    assert outcome.hits.tolist() == items.accuracy(scores.flatten())["accuracy"].tolist()
    assert outcome.cost.unet_passes == meter.unet_passes
    assert outcome.cost.labels == 4 + 6 and outcome.cost.parameters == adapter.size


def test_weights_begin_at_the_chosen_reading_and_only_get_better_on_validation(setup, monkeypatch):
    method = "lab.measuring.few_shot_methods.{}"
    for error, name in enumerate(("log_sum_exp", "log_sum_exp_error")):
        start = measure_one(setup, name).validation
        learned = measure_one(setup, ("head_weights", "head_weights_error")[error], 4, 0)
        # fitting keeps the start unless accuracy rises, or the loss falls at equal accuracy
        assert learned.validation[0] >= start[0]
        whole = setup.few(4, 0).cost(error=bool(error)) + setup.validation.cost(error=bool(error))
        assert learned.cost.unet_passes > whole.unet_passes
    monkeypatch.setattr(method.format("FORMS"), (("signed", ("step", "layer", "head")),))
    monkeypatch.setattr(setup, "plain_choices", setup.choices)
    choice = setup.choices[0]
    read = setup.test.components.select(layers=choice.layers, steps=choice.steps)
    learned = measure_one(setup, "head_weights", 4, 0)
    assert learned.cost.parameters == read.scores[0].numel()
    torch.testing.assert_close(
        choice.score(read), choice.score(setup.test.components), atol=0, rtol=0
    )


def test_prompts_count_their_own_passes_and_the_choice(tiny, setup):
    setup.short_choice, setup.test  # noqa: B018 - computed before, so that only fitting is counted
    assert len(setup.short_choice.steps) == 1
    with measure(tiny) as meter:
        outcome = measure_one(setup, "soft_prompt_error", 2, 0)
    error = setup.short_choice.error_weight != 0
    only_to_compare = 2 * 6 * (1 + error)
    choosing = setup.few_validation.cost(error=True).unet_passes
    assert outcome.cost.unet_passes == meter.unet_passes - only_to_compare + choosing
    assert outcome.cost.labels == 2 + 6 and outcome.cost.parameters > 0


@pytest.mark.parametrize("task", ["comvg", "refcoco"])
def test_prompts_on_attention_alone_begin_at_the_short_log_sum_exp(pair_cache, task, monkeypatch):
    """Before the first update they are what the row of their start says, the prior taken off."""
    monkeypatch.setattr("lab.measuring.few_shot_methods.ATTENTION_UPDATES", 0)
    setup = TaskSetup(task, pair_cache, n=3, most=2, fit_steps=1)
    setup.validation_items = known(task)
    choice = setup.short_attention
    assert len(choice.steps) == 1 and choice.error_weight == 0
    if task == "refcoco":
        assert (choice.token_mask, choice.steps) == ("all", pair_cache.inner)
    start = measure_one(setup, "log_sum_exp_short")
    for method in ("soft_prompt", "lora"):
        begun = measure_one(setup, method, 2, 1)
        assert begun.hits.tolist() == start.hits.tolist() and begun.chosen.startswith(start.chosen)
        assert begun.cost.unet_passes > start.cost.unet_passes
        assert (begun.cost.labels, start.cost.labels) == (2 + 6, 6)
    prior = setup.test.prior_cost(1) + setup.validation.prior_cost(1)
    alone = setup.test.cost(1).unet_passes + setup.validation.cost().unet_passes
    assert start.cost.unet_passes == alone + prior.unet_passes


def test_choices_are_made_on_the_fixed_validation_set(pair_cache):
    assert TaskSetup("vqa", pair_cache).validation_items.items == validation_set("vqa").items


def test_clip_methods_need_no_pass(tiny, setup):
    with measure(tiny) as meter:
        found = {name: measure_one(setup, name, 2, 0) for name in ("clip", "tip", "random")}
    assert meter.unet_passes == 0 == found["tip"].cost.unet_passes
    assert (found["clip"].cost.labels, found["tip"].cost.labels) == (0, 2 + 6)


# -- the run -----------------------------------------------------------------------------------

SMALL = {
    "tasks": ("comvg", "winoground"), "shots": 2, "seeds": (0, 1), "n_items": 4, "steps": 2,
    "curve_shots": (1, 2), "progress": False,
    "methods": ("clip", "tip_tuned", "attention", "guided_error"),
}  # fmt: skip


def test_a_run_goes_on_after_ctrl_c_and_repeats_nothing(tiny, tmp_path, monkeypatch):
    options = {**SMALL, "output": tmp_path / "few_shot.csv", "cache": tmp_path / "cache"}
    monkeypatch.setattr("lab.measuring.few_shot_task.validation_set", known)
    real, calls = METHODS["tip_tuned"], []

    def swallowed(setup, shots, seed):
        calls.append((shots, seed))
        if len(calls) == 2:
            try:  # as a training loop does that keeps the best so far
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                pass
        return real(setup, shots, seed)

    monkeypatch.setitem(METHODS, "tip_tuned", swallowed)
    with pytest.raises(KeyboardInterrupt):
        evaluate_few_shot(tiny, **options)
    items = pd.read_csv(tmp_path / "few_shot_items.csv")
    assert [(r.method, r.seed) for r in items.itertuples()] == [("clip", 0), ("tip_tuned", 0)]
    assert list(pd.read_csv(tmp_path / "few_shot.csv").method) == ["clip"]  # the others lack seeds

    path = evaluate_few_shot(tiny, **options)
    assert calls[:3] == [(2, 0), (2, 1), (2, 1)]  # what was interrupted is measured again
    table, items = pd.read_csv(path), pd.read_csv(tmp_path / "few_shot_items.csv")
    both = {("clip", 0), ("tip_tuned", 2), ("attention", 0), ("guided_error", 2)}
    want = {("comvg", *pair) for pair in both | {("tip_tuned", 1), ("guided_error", 1)}}
    want |= {("winoground", *pair) for pair in both}
    assert {tuple(row) for row in table[["task", "method", "shots"]].values} == want
    assert len(table) == len(want) and set(table.seeds) == {1, 2}
    assert (table.low <= table.accuracy).all() and (table.accuracy <= table.high).all()
    assert (table.model_sha256 == tiny.sha256).all() and (table.seconds > 0).all()
    for row in table.itertuples():
        seeds = (0,) if row.seeds == 1 else (0, 1)
        hits = hits_of(items, row.task, row.method, row.shots, seeds)
        assert hits.shape == (row.seeds, 4) and hits.mean() == pytest.approx(row.accuracy)

    monkeypatch.setattr(few_shot, "measure_one", lambda *job: pytest.fail(f"measured {job} again"))
    path.unlink()
    assert pd.read_csv(evaluate_few_shot(tiny, **options)).equals(table)  # made from the items
    marks = pd.read_csv(tmp_path / "few_shot_bars.csv")
    assert {(r.task, r.rival) for r in marks.itertuples()} == {
        ("comvg", "attention"), ("comvg", "clip"),
        ("winoground", "attention"), ("winoground", "clip"),
    }  # fmt: skip
    assert set(marks.adapter) == {"guided_error"}
    with pytest.raises(ResultsError, match="rows of 4 test items; requested are 5"):
        evaluate_few_shot(tiny, **{**options, "n_items": 5})


@pytest.mark.parametrize(("options", "match"), [
    ({"methods": ("clip", "magic")}, "methods='magic': Input should be 'random', 'clip'"),
    ({"tasks": ("chess",)}, "tasks='chess': Input should be 'comvg'"),
    ({"seeds": ()}, "seeds=.*at least 1 item"),
    ({"seeds": (1, 1)}, "twice"),
    ({"curve_shots": (0, 2)}, "curve_shots=0: .*greater than 0"),
])  # fmt: skip
def test_bad_plans_are_refused_before_anything_is_loaded(options, match):
    with pytest.raises(ValueError, match=match):
        evaluate_few_shot("no such model", **options)


def test_slow_methods_come_last_and_every_group_once():
    plan = FewShotPlan(tasks=("comvg", "vqa"), curve_shots=(1, 16, 32))
    groups = list(plan.groups())
    slow = [method in BY_PASSES for _, method, _ in groups]
    assert slow == sorted(slow) and len(set(groups)) == len(groups)
    per_task = len(METHODS) * 2 + 2 * (len(ON_CLIP) + len(CACHED)) + 2 * len(ON_READINGS)
    assert len(groups) == per_task and plan.most == 32
    assert FewShotPlan(curve=False).most == 16
    jobs = [tuple(job.values()) for job in plan.keys()]
    assert len(set(jobs)) == len(jobs) == 3 * len(groups) - 2 * 2 * len(ZERO_SHOT)


# -- bars --------------------------------------------------------------------------------------


def measured(task, method, shots, share, validation, seeds=(0, 1), n=40):
    """Rows in which the first `share` of the items are right, plus one item by seed."""
    return [
        {
            "task": task, "method": method, "shots": shots, "seed": seed, "validation": validation,
            "margin": 0.0, "hits": "".join("x" if i < share * n else "." for i in range(n)),
            "unet_passes": 10 * seed, "parameters": 3, "labels": 48, "seconds": 1.0,
        }
        for seed in seeds
    ]  # fmt: skip


def chosen_by(accuracies, tasks=("comvg",), seeds=(0, 1), shots=16):
    """Rows of few_shot_choice.csv."""
    return pd.DataFrame([
        {"task": task, "method": method, "shots": shots, "seed": seed, "accuracy": value, "n": 32}
        for task in tasks for method, value in accuracies.items() for seed in seeds
    ])  # fmt: skip


def test_one_adapter_is_chosen_by_what_it_reaches_on_items_that_it_did_not_choose_on():
    choice = pd.concat([
        chosen_by({"guided": 0.9, "step_weights": 0.6}),
        chosen_by({"guided": 0.5, "step_weights": 0.9, "head_weights": 1.0}, tasks=("vqa",)),
    ])  # fmt: skip
    assert chosen_adapter(choice, 16, (0, 1)) == "step_weights"  # the best mean
    assert chosen_adapter(choice, 16, (0, 1, 2)) is None  # a seed is missing
    assert chosen_adapter(choice, 8, (0, 1)) is None


def test_bars_say_what_is_passed():
    frame = pd.DataFrame(
        measured("comvg", "guided", 16, 1.0, validation=0.6)  # better on test: must not matter
        + measured("comvg", "step_weights", 16, 0.8, validation=0.9)
        + measured("comvg", "soft_prompt_error", 16, 1.0, validation=1.0, seeds=(0,))  # lacks one
        + measured("comvg", "lora", 16, 0.7, validation=0.7)
        + measured("comvg", "log_sum_exp_short", 0, 0.3, validation=0.5, seeds=(0,))
        + measured("comvg", "attention", 0, 0.3, validation=0.5, seeds=(0,))
        + measured("comvg", "attention_error", 0, 0.8, validation=0.7, seeds=(0,))
        + measured("comvg", "clip", 0, 0.2, validation=0.5, seeds=(0,))
    )
    choice = chosen_by({"guided": 0.5, "step_weights": 0.9})
    rows = list(verdicts(frame, choice, 16, (0, 1)))
    others = [row for row in rows if not row["chosen"]]
    assert [(row["adapter"], row["rival"]) for row in others] == [
        ("guided", "attention_error"), ("lora", "attention_error"), ("lora", "log_sum_exp_short"),
    ]  # fmt: skip
    rows = {row["rival"]: row for row in rows if row["chosen"]}
    assert set(rows) == {"attention_error", "clip"}  # the better zero-shot; the rest is missing
    assert {row["adapter"] for row in rows.values()} == {"step_weights"}
    tie, clear = rows["attention_error"], rows["clip"]
    assert (tie["value"], tie["passed"], tie["p_value"], tie["n"]) == (0, False, 1, 40)
    kinds = make_task("comvg", 40).kinds
    used = np.isin(kinds, ["relation", "bindings"])
    a, b = (
        hits_of(frame, "comvg", *m, (0, 1))[:, used] for m in (("step_weights", 16), ("clip", 0))
    )
    want = seeds_difference(a, b)
    assert clear["n"] == used.sum() < 40 and clear["seeds"] == 2
    assert (clear["value"], clear["low"]) == (want.value, want.low)
    assert clear["passed"] is (want.low > 0) is True and clear["p_value"] < 0.05


def test_halves_choose_on_one_half_and_test_on_the_other(tiny, tmp_path):
    setup = TaskSetup("comvg", PairCache(tiny, tmp_path, 2, progress=False), 4, 2)
    setup.validation_items = known("comvg")
    whole = setup.validation_items.items
    first, second = setup.halves
    for half, chosen_on, tested_on in ((first, 0, 1), (second, 1, 0)):
        assert half.validation_items.items == whole[chosen_on::2]
        assert half.test_items.items == half.test.items.items == whole[tested_on::2]
        size = setup.validation_items.shape[0] * setup.validation_items.shape[1]
        rows = setup.validation.squares.view(-1, size, 2)[tested_on::2]
        assert torch.equal(half.test.squares.view(-1, size, 2), rows)
    hits = [measure_one(half, "step_weights", 2).hits for half in (first, second)]
    assert all(len(h) == len(whole) // 2 for h in hits)
    assert len(setup.test_items.items) == 4  # the setup itself is as it was


def test_hits_survive_the_csv_and_a_missing_row_is_named(tmp_path):
    frame = pd.DataFrame(
        measured("vqa", "clip", 0, 0.0, 0.5, seeds=(0,)) + measured("vqa", "tip", 2, 1.0, 0.5)
    )
    frame.to_csv(tmp_path / "items.csv", index=False)
    back = pd.read_csv(tmp_path / "items.csv")
    assert hits_of(back, "vqa", "clip", 0, (3, 4)).tolist() == [[0] * 40] * 2
    assert hits_of(back, "vqa", "tip", 2).tolist() == [[1] * 40] * 2
    with pytest.raises(ResultsError, match="no tip on vqa at 2 shots with seeds \\[7\\]"):
        hits_of(back, "vqa", "tip", 2, (0, 7))
    clip, tip = summary(back, (0, 1))
    assert (tip["accuracy"], tip["unet_passes"], tip["seeds"], clip["seeds"]) == (1.0, 5, 2, 1)
    assert [row["method"] for row in summary(back, (0, 1, 2))] == ["clip"]


def test_seconds_and_passes_are_counted_for_what_is_read(tiny):
    found = measure_pairs(tiny, make_task("winoground", 2), (500,))
    assert found["table"].shape[:3] == (5, 8, 1) and found["squares"].shape == (8, 1)
    assert found["seconds"].shape == (2,) and bool((found["seconds"] > 0).all())
    first, second = found["empties"].view(2, 2, 2, 1).unbind(2)  # both texts of an image
    assert torch.equal(first, second)


def test_the_course_knows_the_methods_that_are_measured():
    assert tuple(READS) == tuple(METHODS)
    assert ADAPTERS == (*CACHED, *BY_PASSES)
    both = {name for name, reads in READS.items() if reads == "both"}
    assert both == {"released", *(name for name in METHODS if name.endswith("_error"))}


def test_settings_of_lora_are_counted_on_items_that_nothing_else_looks_at(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        few_shot_task, "validation_set", lambda task: make_task(task, 8, "validation")
    )
    monkeypatch.setattr(lora_settings, "FEW", 4)
    how = dict(
        tasks=("comvg",), shots=2, updates=2, looks=1, held=4, of=("own", "one layer"),
        output=tmp_path / "lora_settings.csv", cache=tmp_path / "cache", progress=False,
    )  # fmt: skip
    rows = pd.read_csv(evaluate_lora_settings(tiny, **how), index_col="setting")
    assert list(rows.index) == ["own", "one layer"] and set(rows.hits.str.len()) == {4}
    assert rows.parameters["one layer"] < rows.parameters["own"] and rows.kept.max() <= 2
    monkeypatch.setattr(lora_settings, "fit", None)  # a second run measures nothing
    again = pd.read_csv(evaluate_lora_settings(tiny, **how), index_col="setting")
    assert again.equals(rows)
    with pytest.raises(ValueError, match="held=5: of 8 validation items .* at most 4 are left"):
        evaluate_lora_settings(tiny, **how | {"held": 5, "output": tmp_path / "more.csv"})
