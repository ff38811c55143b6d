"""Pages of what was graded: one for each hand-in, for the learner; one for the instructor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dsd_tutorial.course import checks
from dsd_tutorial.course.checks.exercise import INSIDE, UNKNOWN
from dsd_tutorial.course.grading.handins import Lesson
from dsd_tutorial.course.quizzes import inline

if TYPE_CHECKING:
    from jinja2 import Environment

    from dsd_tutorial.course.grading.grade import Graded

STATES = {"right": ("✓", "correct"), "wrong": ("✗", "not yet"), "open": ("○", "not attempted")}
NAMED = {UNKNOWN: "none that we know", INSIDE: "an error inside the function"}  # to instructors


def _environment() -> Environment:
    try:
        import jinja2
    except ImportError:
        raise RuntimeError(
            'pages of feedback need jinja2: pip install "dsd-tutorial[teach]".'
        ) from None
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("dsd_tutorial.course.grading", "pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["inline"] = inline  # it escapes by itself, and is called safe in the pages
    return pages


def explained(row: Mapping[str, Any], titles: Mapping[str, str]) -> dict[str, Any]:
    """A row with what the learner is told about it: why it is a mistake, and how to mend it."""
    exercise = getattr(checks, row["exercise"])
    why, cure, *_ = exercise.mistakes.get(row["mistake"], ("", ""))
    unanswered = row["mistake"] in ("not attempted", "no function")
    state = "right" if row["right"] else "open" if unanswered else "wrong"
    sign, word = STATES[state]
    return {
        **row,
        "title": titles.get(row["exercise"], row["exercise"]),
        "state": state,
        "sign": sign,
        "word": word,
        "named": NAMED.get(row["mistake"], row["mistake"]),
        "hint": exercise.hint if state != "right" else "",
        "why": why,
        "cure": cure,
    }


def feedback_page(graded: Graded, lesson: Lesson) -> str:
    """The page of one hand-in."""
    rows = [explained(row, lesson.titles) for row in graded.rows]
    right = sum(row["right"] for row in rows)
    page = _environment().get_template("feedback.html")
    told = {"title": lesson.title, "rows": rows, "right": right, "unknown": UNKNOWN}
    return page.render(graded=graded, **told)


def summary_page(done: Sequence[Graded], walls: str, lessons: Mapping[str, Lesson]) -> str:
    """The instructor's page: who has what, and which mistakes are frequent."""
    notebooks = [
        _notebook_summary([g for g in done if g.notebook == name], lesson)
        for name, lesson in lessons.items()
        if any(g.notebook == name for g in done)
    ]
    problems = [graded for graded in done if graded.problem]
    seconds = sum(row["seconds"] for graded in done for row in graded.rows)
    page = _environment().get_template("summary.html")
    return page.render(
        notebooks=notebooks, problems=problems, walls=walls, n=len(done), seconds=seconds
    )


def _notebook_summary(done: Sequence[Graded], lesson: Lesson) -> dict[str, Any]:
    people = []
    for graded in sorted(done, key=lambda g: (g.person.casefold(), g.file)):
        rows = [explained(row, lesson.titles) for row in graded.rows]
        right = sum(row["right"] for row in rows)
        people.append({"graded": graded, "rows": rows, "right": right})
    handed_in = Counter(graded.person for graded in done)
    every = [row for person in people for row in person["rows"]]
    return {
        "title": lesson.title,
        "people": people,
        "exercises": [_counted(every, name, lesson) for name in lesson.exercises],
        "mistakes": _mistakes(every),
        "twice": sorted(person for person, n in handed_in.items() if n > 1),
    }


def _counted(every: Sequence[Mapping[str, Any]], name: str, lesson: Lesson) -> dict[str, Any]:
    """One exercise: how many have it right, wrong, and not attempted."""
    states = Counter(row["state"] for row in every if row["exercise"] == name)
    return {"title": lesson.titles.get(name, name), **{state: states[state] for state in STATES}}


def _mistakes(every: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mistakes that were made, the most frequent first; one without a reason has an example."""
    wrong = [row for row in every if row["state"] == "wrong"]
    made = Counter((row["title"], row["named"], row["why"]) for row in wrong)
    example = {(row["title"], row["named"]): row["evidence"] for row in reversed(wrong)}
    n = max(made.values(), default=1)
    return [
        {
            "exercise": title, "name": name, "why": why, "n": count, "share": count / n,
            "example": "" if why else example[title, name],
        }
        for (title, name, why), count in made.most_common()
    ]  # fmt: skip
