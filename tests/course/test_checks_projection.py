"""The exercises of notebook 03: right answers written in other ways pass, wrong ones are named.

That every listed mistake is recognised, and that hints grow, `test_checks` holds for all exercises.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dsd_tutorial.course import checks

EXERCISES = (checks.cut_inverse, checks.to_states, checks.fill_prompt, checks.one_for_many)


@pytest.fixture(autouse=True)
def fresh():
    for exercise in EXERCISES:
        exercise.reset()


# -- other ways to be right -----------------------------------------------------------------------


def cut_in_a_loop(weight, threshold):
    u, s, vh = np.linalg.svd(weight.double().numpy())
    inverse = np.zeros(weight.shape[::-1])
    for i, value in enumerate(s):
        if value >= threshold:
            inverse += np.outer(vh[i], u[:, i]) / value
    return inverse


def cut_by_eigenvectors(weight, threshold):
    w = weight.double()
    values, vectors = torch.linalg.eigh(w.T @ w)  # s^2 and V
    kept = values >= threshold**2
    return vectors[:, kept] @ torch.diag(1 / values[kept]) @ vectors[:, kept].T @ w.T


def cut_float32(weight, threshold):
    u, s, vh = torch.linalg.svd(weight.float(), full_matrices=False)
    one_over = torch.where(s >= threshold, 1 / s, torch.zeros_like(s))
    return vh.T @ torch.diag(one_over) @ u.T


def states_row_by_row(embeddings, inverse, length):
    rows = [inverse @ v for v in embeddings]
    return torch.stack([length * u / u.norm() for u in rows])


def states_scaled_first(embeddings, inverse, length):
    u = (7.0 * F.normalize(embeddings, dim=-1)) @ inverse.T  # a scale that cancels is no mistake
    return length * u / u.norm(dim=-1, keepdim=True)


def prompt_by_concatenation(empty, states, copies):
    n = len(states)
    parts = [empty[:, :1], states[:, None].expand(-1, copies, -1), empty[:, 1 + copies :]]
    return torch.cat([part.expand(n, -1, -1) for part in parts], dim=1)


def prompt_in_loops(empty, states, copies):
    return [
        [states[i] if 1 <= at <= copies else empty[0, at] for at in range(empty.shape[1])]
        for i in range(len(states))
    ]


def prompt_stacked(empty, states, copies):
    rows = prompt_in_loops(empty, states, copies)
    return torch.stack([torch.stack(row) for row in rows])


def many_spelled_out(logits, n):
    spread = torch.cat([logits[..., :1], *[logits[..., 1:2]] * n, logits[..., 2:]], -1).softmax(-1)
    together = spread[..., 1 : 1 + n].sum(-1, keepdim=True)
    return torch.cat([spread[..., :1], together, spread[..., 1 + n :]], -1)


def many_by_weights(logits, n):
    weight = torch.ones(logits.shape[-1])
    weight[1] = n
    numbers = weight * (logits - logits.amax(-1, keepdim=True)).exp()
    return numbers / numbers.sum(-1, keepdim=True)


RIGHT = [
    (checks.cut_inverse, cut_in_a_loop), (checks.cut_inverse, cut_by_eigenvectors),
    (checks.cut_inverse, cut_float32),
    (checks.to_states, states_row_by_row), (checks.to_states, states_scaled_first),
    (checks.fill_prompt, prompt_by_concatenation), (checks.fill_prompt, prompt_stacked),
    (checks.one_for_many, many_spelled_out), (checks.one_for_many, many_by_weights),
]  # fmt: skip


@pytest.mark.parametrize(("exercise", "function"), RIGHT, ids=lambda x: getattr(x, "__name__", ""))
def test_another_right_way_passes(exercise, function):
    assert exercise(function), exercise(function).message


# -- the mistakes that the issue names, as learners write them ------------------------------------


def transposed(weight, threshold):
    u, s, vh = torch.linalg.svd(weight.double(), full_matrices=False)
    keep = s >= threshold
    return (u[:, keep] / s[keep]) @ vh[keep]


def uncut(weight, threshold):
    return np.linalg.pinv(weight.double().numpy())


def inverted_after_normalising(embeddings, inverse, length):
    unit = embeddings / embeddings.norm(dim=-1, keepdim=True)
    return length * (inverse @ unit.T).T


def unit_length(embeddings, inverse, length):
    h = embeddings @ inverse.T
    return h / h.norm(dim=-1, keepdim=True)


def start_overwritten(empty, states, copies):
    prompt = empty.expand(len(states), -1, -1).clone()
    prompt[:, :copies] = states.unsqueeze(1)
    return prompt


def n_added(logits, n):
    raised = logits.clone()
    raised[..., 1] += n
    return raised.softmax(-1)


WRONG = [
    (checks.cut_inverse, transposed, "transposed inverse"),
    (checks.cut_inverse, uncut, "no threshold"),
    (checks.to_states, inverted_after_normalising, "normalised, then inverted"),
    (checks.to_states, unit_length, "unit length"),
    (checks.to_states, lambda x, p, c: c * F.normalize(x @ p, dim=-1), "transposed inverse"),
    (checks.fill_prompt, start_overwritten, "start token overwritten"),
    (checks.one_for_many, n_added, "added n instead of log n"),
]


@pytest.mark.parametrize(("exercise", "wrong", "name"), WRONG)
def test_a_mistake_is_named(exercise, wrong, name):
    assert exercise(wrong).mistake == name


def test_the_inputs_may_not_be_changed():
    def rude(empty, states, copies):
        empty[:, 1 : 1 + copies] = states[:1, None]
        return empty

    assert checks.fill_prompt(rude).mistake == "changed its input"


def test_the_bonus_is_the_logarithm_that_makes_copies_equal():
    case = torch.tensor([1.0, -2.0, 0.5])
    for n in (2, 5, 31):
        one = checks.one_for_many.solution(case, n)
        odds = one[1] / one[0]
        assert float(odds) == pytest.approx(n * math.exp(-3.0), rel=1e-5)
