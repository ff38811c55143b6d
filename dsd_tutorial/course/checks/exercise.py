"""How an exercise judges the learner's own function: run, compare, name the mistake, give a hint.

    checks.soft_maximum(my_function)            # in a notebook: shows a Result
    assert checks.soft_maximum(my_function)     # a Result is true only when the function is right

A function is judged by what it returns, never by how it is written. A mistake is known by a wrong
version of the solution: whoever returns what that version returns has made that mistake.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Mistake:
    """A mistake with its name, why it is one, and its cure; `does` are wrong versions that make it.

    The name is shown at the first attempt, `why` from the second and `cure` from the third.
    """

    name: str
    why: str
    cure: str
    does: tuple[Callable[..., Any], ...] = ()


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

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return f"{self.exercise}: {self.message}"

    def _repr_markdown_(self) -> str:
        sign = "✓" if self.passed else ("✗" if self.attempted else "○")
        return f"{sign} **{self.exercise}**: {self.message}"


class Unanswerable(Exception):
    """The function gave nothing to compare: what happened, in words, and the name of it."""

    def __init__(self, name: str, words: str):
        super().__init__(words)
        self.name = name


@dataclass
class Exercise:
    """One exercise: inputs, the solution, the known mistakes, a first general hint.

    cases     tuples of arguments; the first is the one shown to the learner, so keep it small
    solution  gives the expected answer of each case
    """

    name: str
    hint: str
    solution: Callable[..., Any]
    cases: Sequence[tuple] = ()
    mistakes: Sequence[Mistake] = ()
    attempts: int = field(default=0, init=False)

    def __call__(self, function: Callable[..., Any]) -> Result:
        """Return the `Result` of the learner's function; failed attempts lengthen the hints."""
        try:
            mistake, evidence = self.diagnose(function)
        except NotImplementedError:
            return Result(self.name, False, False, "not attempted yet. Fill in the cell above.")
        except Unanswerable as trouble:
            mistake, evidence = Mistake(trouble.name, "", ""), str(trouble)
        if mistake is None and not evidence:
            self.attempts = 0
            return Result(self.name, True, True, "correct.")
        self.attempts += 1
        name = mistake.name if mistake else "not recognised"
        return Result(self.name, False, True, self._words(mistake, evidence), name)

    def reset(self) -> None:
        """Forget earlier attempts, so that hints begin anew."""
        self.attempts = 0

    def diagnose(self, function: Callable[..., Any]) -> tuple[Mistake | None, str]:
        """Return the mistake and the evidence; (None, "") for a right function.

        Raises NotImplementedError for a stub and `Unanswerable` where nothing can be compared.
        """
        answers = [run(function, args) for args in self.cases]
        expected = [self.solution(*deepcopy(args)) for args in self.cases]
        if all(map(same, answers, expected)):
            return None, ""
        for mistake in self.mistakes:
            if any(self._makes(wrong, answers) for wrong in mistake.does):
                return mistake, self._evidence(answers, expected)
        return None, self._evidence(answers, expected)

    def _makes(self, wrong: Callable[..., Any], answers: list[Tensor]) -> bool:
        try:
            return all(map(same, answers, [wrong(*deepcopy(args)) for args in self.cases]))
        except (IndexError, RuntimeError):  # a wrong version may not even fit every case
            return False

    def _evidence(self, answers: list[Tensor], expected: list[Tensor]) -> str:
        for place, (got, want) in enumerate(zip(answers, expected, strict=True)):
            if same(got, want):
                continue
            want = torch.as_tensor(want)
            if got.shape != want.shape:
                return f"shape {tuple(got.shape)} came back, {tuple(want.shape)} is asked for."
            return f"{_case(self.cases[place])} your answer is {_show(got)}, not {_show(want)}."
        return ""

    def _words(self, mistake: Mistake | None, evidence: str) -> str:
        first = f"not yet, this looks like **{mistake.name}**." if mistake else "not yet."
        said = [first, evidence, self.hint]
        if mistake and self.attempts >= 2:
            said.append(mistake.why)
        if mistake and self.attempts >= 3:
            said.append(mistake.cure)
        if not mistake and self.attempts >= 3:
            said.append("Stuck? The solution is folded away in the next cell.")
        return " ".join(part for part in said if part)


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Return standard normal numbers times `scale`, the same for the same seed."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(function: Callable[..., Any], args: tuple) -> Tensor:
    """Return what `function` answers to a copy of `args`, as a tensor.

    Raises NotImplementedError for a stub (it raises that, or returns ...), `Unanswerable` for an
    error inside it, for None, for changed inputs and for what is no tensor.
    """
    given = deepcopy(args)
    answer = guarded(function, given)
    if not _equal(given, args):
        raise Unanswerable("changed its input", "It changed its input in place: work on a copy.")
    try:
        return torch.as_tensor(answer).detach()
    except (TypeError, ValueError, RuntimeError):
        words = f"It returned a {type(answer).__name__}, which is no tensor."
        raise Unanswerable("no tensor", words) from None


def guarded(function: Callable[..., Any], args: tuple) -> Any:
    """Return function(*args); raises NotImplementedError for a stub, `Unanswerable` otherwise."""
    try:
        answer = function(*args)
    except (NotImplementedError, Unanswerable):
        raise
    except Exception as error:  # whatever the learner's code raises is an answer, not a crash
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"line {last.lineno}: `{last.line}`" if last.line else f"line {last.lineno}"
        words = f"It stopped at {where} with {type(error).__name__}: {error}."
        raise Unanswerable("an error inside your function", words) from None
    if answer is ...:
        raise NotImplementedError
    if answer is None:
        raise Unanswerable("nothing returned", "It returned None: is a `return` missing?")
    return answer


def same(a: Any, b: Any) -> bool:
    """Return whether two answers agree: equal shape, equal values within the tolerance."""
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    if a.shape != b.shape:
        return False
    a, b = a.to("cpu", torch.float64), b.to("cpu", torch.float64)
    return torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.shape == b.shape and bool((a == b).all())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return True


def _case(args: tuple) -> str:
    small = all(not isinstance(a, dict) and torch.as_tensor(a).numel() <= 12 for a in args)
    return f"For {', '.join(_show(torch.as_tensor(a)) for a in args)}" if small else "For one input"


def _show(value: Any, most: int = 4) -> str:
    value = torch.as_tensor(value)
    if value.ndim == 0:
        return f"{value.item():.4g}" if value.is_floating_point() else str(value.item())
    numbers = value.flatten()[:most].tolist() if value.numel() > 12 else value.tolist()
    return _list(numbers, "..." if value.numel() > 12 else "")


def _list(numbers: Any, tail: str = "") -> str:
    if not isinstance(numbers, list):
        return f"{numbers:.4g}" if isinstance(numbers, float) else str(numbers)
    return "[" + ", ".join([_list(n) for n in numbers] + [tail] * bool(tail)) + "]"
