"""How an exercise judges the learner's own function: run, compare, name the mistake, give a hint.

    checks.soft_maximum(my_function)            # in a notebook: shows a Result
    assert checks.soft_maximum(my_function)     # a Result is true only when the function is right

A function is judged by what it returns, never by how it is written. A mistake is known by a wrong
version of the solution: whoever returns what that version returns has made that mistake.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 1e-4
MANY = 12  # numbers; of more, only the first few are shown
UNKNOWN = "not recognised"
INSIDE = "an error inside your function"

Function = Callable[..., Any]
Mistakes = Mapping[str, tuple[str, str, *tuple[Function, ...]]]


@dataclass(frozen=True)
class Result:
    """What a check found. True in a condition only when the function is right.

    `mistake` is the name of the mistake, "not recognised" for an unknown one, None otherwise.
    """

    exercise: str
    passed: bool
    attempted: bool
    message: str
    mistake: str | None = None
    attempts: int = 0  # so far, this one included; stubs are none

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return f"{self.exercise}: {self.message}"

    def _repr_markdown_(self) -> tuple[str, dict[str, int]]:
        """The text, and beside it for whoever reads the notebook by machine: the attempts."""
        sign = "✓" if self.passed else ("✗" if self.attempted else "○")
        return f"{sign} **{self.exercise}**: {self.message}", {"attempts": self.attempts}


class Unanswerable(Exception):
    """The function gave nothing to compare: what happened, in words, and the name of it."""

    def __init__(self, name: str, words: str):
        super().__init__(words)
        self.name = name


@dataclass
class Exercise:
    """One exercise: inputs, the solution, a first general hint, the known mistakes.

    cases     tuples of arguments; the first is the one shown to the learner, so keep it small
    mistakes  name -> (why it is one, its cure, wrong versions that make it); the name is shown at
              the first attempt, `why` from the second and `cure` from the third
    evidence  (arguments, answer, expected answer) -> the sentence that shows where they differ
    """

    name: str
    hint: str
    solution: Function
    cases: Sequence[tuple[Any, ...]] = ()
    mistakes: Mistakes = field(default_factory=dict)
    evidence: Callable[[tuple[Any, ...], Tensor, Tensor], str] | None = None
    attempts: int = field(default=0, init=False)

    def __call__(self, function: Function) -> Result:
        """Return the `Result` of the learner's function; failed attempts lengthen the hints."""
        try:
            mistake, evidence = self.diagnose(function)
        except NotImplementedError:
            said = "not attempted yet. Fill in the cell above."
            return Result(self.name, False, False, said, attempts=self.attempts)
        except Unanswerable as trouble:
            mistake, evidence = trouble.name, str(trouble)
        self.attempts += 1
        if mistake is None:
            attempts, self.attempts = self.attempts, 0
            return Result(self.name, True, True, "correct.", attempts=attempts)
        said = self._words(mistake, evidence)
        return Result(self.name, False, True, said, mistake, self.attempts)

    def reset(self) -> None:
        """Forget earlier attempts, so that hints begin anew."""
        self.attempts = 0

    def diagnose(self, function: Function) -> tuple[str | None, str]:
        """Return the name of the mistake and the evidence; (None, "") for a right function.

        Raises NotImplementedError for a stub and `Unanswerable` where nothing can be compared.
        """
        answers = [run(function, args) for args in self.cases]
        expected = [torch.as_tensor(self.solution(*deepcopy(args))) for args in self.cases]
        if all(map(same, answers, expected)):
            return None, ""
        for name, (_, _, *wrong) in self.mistakes.items():
            if any(self._makes(version, answers) for version in wrong):
                return name, self._difference(answers, expected)
        return UNKNOWN, self._difference(answers, expected)

    def _makes(self, wrong: Function, answers: list[Tensor]) -> bool:
        try:
            return all(map(same, answers, [wrong(*deepcopy(args)) for args in self.cases]))
        except (IndexError, RuntimeError):  # a wrong version may not even fit every case
            return False

    def _difference(self, answers: list[Tensor], expected: list[Tensor]) -> str:
        for args, got, want in zip(self.cases, answers, expected, strict=True):
            if got.shape != want.shape:
                return f"shape {tuple(got.shape)} came back, {tuple(want.shape)} is expected."
            if not same(got, want):
                return (self.evidence or _side_by_side)(args, got, want)
        return ""

    def _words(self, mistake: str, evidence: str) -> str:
        first = "not yet." if mistake == UNKNOWN else f"not yet, this looks like **{mistake}**."
        why, cure, *_ = self.mistakes.get(mistake, ("", ""))
        if mistake == UNKNOWN:
            cure = "Stuck? The solution is folded away in the next cell."
        said = [first, evidence, self.hint, why, cure][: 2 + self.attempts]
        return " ".join(part for part in said if part)


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Return standard normal numbers times `scale`, the same for the same seed."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(function: Function, args: tuple[Any, ...]) -> Tensor:
    """Return what `function` answers to a copy of `args`, as a tensor.

    Raises NotImplementedError for a stub (it raises that, or returns ...), `Unanswerable` for an
    error inside it, for None, for changed inputs and for what is no tensor.
    """
    given = deepcopy(args)
    try:
        answer = function(*given)
    except (NotImplementedError, Unanswerable):
        raise
    except Exception as error:  # whatever the learner's code raises is an answer, not a crash
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise stopped_at(last.lineno, last.line, type(error).__name__, error) from None
    if answer is ...:
        raise NotImplementedError
    if answer is None:
        raise nothing_returned()
    if not equal(given, args):
        raise changed_input()
    try:
        return torch.as_tensor(answer).detach()
    except (TypeError, ValueError, RuntimeError):
        raise no_tensor(type(answer).__name__) from None


