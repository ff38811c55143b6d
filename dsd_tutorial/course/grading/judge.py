"""The side that judges: it asks a sandbox for answers and compares them by the package's checks.

A hand-in's function stands here as a `far` one: called with arguments, it asks the sandbox. So the
checks run unchanged, in this process, which no line of the hand-in ever enters.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from dsd_tutorial.course.checks.exercise import (
    UNKNOWN,
    Exercise,
    Unanswerable,
    changed_input,
    equal,
    no_tensor,
    nothing_returned,
    stopped_at,
)
from dsd_tutorial.course.grading.process import Sandbox, Stopped

CALLS = 20_000  # times that one exercise may call the judge back


@dataclass(frozen=True)
class Verdict:
    """What was found for one exercise."""

    exercise: str
    right: bool
    mistake: str  # its name; "" where right
    evidence: str
    seconds: float


def _callbacks(functions: list[Callable]) -> Callable[[dict], dict]:
    """What answers when the sandbox calls one of the check's functions."""
    calls = 0

    def reply(message: dict) -> dict:
        nonlocal calls
        calls += 1
        if calls > CALLS:
            raise Stopped("too slow", f"It called a given function more than {CALLS} times.")
        args, kwargs = list(message["args"]), dict(message.get("kwargs", {}))
        given = [*args, *kwargs.values()]
        wanted = [x for x in given if isinstance(x, torch.Tensor) and x.requires_grad]
        try:
            with torch.enable_grad():
                value = functions[message["callback"]](*args, **kwargs)
        except Unanswerable:
            raise
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        slopes: list[Any] = [None] * len(wanted)
        if wanted and isinstance(value, torch.Tensor) and value.requires_grad:
            slopes = list(torch.autograd.grad(value.sum(), wanted, allow_unused=True))
        value = value.detach() if isinstance(value, torch.Tensor) else value
        return {"value": value, "slopes": slopes}

    return reply


def far(sandbox: Sandbox, *args: Any) -> Any:
    """What a hand-in's function answers. Raises what `checks.exercise.run` expects: see there."""
    functions: list[Callable] = []
    reply = _callbacks(functions)
    message = sandbox.ask({"args": list(args)}, functions)
    while "callback" in message:
        try:
            told = reply(message)
        except (KeyError, IndexError, TypeError, ValueError):
            told = {"error": "ValueError: such a call has no meaning"}
        except Unanswerable:
            sandbox.end()  # it waits for a reply that it will not get
            raise
        message = sandbox.ask(told)
    return _judged(message, args)


def _judged(message: dict, args: tuple) -> Any:
    if "stub" in message:
        raise NotImplementedError
    if "error" in message:
        raise _inside(message["error"])
    if "no_tensor" in message:
        raise no_tensor(str(message["no_tensor"]))
    if message.get("answer") is None:
        raise nothing_returned()
    after = message.get("after")
    kept = [arg for arg in args if not callable(arg)]
    if not isinstance(after, list) or not equal(
        [left for left, arg in zip(after, args, strict=False) if not callable(arg)], kept
    ):
        raise changed_input()
    return message["answer"]


def _inside(error: Any) -> Unanswerable:
    if not isinstance(error, dict):
        return Stopped("no readable answer", "Its error could not be read.")
    parts = (error.get(key) for key in ("line", "source", "kind", "says"))
    return stopped_at(*parts)


def judged(exercise: Exercise, sandbox: Sandbox, cells: list[tuple[str, str]]) -> Verdict:
    """The verdict on one exercise of a hand-in, whose cells define it."""
    sandbox.ready()
    start = time.perf_counter()
    mistake, evidence = _diagnosed(exercise, sandbox, cells)
    seconds = round(time.perf_counter() - start, 2)
    return Verdict(exercise.name, mistake is None, mistake or "", evidence, seconds)


def _diagnosed(
    exercise: Exercise, sandbox: Sandbox, cells: list[tuple[str, str]]
) -> tuple[str | None, str]:
    """(the name of the mistake, the evidence), or (None, "") for a right function."""
    try:
        told = sandbox.load(exercise.name, cells)
        if "error" in told:
            raise _inside(told["error"])
        if not told.get("loaded"):
            return "no function", f"Nothing called {exercise.name} is defined."
        return _compared(replace(exercise), partial(far, sandbox))
    except NotImplementedError:
        return "not attempted", ""
    except Unanswerable as trouble:
        return trouble.name, str(trouble)


def _compared(exercise: Exercise, function: Callable) -> tuple[str | None, str]:
    try:
        return exercise.diagnose(function)
    except (NotImplementedError, Unanswerable):
        raise
    except Exception as error:  # an answer so odd that the check itself cannot compare it
        return UNKNOWN, f"It cannot be compared ({type(error).__name__})."
