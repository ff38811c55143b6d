"""Every method of the few-shot table: (setup, shots, seed) -> what it hits, what it costs alone.

Methods that leave the U-Net as it is read what was computed once for all of them (`PairData`);
their cost is what they would have spent without the others. What a method chooses (layers, time
steps, token positions, form, when to stop) it chooses on the validation items. A new row is an
entry in one of the four groups at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

from dsd_tutorial.matching import Components
from dsd_tutorial.matching.baselines.attention_score import Choice
from dsd_tutorial.matching.cost import Cost, measure
from dsd_tutorial.matching.items import merit
from dsd_tutorial.prompt_learning import (
    AttentionPrompt,
    HeadWeights,
    LoRA,
    Scoring,
    SoftPrompt,
    fit,
    gradient_guided,
)
from dsd_tutorial.prompt_learning.adapters import Adapter
from dsd_tutorial.prompt_learning.methods import make_method
from dsd_tutorial.shapes.tasks import Task, few_shot
from lab.measuring.few_shot_task import Outcome, TaskSetup
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
PASS_CHECKS = 3  # how often validation is asked where every look costs U-Net passes


def _baseline(setup: TaskSetup, shots: int, seed: int, *, name: str) -> Outcome:
    """CLIP, what is learned on CLIP, and random: `baselines` as they are."""
    method, known = make_method(name), setup.validation_items
    items = few_shot(setup.task, shots, seed) if shots else None
    cost = method.fit(setup.model, items, known, seed=seed, progress=False)
    scores, spent = method.score(setup.model, setup.test_items, seed=seed, progress=False)
    checked, _ = method.score(setup.model, known, seed=seed, progress=False)
    return setup.outcome(scores, checked, cost + spent)


def _attention(setup: TaskSetup, shots: int, seed: int, *, error: bool) -> Outcome:
    """Zero-shot DSD, whose reading is chosen on the validation items."""
    choice, test = setup.choices[error], setup.test
    cost = setup.validation.cost(error=error) + test.cost(len(choice.steps), error)
    cost = cost + Cost(labels=len(setup.validation_items.items))
    known = choice.score(setup.validation.components)
    return setup.outcome(choice.score(test.components), known, cost)


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
        scoring = _scoring(choice)
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
    scores = adapter.pool(_read(setup.test, choice), _scoring(choice)).detach()
    return setup.outcome(scores, known, cost)


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
    cost = Cost(parameters=len(known.steps), seconds=perf_counter() - started)
    for data in (few, known, setup.test):
        cost = cost + data.cost(error=True)
    cost = cost + Cost(labels=len(few.items.items) + len(known.items.items))
    scores, checked = (
        adapter.pool(data.components, scoring).detach() for data in (setup.test, known)
    )
    return setup.outcome(scores, checked, cost)


def _prompt(
    setup: TaskSetup, shots: int, seed: int, *, make: Callable[[Any, int], Adapter]
) -> Outcome:
    """What changes the pass itself: fitted and scored by passes of its own, on few time steps."""
    choice, batch = setup.short_choice, setup.pairs.batch_size
    scoring = _scoring(choice)
    started = perf_counter()
    with measure(setup.model) as meter:
        fitted = fit(
            setup.model, make(setup.model, seed), few_shot(setup.task, shots, seed),
            scoring=scoring, validation=setup.validation_items, steps=setup.updates, seed=seed,
            check_every=max(1, setup.updates // PASS_CHECKS), progress=False,
        )  # fmt: skip
        if fitted.stopped == "interrupted":
            raise KeyboardInterrupt  # half a fit is no measurement: it is not scored
        how = {"batch_size": batch, "progress": setup.pairs.progress}
        scores = fitted.scores(setup.model, setup.test_items, **how)
    spent = Cost(meter.unet_passes, fitted.cost.parameters, fitted.cost.labels)
    spent = spent + Cost(seconds=perf_counter() - started)
    # the choice of the reading read all components of the validation items
    spent = spent + setup.validation.cost(error=True)
    known = fitted.scores(setup.model, setup.validation_items, **how)  # only to compare adapters
    return setup.outcome(scores, known, spent)


def _read(data: PairData, choice: Choice) -> Components:
    return data.components.select(layers=choice.layers, steps=choice.steps)


def _scoring(choice: Choice) -> Scoring:
    return Scoring(
        time_steps=choice.steps, layers=choice.layers, token_mask=choice.token_mask,
        error_weight=choice.error_weight,
    )  # fmt: skip


Method = Callable[[TaskSetup, int, int], Outcome]
ZERO_SHOT: dict[str, Method] = {
    "random": partial(_baseline, name="random"),
    "clip": partial(_baseline, name="clip"),
    "attention": partial(_attention, error=False),
    "error": _error,
    "attention_error": partial(_attention, error=True),
    "diffusion_classifier": _diffusion_classifier,
}
ON_CLIP: dict[str, Method] = {
    name: partial(_baseline, name=name) for name in ("coop", "tip", "tip_tuned", "probe")
}
CACHED: dict[str, Method] = {
    "guided": partial(_weights, error=False, learn=_by_gradient),
    "guided_error": partial(_weights, error=True, learn=_by_gradient),
    "head_weights": partial(_weights, error=False, learn=_by_fitting),
    "head_weights_error": partial(_weights, error=True, learn=_by_fitting),
    "step_weights": _step_weights,
}
BY_PASSES: dict[str, Method] = {
    "soft_prompt": partial(_prompt, make=lambda model, seed: SoftPrompt(model)),
    "attention_prompt": partial(
        _prompt, make=lambda model, seed: AttentionPrompt(model, seed=seed)
    ),
    "lora": partial(_prompt, make=lambda model, seed: LoRA(model, seed=seed)),
}
METHODS = {**ZERO_SHOT, **ON_CLIP, **CACHED, **BY_PASSES}
