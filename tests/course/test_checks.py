"""Exercises: every mistake is known by its name, right functions pass however they are written."""

import math

import numpy as np
import pytest
import torch

from dsd_tutorial.course import checks
from dsd_tutorial.course.checks.exercise import Exercise
from dsd_tutorial.course.checks.noise import NoiseExercise

ALL = [
    getattr(checks, name) for name in checks.__all__ if isinstance(getattr(checks, name), Exercise)
]
COMPARED = [e for e in ALL if not isinstance(e, NoiseExercise)]
WRONG = [
    (e, m, wrong) for e in COMPARED for m, (_, _, *all_) in e.mistakes.items() for wrong in all_
]


@pytest.fixture(autouse=True)
def fresh():
    for exercise in ALL:
        exercise.reset()


def named(values):
    return [f"{e.name}-{name}" for e, name, _ in values]


@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.name)
def test_the_solution_passes(exercise):
    result = exercise(exercise.solution)
    assert result and result.passed and result.attempted and result.mistake is None


@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.name)
def test_stubs_are_not_attempts(exercise):
    def raises(*args):
        raise NotImplementedError("your turn")

    for stub in (raises, lambda *args: ...):
        result = exercise(stub)
        assert not result and not result.attempted and "not attempted" in repr(result)
    assert exercise.attempts == 0


@pytest.mark.parametrize(("exercise", "name", "wrong"), WRONG, ids=named(WRONG))
def test_every_mistake_is_recognised_by_its_name(exercise, name, wrong):
    result = exercise(wrong)
    assert not result and result.mistake == name and name in repr(result)


@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.name)
def test_at_least_three_mistakes_and_hints_that_grow(exercise):
    assert len(exercise.mistakes) >= 3
    for why, cure, *_ in exercise.mistakes.values():
        assert why.endswith(".") and cure.endswith(".")
    name, (why, cure, wrong, *_) = next(iter(exercise.mistakes.items()))
    wrong = NOISE[name] if isinstance(exercise, NoiseExercise) else wrong
    said = [exercise(wrong).message for _ in range(3)]
    assert exercise.hint in said[0] and why not in said[0]
    assert why in said[1] and cure not in said[1]
    assert cure in said[2]
    assert exercise(exercise.solution) and exercise.attempts == 0


# -- other ways to be right -----------------------------------------------------------------------


def soft_by_hand(logits, lam):
    top = logits.max(-1, keepdim=True).values
    return top[..., 0] + ((lam * (logits - top)).exp().mean(-1)).log() / lam


def soft_in_numpy(logits, lam):
    return np.logaddexp.reduce(lam * logits.double().numpy(), axis=-1) / lam - (
        math.log(logits.shape[-1]) / lam
    )


def captions_one_by_one(logits, mask):
    rows = [
        torch.logsumexp(x[..., m], -1) - math.log(int(m.sum()))
        for x, m in zip(logits, mask, strict=True)
    ]
    return torch.stack(rows)


def captions_by_weights(logits, mask):
    bias = torch.where(mask, 0.0, -1e9)[:, None, None, :]
    counts = mask.sum(1).float().log()[:, None, None]
    return torch.logsumexp(logits + bias, dim=3) - counts


def prior_in_a_loop(scores, on_references):
    prior = [sum(column) / len(column) for column in on_references.T.tolist()]
    return [[s - off for s, off in zip(row, prior, strict=True)] for row in scores.tolist()]


def apart_in_numpy(first, second):
    pairs = zip(first.numpy(), second.numpy(), strict=True)
    return np.array([-np.corrcoef(a, b)[0, 1] for a, b in pairs])


def text_in_a_loop(scores):
    return [bool(s[0, 0] > s[0, 1] and s[1, 1] > s[1, 0]) for s in scores]


def text_by_margin(scores):
    margin = (scores[:, :, 0] - scores[:, :, 1]) * torch.tensor([1.0, -1.0])
    return (margin > 0).all(dim=1).int()


def noise_texts_outside(score_once, texts, shape, steps, seed):
    answer = []
    for text in texts:
        numbers = torch.Generator().manual_seed(seed)
        answer.append(
            sum(score_once(text, t, torch.randn(shape, generator=numbers)) for t in steps)
            / len(steps)
        )
    return answer


def noise_drawn_first(score_once, texts, shape, steps, seed):
    numbers = torch.Generator().manual_seed(seed + 77)
    bank = torch.randn(len(steps), 1, *shape, generator=numbers)
    table = [[score_once(text, t, e) for t, e in zip(steps, bank, strict=True)] for text in texts]
    return np.mean(table, axis=1)


def noise_many_per_step(score_once, texts, shape, steps, seed):
    numbers, rounds = torch.Generator().manual_seed(seed), 3
    total = torch.zeros(len(texts))
    for t in list(steps) * rounds:
        e = torch.randn(shape, generator=numbers)
        total += torch.tensor([score_once(text, t, e) for text in texts])
    return total / (rounds * len(steps))


def ranks_by_scipy(predicted, true, kinds):
    from scipy.stats import spearmanr

    parts = [kinds == kind for kind in set(kinds.tolist())]
    return np.mean([spearmanr(predicted[x], true[x]).statistic for x in parts])


