"""The loop of customisation by itself: which state is kept, when it looks, and at which rates."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dsd_tutorial.customization.tuning import CHECKS, Plan, _Run
from dsd_tutorial.matching.cost import Memory


class Number(nn.Module):
    def __init__(self, start=0.0):
        super().__init__()
        self.value = nn.Parameter(torch.full((2,), start))


def run(plan, answers=None, loss=None, **more):
    """A run of two numbers that move by themselves; `answers` are what the checks say."""
    module = nn.ModuleDict({name: Number() for name in plan.rates})
    said = iter(answers if answers is not None else [1.0] * 1000)
    states = []

    def towards_one(step):
        states.append({k: v.clone() for k, v in module.state_dict().items()})
        return {n: (part.value - 1).square().sum() for n, part in module.items()}

    made = _Run(
        module, plan, loss or towards_one, lambda: torch.tensor(next(said)),
        more.get("image", lambda: torch.zeros(3, 8, 8)), Memory(torch.device("cpu")),
    )  # fmt: skip
    made.go()
    return made, states


def planned(steps, **more):
    return Plan(steps, {"a": 0.1}, progress=False, **more)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=1, max_size=8))
def test_the_earliest_of_the_best_states_is_kept(answers):
    made, states = run(planned(len(answers) - 1, check_every=1), answers)
    best = answers.index(min(answers))
    assert (made.found.best, made.found.best_step) == (answers[best], best)
    assert [row["checked"] for row in made.found.rows] == answers
    if best < len(states):  # the state before step best + 1 is the one after step best
        for name, value in made.module.state_dict().items():
            assert torch.equal(value, states[best][name])
    assert made.found.stopped == "end"


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 25), st.none() | st.integers(1, 7), st.sets(st.integers(0, 25)),
       st.integers(1, 9))  # fmt: skip
def test_what_is_due_after_a_step(steps, every, at, preview_every):
    at = sorted(s for s in at if s <= steps)
    shown = []
    made, states = run(
        planned(
            steps, check_every=every, at=at, preview_every=preview_every,
            preview=lambda step, what: shown.append((step, what)),
        ),
        image=lambda: "image",
    )  # fmt: skip
    often = every or max(1, steps // CHECKS)
    rows = made.found.rows
    assert [row["step"] for row in rows] == list(range(steps + 1))
    assert [row["step"] for row in rows if not math.isnan(row["checked"])] == [
        s for s in range(steps + 1) if s % often == 0 or s == steps or s in at
    ]
    due = [s for s in range(steps + 1) if s % preview_every == 0 or s == steps]
    assert shown == [(s, "image") for s in due]
    assert sorted(made.found.snapshots) == at
    for step, state in made.found.snapshots.items():
        if step < len(states):
            assert all(torch.equal(v, states[step][k]) for k, v in state.items())
    times = [row["seconds"] for row in rows]
    assert times == sorted(times) and 0 <= times[0] and times[-1] < 60
    for row in rows[1:]:
        assert row["loss"] == pytest.approx(row["a"])


def test_without_somebody_to_show_it_to_nothing_is_drawn():
    run(planned(2, preview_every=1), image=lambda: 1 / 0)


@pytest.mark.parametrize("decay", [False, True])
def test_rates_are_each_parts_own_and_fall_in_a_straight_line(decay, monkeypatch):
    used, plain = [], torch.optim.AdamW.step

    def step(self, *args):
        used.append([group["lr"] for group in self.param_groups])
        assert all(group["weight_decay"] == 0 for group in self.param_groups)
        return plain(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    plan = Plan(4, {"a": 0.1, "b": 0.5}, decay=decay, progress=False)
    made, _ = run(plan)
    shares = [1.0, 0.75, 0.5, 0.25] if decay else [1.0] * 4
    assert used == [[pytest.approx(0.1 * s), pytest.approx(0.5 * s)] for s in shares]
    last = made.found.rows[-1]
    assert last["loss"] == pytest.approx(last["a"] + last["b"])


def test_a_steep_loss_is_clipped_to_one(monkeypatch):
    norms, plain = [], torch.nn.utils.clip_grad_norm_

    def clip(parameters, largest):
        norms.append(largest)
        return plain(parameters, largest)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    run(planned(2))
    assert norms == [1.0, 1.0]


def test_a_loss_that_is_no_number_ends_it_and_ctrl_c_keeps_the_best():
    with pytest.raises(RuntimeError, match="nan at step 1.*smaller learning rates"):
        run(planned(3), loss=lambda step: {"a": torch.tensor(math.nan, requires_grad=True)})
    calls = []

    def interrupted(step):
        calls.append(step)
        if step == 3:
            raise KeyboardInterrupt
        return {"a": torch.zeros((), requires_grad=True)}

    made, _ = run(planned(9, check_every=1), loss=interrupted)
    assert made.found.stopped == "interrupted" and calls == [1, 2, 3]
    assert [row["step"] for row in made.found.rows] == [0, 1, 2]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"steps": -1}, "steps=-1"),
        ({"rates": {"a": -0.1}}, "a=-0.1"),
        ({"rates": {"a": math.inf}}, "a=inf"),
        ({"check_every": 0}, "check_every=0"),
        ({"preview_every": 0}, "preview_every=0"),
        ({"at": (5,)}, "at=5"),
        ({"at": (-1,)}, "at=-1"),
    ],
)
def test_plans_out_of_range_are_refused_by_name(wrong, said):
    with pytest.raises(ValueError, match=rf"^{said}: need"):
        Plan(**{"steps": 4, "rates": {"a": 0.1}, **wrong})


def test_plans_at_the_edge_of_the_range_are_taken():
    Plan(0, {"a": 0.0}, at=(0,), check_every=1, preview_every=1)
    assert Plan(4, {"a": 0.1}, at=(0, 4)).at == (0, 4)
