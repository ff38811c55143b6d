"""Five questions at the end of a notebook, each answer with its own feedback, without a network.

    quiz("00_orientation")

The questions live in `data/quizzes/<name>.yaml`. Every answer is a line that opens when it is
clicked and says why it is right or wrong. That is plain HTML, so it works in a live notebook, in an
exported page, by keyboard and by screen reader, with no kernel and no script behind it.
"""

from __future__ import annotations

import difflib
import html
from dataclasses import dataclass
from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parents[1] / "data" / "quizzes"
QUESTIONS = 5


@dataclass(frozen=True)
class Choice:
    """One answer: what it says, whether it is right, and what is said to those who choose it."""

    text: str
    feedback: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    """A question with its choices, of which exactly one is right."""

    text: str
    choices: tuple[Choice, ...]

    def __post_init__(self) -> None:
        right = [choice for choice in self.choices if choice.right]
        if len(right) != 1 or len(self.choices) < 3:
            raise ValueError(
                f"{self.text!r} has {len(self.choices)} choices, {len(right)} of them right: it "
                "needs three or more, one of them with `right: true`"
            )
        for choice in self.choices:
            if not choice.text.strip() or not choice.feedback.strip():
                raise ValueError(f"{self.text!r}: choice {choice.text!r} lacks text or feedback")


@dataclass(frozen=True)
class Quiz:
    """Five questions. Displayed by itself as the last value of a cell."""

    questions: tuple[Question, ...]

    def __post_init__(self) -> None:
        if len(self.questions) != QUESTIONS:
            raise ValueError(f"a quiz has {QUESTIONS} questions, not {len(self.questions)}")

    def __repr__(self) -> str:
        """The questions with lettered answers, for where HTML cannot be shown."""
        lines = []
        for number, question in enumerate(self.questions, start=1):
            lines.append(f"{number}. {question.text}")
            lines += [f"   {_letter(i)}) {c.text}" for i, c in enumerate(question.choices)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The quiz as HTML: answers of one question open one at a time."""
        shown = [_question_html(n, q) for n, q in enumerate(self.questions, start=1)]
        return f'<div style="max-width:46em">{"".join(shown)}</div>'


def _letter(index: int) -> str:
    return chr(ord("A") + index)


def inline(text: str) -> str:
    """Text as HTML, `code` between back-ticks set as such."""
    parts = html.escape(" ".join(text.split())).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))


def _question_html(number: int, question: Question) -> str:
    rows = []
    for index, choice in enumerate(question.choices):
        verdict = "✓ Right." if choice.right else "✗ Not quite."
        edge = "#009E73" if choice.right else "#D55E00"
        rows.append(
            f'<details name="quiz-{number}" style="margin:0.25em 0 0.25em 1.2em">'
            f'<summary style="cursor:pointer">{_letter(index)}. {inline(choice.text)}</summary>'
            f'<p style="margin:0.2em 0 0.5em 1em;padding-left:0.8em;border-left:3px solid {edge}">'
            f"<strong>{verdict}</strong> {inline(choice.feedback)}</p></details>"
        )
    title = f"<p><strong>{number}. {inline(question.text)}</strong></p>"
    return f'<div role="group" aria-label="Question {number}">{title}{"".join(rows)}</div>'


def read_quiz(path: Path) -> Quiz:
    """The quiz of a YAML file: a list of {question, choices: [{text, feedback, right}]}.

    Raises ValueError where a question has not exactly one right choice, or lacks feedback.
    """
    listed = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Quiz(
        tuple(
            Question(entry["question"], tuple(Choice(**choice) for choice in entry["choices"]))
            for entry in listed
        )
    )


def quiz(name: str) -> Quiz:
    """The quiz of a notebook, by its name. Raises ValueError that names the nearest ones."""
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in FOLDER.glob("*.yaml"))
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.3) or known
        raise ValueError(f"no quiz called {name!r}; nearest: {', '.join(near) or '(none)'}")
    return read_quiz(path)
