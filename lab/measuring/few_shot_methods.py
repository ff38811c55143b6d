"""Every method of the few-shot table: (setup, shots, seed) -> what it hits, what it costs alone.

Methods that leave the U-Net as it is read what was computed once for all of them (`PairData`);
their cost is what they would have spent without the others. What a method chooses (readings,
layers, time steps, token positions, form, penalty, when to stop) it chooses on validation items. A
new row is an entry in one of the groups at the end; `few_shot_verdicts.READS` says what it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

from dsd_tutorial.matching import Components
from dsd_tutorial.matching.baselines.attention_score import AttentionPlusError, Choice
from dsd_tutorial.matching.cost import Cost, measure
from dsd_tutorial.matching.items import item_hits, merit
from dsd_tutorial.prompt_learning import (
    AttentionPrompt,
    HeadWeights,
    LoRA,
    ReadingWeights,
    Scoring,
    SoftPrompt,
    fit,
    fit_readings,
    gradient_guided,
)
from dsd_tutorial.prompt_learning.adapters import Adapter
from dsd_tutorial.prompt_learning.methods import make_method
from dsd_tutorial.prompt_learning.reading_sums import ERROR, HEADS
from dsd_tutorial.prompt_learning.reading_weights import simplest
from dsd_tutorial.prompt_learning.scoring import evaluate_items
from dsd_tutorial.shapes.tasks import Task, few_shot
from lab.measuring.few_shot_task import Outcome, TaskSetup, names_of
from lab.measuring.pairs import PairData

# forms of the weights over components; which one, the validation items decide
FORMS = (
    ("signed", ("layer", "head")),
    ("softmax", ("layer", "head")),
    ("signed", ("step", "layer")),
    ("softmax", ("step", "layer", "head")),
)
Sets = tuple[Task, Task]  # labelled items, validation items
Parts = tuple[Components, Components]  # of them
PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0)  # the simplest first
ATTENTION_UPDATES = 60
PASS_CHECKS = 3  # how often validation is asked where every look costs U-Net passes


def _baseline(setup: TaskSetup, shots: int, seed: int, *, name: str) -> Outcome:
    """CLIP, what is learned on CLIP, and random: `baselines` as they are."""
    method, known = make_method(name), setup.validation_items
    items = few_shot(setup.task, shots, seed) if shots else None
    cost = method.fit(setup.model, items, known, seed=seed, progress=False)
    scores, spent = method.score(setup.model, setup.test_items, seed=seed, progress=False)
    checked, _ = method.score(setup.model, known, seed=seed, progress=False)
    return setup.outcome(scores, checked, cost + spent)


def _log_sum_exp(
    setup: TaskSetup, shots: int, seed: int, *, error: bool = False, few: bool = False
) -> Outcome:
    """The paper's own reading; its layers, time steps and tokens are chosen on validation items."""
    known, test = setup.few_validation if few else setup.validation, setup.test
    choice = setup.best(setup.options[error], known)
    cost = known.cost(error=error) + test.cost(len(choice.steps), error)
    cost = cost + Cost(labels=len(known.items.items))
    scores = (choice.score(part.components) for part in (test, known))
    return setup.outcome(*scores, cost, known.items, choice)


def _released(setup: TaskSetup, shots: int, seed: int) -> Outcome:
    """What the released code reads: the last layer of each path, all tokens, beta = 1."""
    options = AttentionPlusError(setup.pairs.steps, error_weight=1.0)
    choice, test = options.default(setup.model), setup.test
    scores = (choice.score(part.components) for part in (test, setup.validation))
    return setup.outcome(*scores, test.cost(error=True), chosen=choice)


def _attention(
    setup: TaskSetup,
    shots: int,
    seed: int,
    *,
    error: bool = False,
    few: bool = False,
    prior: bool = True,
    maps: bool = False,
) -> Outcome:
    """The sum of structured readings that validation chose, with or without the prior off."""
    known, test = setup.few_validation if few else setup.validation, setup.test
    if maps:
        chosen = setup.map_sum
    else:
        chosen = setup.sum_of(error, known) if few else setup.sums[error]
    cost = _reading_cost(known, chosen, error, prior=True) + _reading_cost(
        test, chosen, ERROR in chosen.readings, prior
    )
    scores = (chosen.score(part.structure if prior else part.plain_structure)
              for part in (test, known))  # fmt: skip
    return setup.outcome(*scores, cost + Cost(labels=len(known.items.items)), known.items, chosen)