def stopped_at(line: Any, source: Any, kind: Any, says: Any) -> Unanswerable:
    """Return what is said of an error inside the learner's function."""
    where = f"line {line}: `{source}`" if source else f"line {line}"
    words = f"It stopped at {where} with {kind}: {says}."
    return Unanswerable(INSIDE, words)


def nothing_returned() -> Unanswerable:
    """Return what is said of an answer of None."""
    return Unanswerable("nothing returned", "It returned None: is a `return` missing?")


def changed_input() -> Unanswerable:
    """Return what is said of a function that changes its arguments."""
    return Unanswerable("changed its input", "It changed its input in place: work on a copy.")


def no_tensor(kind: str) -> Unanswerable:
    """Return what is said of an answer that is no tensor, list, array or number."""
    return Unanswerable("no tensor", f"It returned a {kind}, which is no tensor.")


def same(a: Any, b: Any) -> bool:
    """Return whether two answers agree: equal shape, equal values within the tolerance."""
    a, b = (torch.as_tensor(x).to("cpu", torch.float64) for x in (a, b))
    return a.shape == b.shape and torch.allclose(a, b, TOLERANCE, TOLERANCE, equal_nan=True)


def equal(a: Any, b: Any) -> bool:
    """Return whether two nested values hold equal tensors."""
    if isinstance(a, Tensor):
        return a.shape == b.shape and bool((a == b).all())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return True


def _side_by_side(args: tuple[Any, ...], got: Tensor, want: Tensor) -> str:
    small = all(not isinstance(a, dict) and np.asarray(a).size <= MANY for a in args)
    case = f"For {', '.join(map(shown, args))}" if small else "For one input"
    return f"{case} your answer is {shown(got)}, not {shown(want)}."


def shown(value: Any) -> str:
    """Return a tensor, array or number on one line; of many numbers the first four."""
    numbers = np.asarray(value)
    few = numbers if numbers.size <= MANY else numbers.ravel()[:4]
    text = np.array2string(
        few, separator=", ", formatter={"float": "{:.4g}".format, "int": str, "bool": str}
    )
    text = " ".join(text.split())
    return text if numbers.size <= MANY else f"{text[:-1]}, ...]"