RIGHT = [
    (checks.soft_maximum, soft_by_hand), (checks.soft_maximum, soft_in_numpy),
    (checks.caption_scores, captions_one_by_one), (checks.caption_scores, captions_by_weights),
    (checks.without_prior, prior_in_a_loop), (checks.nouns_apart, apart_in_numpy),
    (checks.text_wins, text_in_a_loop), (checks.text_wins, text_by_margin),
    (checks.noise_average, noise_texts_outside), (checks.noise_average, noise_drawn_first),
    (checks.noise_average, noise_many_per_step), (checks.ranks_agree, ranks_by_scipy),
]  # fmt: skip


@pytest.mark.parametrize(("exercise", "function"), RIGHT, ids=lambda x: getattr(x, "__name__", ""))
def test_another_right_way_passes(exercise, function):
    assert exercise(function), exercise(function).message


# -- the exercise on noise, judged by behaviour ---------------------------------------------------


def loop(draw, *, weight=1.0, steps_of=list, finish=lambda total, steps: total / len(steps)):
    """A noise function whose noise is draw(generator, shape, step index, text index, bank)."""

    def function(score_once, texts, shape, steps, seed):
        numbers, bank = torch.Generator().manual_seed(seed), {}
        total = torch.zeros(len(texts))
        for i, t in enumerate(steps_of(steps)):
            for k, text in enumerate(texts):
                total[k] += weight * score_once(text, t, draw(numbers, shape, i, k, bank))
        return finish(total, steps)

    return function


def shared(numbers, shape, i, k, bank):
    return bank.setdefault(i, torch.randn(shape, generator=numbers))


def last_only(score_once, texts, shape, steps, seed):
    numbers = torch.Generator().manual_seed(seed)
    for t in steps:
        e = torch.randn(shape, generator=numbers)
        answer = [score_once(text, t, e) for text in texts]
    return torch.tensor(answer)


NOISE = {
    "noise not shared between candidates": loop(lambda g, s, i, k, b: torch.randn(s, generator=g)),
    "one noise for all time steps": loop(
        lambda g, s, i, k, b: b.setdefault(0, torch.randn(s, generator=g))
    ),
    "not reproducible": loop(lambda g, s, i, k, b: b.setdefault(i, torch.randn(s))),
    "seed ignored": loop(
        lambda g, s, i, k, b: torch.randn(s, generator=torch.Generator().manual_seed(i))
    ),
    "noise that is not standard normal": loop(
        lambda g, s, i, k, b: b.setdefault(i, torch.rand(s, generator=g))
    ),
    "a time step left out": loop(shared, steps_of=lambda steps: steps[:-1]),
    "sum instead of mean over time steps": loop(shared, finish=lambda total, steps: total),
    "only the last time step counts": last_only,
    "mean over the candidates": loop(
        shared, finish=lambda total, steps: (total / len(steps)).mean()
    ),
}


@pytest.mark.parametrize("name", checks.noise_average.mistakes)
def test_every_mistake_with_noise_is_recognised(name):
    result = checks.noise_average(NOISE[name])
    assert not result and result.mistake == name


# -- trouble --------------------------------------------------------------------------------------


def test_trouble_is_reported_and_never_raised():
    def broken(logits, lam):
        return logits @ lam

    def forgetful(logits, lam):
        logits.logsumexp(-1)

    def rude(logits, lam):
        return logits.mul_(lam).logsumexp(-1)

    for function, name in [
        (broken, "an error inside your function"),
        (forgetful, "nothing returned"),
        (rude, "changed its input"),
        (lambda x, lam: "four", "no tensor"),
    ]:
        result = checks.soft_maximum(function)
        assert result.attempted and result.mistake == name
    assert "logits @ lam" in checks.soft_maximum(broken).message
    assert "TypeError" in checks.soft_maximum(broken).message


def test_an_unknown_mistake_shows_the_two_answers():
    result = checks.soft_maximum(lambda x, lam: x.mean(-1) + 17)
    assert result.mistake == "not recognised"
    assert "19" in result.message and "not 2" in result.message
    wrong_shape = checks.nouns_apart(lambda a, b: torch.zeros(4, 4))
    assert "(4, 4)" in wrong_shape.message and "(1,)" in wrong_shape.message
    thrice = [checks.text_wins(lambda s: s.sum((1, 2))) for _ in range(3)]
    assert "folded away" in thrice[-1].message


def test_a_result_can_be_read_as_text_and_as_markdown():
    result = checks.text_wins(checks.text_wins.solution)
    markdown, metadata = result._repr_markdown_()
    assert repr(result) == "text_wins: correct." and "**text_wins**" in markdown
    assert metadata["attempts"] >= 1
    assert "not attempted" in checks.text_wins(lambda s: ...)._repr_markdown_()[0]


def test_noise_of_another_shape_or_step_is_refused():
    bad = loop(lambda g, s, i, k, b: torch.zeros(3))
    assert checks.noise_average(bad).mistake == "noise of the wrong shape"
    off = loop(shared, steps_of=lambda steps: [t + 1 for t in steps])
    assert checks.noise_average(off).mistake == "text or time step that is not given"