def _reading_cost(data: PairData, chosen: ReadingWeights, error: bool, prior: bool) -> Cost:
    """Return what reading structure costs; the error term has its own time steps."""
    steps = len(chosen.reads.error_steps if error else chosen.reads.steps)
    cost = data.cost(steps, error)
    return cost + data.prior_cost(len(chosen.reads.steps)) if prior else cost


def _readings(
    setup: TaskSetup, shots: int, seed: int, *, error: bool, maps: bool = False
) -> Outcome:
    """Weights over all readings and layers, from the labelled items.

    They start from the sum that validation chose, or from nothing. Validation decides which, how
    strong the penalty is, and whether each time step and, for the log-sum-exp, each head has a
    weight of its own.
    """
    few, known, started = setup.few(shots, seed), setup.validation, perf_counter()
    names = names_of(error, maps)
    how = {
        "steps": setup.pairs.inner, "error_steps": known.steps, "penalty": PENALTIES,
        "parts": few.structure, "validation": (known.items, known.structure),
    }  # fmt: skip
    starts = setup.map_sum if maps else setup.sums[error], None
    fits = [
        fit_readings(setup.model, few.items, readings=names, start=starts, **how),
        fit_readings(setup.model, few.items, readings=(*names, HEADS), by_step=True, **how),
    ]
    fitted = fits[simplest([item_hits(known.items, f.score(known.structure)) for f in fits])]
    seconds, labels = perf_counter() - started, len(few.items.items) + len(known.items.items)
    cost = Cost(parameters=len(fitted.weights), labels=labels, seconds=seconds)
    for data in (few, known, setup.test):
        cost = cost + _reading_cost(data, fitted, error, prior=True)
    scores, checked = (fitted.score(data.structure) for data in (setup.test, known))
    return setup.outcome(scores, checked, cost)


def _error(setup: TaskSetup, shots: int, seed: int) -> Outcome:
    """The error term of the released code, without the attention score; nothing is chosen."""
    scores, known = (s.components.errors.mean(1) for s in (setup.test, setup.validation))
    return setup.outcome(scores, known, setup.test.cost(error=True))


def _diffusion_classifier(setup: TaskSetup, shots: int, seed: int) -> Outcome:
    """The diffusion classifier on all time steps, without elimination."""
    cost = setup.test.cost(error=setup.test_items.shape[0] > 1)
    return setup.outcome(setup.test.evidence(), setup.validation.evidence(), cost)


def _weights(
    setup: TaskSetup,
    shots: int,
    seed: int,
    *,
    error: bool,
    learn: Callable[..., Iterator[HeadWeights]],
) -> Outcome:
    """Weights over components, from the labelled items; validation decides among what is learned.

    They begin at zero-shot DSD, at the chosen reading and at the one of all layers and time steps:
    where 16 items say little about weights, the narrow one is the better start.
    """
    few, started, tried = setup.few(shots, seed), perf_counter(), []
    for choice in dict.fromkeys((setup.plain_choices[error], setup.choices[error])):
        scoring = scoring_of(choice)
        parts = _read(few, choice), _read(setup.validation, choice)
        items = few.items, setup.validation_items
        for adapter in learn(setup.model, items, parts, scoring, error, seed):
            known = adapter.pool(parts[1], scoring).detach()
            tried.append((merit(known, setup.validation_items), known, choice, adapter))
    _, known, choice, adapter = max(tried, key=lambda row: row[0])
    cost = Cost(parameters=adapter.size, seconds=perf_counter() - started)
    # choosing read all time steps of the labelled items, testing reads those of the choice
    cost = cost + few.cost(error=error) + setup.validation.cost(error=error)
    reads_error = adapter.reads_error or choice.error_weight != 0
    cost = cost + setup.test.cost(len(choice.steps), reads_error)
    cost = cost + Cost(labels=len(few.items.items) + len(setup.validation_items.items))
    scores = adapter.pool(_read(setup.test, choice), scoring_of(choice)).detach()
    return setup.outcome(scores, known, cost, chosen=choice)


