"""Notebook 02's exercises: other ways to be right pass, and each idea agrees with the package.

That solutions pass and every mistake is known by its name, tests/test_checks.py holds for all.
"""

import math

import numpy as np
import pytest
import torch

from dsd_tutorial.attention import Prefix
from dsd_tutorial.course import checks
from dsd_tutorial.prompt_learning import SoftPrompt, hinge

OURS = (
    checks.prompted_states, checks.gated_partition, checks.hardest_hinge, checks.best_step,
)  # fmt: skip


@pytest.fixture(autouse=True)
def fresh():
    for exercise in OURS:
        exercise.reset()


# -- other ways to be right -----------------------------------------------------------------------


def states_by_loops(states, end, residual):
    out = states.clone()
    for row, at in enumerate(end.tolist()):
        room = min(len(residual), states.shape[1] - at - 1)
        out[row, at + 1 : at + 1 + room] += residual[:room]
    return out


def gates_by_factors(logits, extra, gate):
    both = torch.cat([logits, extra], dim=-1)
    factor = torch.cat([torch.ones_like(logits), gate[:, None, :].expand_as(extra)], dim=-1)
    top = both.amax(-1, keepdim=True)
    return (factor * (both - top).exp()).sum(-1).log() + top[..., 0]


def gates_by_logarithm(logits, extra, gate):
    return torch.cat([logits, extra + gate.log()[:, None, :]], dim=-1).logsumexp(-1)


def hinge_by_loops(scores, positive, margin):
    losses = []
    for row, right in zip(scores.tolist(), positive.tolist(), strict=True):
        rival = max(value for i, value in enumerate(row) if i != right)
        losses.append(max(0.0, rival - row[right] + margin))
    return sum(losses) / len(losses)


def step_by_mask(few, validation, loss):
    kept = np.where(validation == np.nanmax(validation), loss, np.inf)
    return int(np.argmin(kept))


RIGHT = [
    (checks.prompted_states, states_by_loops), (checks.gated_partition, gates_by_factors),
    (checks.gated_partition, gates_by_logarithm), (checks.hardest_hinge, hinge_by_loops),
    (checks.best_step, step_by_mask),
]  # fmt: skip


@pytest.mark.parametrize(("exercise", "function"), RIGHT, ids=[f.__name__ for _, f in RIGHT])
def test_other_ways_to_be_right_pass(exercise, function):
    result = exercise(function)
    assert result.passed, result.message


# -- what is asked for is what the package does ---------------------------------------------------


def test_prompted_states_are_those_of_a_soft_prompt(tiny):
    texts = ["a red circle", "a small red circle left of a large blue square"]
    adapter = SoftPrompt(tiny, positions="padding", n=3)
    with torch.no_grad():
        adapter.residual["padding"].normal_(generator=torch.Generator().manual_seed(0))
        states = tiny.encode_text(texts)
        with adapter.active(tiny):
            want = tiny.encode_text(texts)
    got = states_by_loops(states, tiny.eos_positions(texts), adapter.residual["padding"].detach())
    torch.testing.assert_close(got, want)
    assert not torch.allclose(states, want)


def test_gated_partition_is_what_a_prefix_reports():
    numbers = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, 3, n, 8, generator=numbers) for n in (5, 6))
    own, gate = torch.randn(3, 2, 8, generator=numbers), torch.rand(3, 2, generator=numbers)
    logits, extra = query @ key.transpose(-1, -2), query @ own.transpose(-1, -2)
    seen = Prefix(own, own, gate).record(query, logits, 1.0).probabilities()
    total = checks.gated_partition.solution(logits, extra, gate)
    torch.testing.assert_close(seen[..., :6], (logits - total[..., None]).exp())
    torch.testing.assert_close(seen.sum(-1), torch.ones(2, 3, 5))


def test_the_hinge_knows_no_place():
    """Moving the right candidate elsewhere must not change the loss."""
    scores = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    here, there = torch.zeros(6, dtype=torch.long), torch.full((6,), 2)
    assert hinge(scores, here, 0.5) == hinge(scores.roll(2, 1), there, 0.5)


# -- what the learner is told ---------------------------------------------------------------------


def test_hints_name_the_released_codes_traps():
    first = checks.hardest_hinge
    for _ in range(2):
        said = first(lambda s, p, m: hinge(s, torch.zeros_like(p), m))
    assert said.mistake == "the right candidate taken at index 0" and "ties" in said.message
    said = checks.gated_partition(lambda x, e, g: torch.cat([x, e], -1).logsumexp(-1))
    assert said.mistake == "no gate" and "gates at zero" in said.message


def test_examples_shown_are_small_and_right():
    """The hint of the hinge gives an example in words; it must be true."""
    assert hinge(torch.tensor([[5.0, 3.0, 4.0]]), torch.tensor([1]), 1.0) == 3
    said = checks.hardest_hinge(lambda s, p, m: torch.tensor(math.pi)).message
    assert "5, 3, 4" in said and "3.142" in said


def test_an_index_out_of_room_is_named_not_raised():
    def without_room(states, end, residual):
        out = states.clone()
        for row, at in enumerate(end.tolist()):
            for i in range(len(residual)):
                out[row, at + 1 + i] += residual[i]
        return out

    said = checks.prompted_states(without_room)
    assert said.mistake == "an error inside your function" and "IndexError" in said.message
