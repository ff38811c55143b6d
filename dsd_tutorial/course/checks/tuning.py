"""The exercise on tuning a state (notebook 04): gradient descent on a noisy loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dsd_tutorial.course.checks.exercise import Exercise, normal, shown

# -- tune(state, loss, lr, steps): (d,), loss(state, step) -> number, float, int -> (d,) -----------


def _gradient(state: Tensor, loss: Callable[[Tensor, int], Tensor], step: int) -> Tensor:
    state = state.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(loss(state, step), state)
    return slope


def _tune(
    state: Tensor, loss: Callable, lr: float, steps: int, *, sign: int = -1, frozen: bool = False
) -> Tensor:
    """Gradient descent; `frozen` repeats the noise of step 0."""
    for step in range(steps):
        state = state + sign * lr * _gradient(state, loss, 0 if frozen else step)
    return state


def _summed(state: Tensor, loss: Callable, lr: float, steps: int) -> Tensor:
    """As where gradients are never set to zero: each step goes along the sum so far."""
    total = torch.zeros_like(state)
    for step in range(steps):
        total = total + _gradient(state, loss, step)
        state = state - lr * total
    return state


def _bowl(*places: Tensor, steep: float = 1.0) -> Callable[[Tensor, int], Tensor]:
    """A loss with another lowest point at each step, as noise makes one; called as loss(h, i)."""
    return lambda state, step: 0.5 * steep * (state - places[step % len(places)]).square().sum()


def _where_it_went(args: tuple, got: Tensor, want: Tensor) -> str:
    state, _, lr, steps = args
    return (
        f"From {shown(state)}, after {steps} step(s) of size {lr}, your state is {shown(got)}, "
        f"not {shown(want)}."
    )


tune = Exercise(
    name="tune",
    hint="Do two steps on paper for the loss (h - 3)² / 2, from h = 0, with lr = 0.1.",
    solution=_tune,
    evidence=_where_it_went,
    cases=[
        (torch.tensor([0.0]), _bowl(torch.tensor([3.0])), 0.1, 1),
        (torch.tensor([0.0]), _bowl(torch.tensor([3.0])), 0.1, 2),
        (normal(4), _bowl(normal(4, seed=1), normal(4, seed=2), normal(4, seed=3)), 0.2, 7),
        (normal(3, seed=4), _bowl(normal(3, seed=5), normal(3, seed=6), steep=2.0), 0.05, 30),
    ],
    mistakes={
        "uphill": (
            "The gradient points to where the loss grows.",
            "Subtract: state - lr * gradient.",
            lambda h, f, lr, n: _tune(h, f, lr, n, sign=1),
        ),
        "gradients piled up": (
            "backward() adds to .grad: unless it is zeroed, each step repeats all those before.",
            "Set the gradient to zero before each backward pass, or use torch.autograd.grad.",
            _summed,
        ),
        "the same noise at every step": (
            "loss(state, 0) has one noise and time step: all steps fit that noise, not the image.",
            "Call loss(state, step) with the number of the step.",
            lambda h, f, lr, n: _tune(h, f, lr, n, frozen=True),
        ),
        "every gradient at the start": (
            "A step must look at where the last one has led.",
            "Compute the gradient at the current state, inside the loop.",
            lambda h, f, lr, n: h - lr * sum(_gradient(h, f, step) for step in range(n)),
        ),
        "nothing moved": (
            "The state came back as it was: perhaps it was detached, or its update lost.",
            "state = state.detach().requires_grad_(), then the loss, then state - lr * gradient.",
            lambda h, f, lr, n: h,
        ),
        "one step only": (
            "The first step was taken, and then none.",
            "Repeat for step in range(steps).",
            lambda h, f, lr, n: _tune(h, f, lr, 1),
        ),
        "one step too many or too few": (
            "range(steps) is exactly `steps` numbers, 0 to steps - 1.",
            "Loop with `for step in range(steps)`.",
            lambda h, f, lr, n: _tune(h, f, lr, n + 1),
            lambda h, f, lr, n: _tune(h, f, lr, n - 1),
        ),
    },
)