def _by_gradient(
    model: Any, items: Sets, parts: Parts, scoring: Scoring, error: bool, seed: int
) -> Iterator[HeadWeights]:
    """Yield the weights that one gradient gives, without training."""
    yield gradient_guided(model, items[0], scoring, error=error, parts=parts[0], progress=False)


def _by_fitting(
    model: Any, items: Sets, parts: Parts, scoring: Scoring, error: bool, seed: int
) -> Iterator[HeadWeights]:
    """Yield weights of every form, fitted."""
    for form, over in FORMS:
        adapter = HeadWeights(model, scoring, over=over, kind=form, error=error)
        fit(
            model, adapter, items[0], scoring=scoring, validation=items[1], seed=seed,
            parts=parts, progress=False,
        )  # fmt: skip
        yield adapter


def _step_weights(setup: TaskSetup, shots: int, seed: int) -> Outcome:
    """One learned weight per time step for the error term; attention is not read.

    It starts at the plain error (`_error`) and has one number for each time step: of all that is
    learned here the least, and nothing else is chosen on the validation items.
    """
    few, known, started = setup.few(shots, seed), setup.validation, perf_counter()
    scoring = Scoring(
        time_steps=known.steps, layers=known.layers, attention_weight=0.0, error_weight=1.0
    )
    adapter = HeadWeights(setup.model, scoring, over=("step",), error=True)
    fit(
        setup.model, adapter, few.items, scoring=scoring, validation=known.items, seed=seed,
        parts=(few.components, known.components), loss="infonce", progress=False,
    )  # fmt: skip
    seconds, labels = perf_counter() - started, len(few.items.items) + len(known.items.items)
    cost = Cost(parameters=len(known.steps), labels=labels, seconds=seconds)
    for data in (few, known, setup.test):
        cost = cost + data.cost(error=True)
    scores, checked = (
        adapter.pool(data.components, scoring).detach() for data in (setup.test, known)
    )
    return setup.outcome(scores, checked, cost)


def _prompt(
    setup: TaskSetup, shots: int, seed: int, *, make: Callable[[Any, int], Adapter], error: bool,
    rates: Sequence[float | None],
) -> Outcome:  # fmt: skip
    """What changes the pass itself: fitted and scored by passes of its own, on few time steps.

    It starts at the best short reading, and validation decides between learning rates (None: the
    adapter's own). On attention alone, where one image chooses among texts, the prior of the fitted
    model is taken off.
    """
    choice = setup.short_choice if error else setup.short_attention
    known, scoring = setup.few_validation, scoring_of(choice)
    updates = setup.updates if error else ATTENTION_UPDATES
    prior = "validation" if not error and setup.test_items.shape[0] == 1 else None
    started = perf_counter()
    fits = {}
    with measure(setup.model) as meter:
        for rate in rates:
            fits[rate] = fitted = fit(
                setup.model, make(setup.model, seed), few_shot(setup.task, shots, seed),
                scoring=scoring, validation=known.items, steps=updates, lr=rate, seed=seed,
                check_every=max(1, updates // PASS_CHECKS), progress=False,
            )  # fmt: skip
            if fitted.stopped == "interrupted":
                raise KeyboardInterrupt  # half a fit is no measurement: it is not scored
        rate = max(fits, key=lambda rate: (fits[rate].accuracy, -fits[rate].loss))
        fitted = fits[rate]
        how = {"progress": setup.pairs.progress}
        scores = fitted.scores(setup.model, setup.test_items, prior=prior, **how)
    # the choice of the reading read all components of its validation items
    chosen_on = known if error else setup.validation
    labels = shots + len(chosen_on.items.items)
    spent = Cost(meter.unet_passes, fitted.cost.parameters, labels)
    spent = spent + Cost(seconds=perf_counter() - started) + chosen_on.cost(error=error)
    if not error:
        spent = spent + chosen_on.prior_cost(len(chosen_on.prior_steps))
    # only to compare adapters
    checked = fitted.scores(setup.model, known.items, prior=prior, **how)
    outcome = setup.outcome(scores, checked, spent, known.items, choice)
    return outcome if len(rates) == 1 else replace(outcome, chosen=f"{outcome.chosen} lr {rate:g}")


def _start(setup: TaskSetup, shots: int, seed: int) -> Outcome:
    """Where `_prompt` begins on attention alone: the same passes, with nothing learned."""
    choice, known = setup.short_attention, setup.validation
    prior = "validation" if setup.test_items.shape[0] == 1 else None
    with measure(setup.model) as meter:
        scores = evaluate_items(
            setup.model, setup.test_items, None, scoring_of(choice), prior=prior,
            progress=setup.pairs.progress,
        )  # fmt: skip
    spent = meter.cost(labels=len(known.items.items)) + known.cost()
    spent = spent + known.prior_cost(len(known.prior_steps))
    parts = known.components if prior is None else known.structure
    return setup.outcome(scores, choice.score(parts), spent, chosen=choice)


def _read(data: PairData, choice: Choice) -> Components:
    return data.components.select(layers=choice.layers, steps=choice.steps)


def scoring_of(choice: Choice) -> Scoring:
    """Return how passes of one's own are scored where a reading was chosen."""
    return Scoring(
        time_steps=choice.steps, layers=choice.layers, token_mask=choice.token_mask,
        error_weight=choice.error_weight,
    )  # fmt: skip


Method = Callable[[TaskSetup, int, int], Outcome]
ZERO_SHOT: dict[str, Method] = {
    "random": partial(_baseline, name="random"),
    "clip": partial(_baseline, name="clip"),
    "released": _released,
    "log_sum_exp_32": partial(_log_sum_exp, few=True),
    "log_sum_exp": _log_sum_exp,
    "log_sum_exp_short": _start,
    "log_sum_exp_error": partial(_log_sum_exp, error=True),
    "attention_plain": partial(_attention, prior=False),
    "attention_32": partial(_attention, few=True),
    "attention": _attention,
    "attention_maps": partial(_attention, maps=True),
    "error": _error,
    "attention_error": partial(_attention, error=True),
    "diffusion_classifier": _diffusion_classifier,
}
ON_CLIP: dict[str, Method] = {
    name: partial(_baseline, name=name) for name in ("coop", "tip", "tip_tuned", "probe")
}
ON_READINGS: dict[str, Method] = {
    "readings": partial(_readings, error=False),
    "readings_maps": partial(_readings, error=False, maps=True),
    "readings_error": partial(_readings, error=True),
}
CACHED: dict[str, Method] = {
    "guided": partial(_weights, error=False, learn=_by_gradient),
    "guided_error": partial(_weights, error=True, learn=_by_gradient),
    "head_weights": partial(_weights, error=False, learn=_by_fitting),
    "head_weights_error": partial(_weights, error=True, learn=_by_fitting),
    **ON_READINGS,
    "step_weights": _step_weights,
}
# what changes the pass, and the learning rates that are tried on attention alone
PROMPTS: dict[str, tuple[Callable[[Any, int], Adapter], Sequence[float]]] = {
    "soft_prompt": (lambda model, seed: SoftPrompt(model), (1e-2, 3e-2)),
    "attention_prompt": (lambda model, seed: AttentionPrompt(model, seed=seed), (2e-2, 1e-1)),
    "lora": (lambda model, seed: LoRA(model, seed=seed), (5e-3,)),
}
BY_PASSES: dict[str, Method] = {
    **{name: partial(_prompt, make=make, error=False, rates=rates)
       for name, (make, rates) in PROMPTS.items()},
    **{f"{name}_error": partial(_prompt, make=make, error=True, rates=(None,))
       for name, (make, _) in PROMPTS.items()},
}  # fmt: skip
METHODS = {**ZERO_SHOT, **ON_CLIP, **CACHED, **BY_PASSES}
