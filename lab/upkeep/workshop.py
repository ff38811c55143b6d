"""The timetables of docs/workshop.md, from measured minutes and from the notebooks themselves.

`python -m lab.upkeep.workshop` writes the blocks between the marks: what a notebook takes to run
(as `make run` measured it), to read and to work through, plans by the clock, where one can begin.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from dsd_tutorial.course.notebooks import Notebook, all_notebooks
from lab.upkeep.blocks import ROOT, write_blocks
from lab.upkeep.slides import Slide, slides_of

PAGE, COMMAND = "docs/workshop.md", "python -m lab.upkeep.workshop"
WORDS_A_MINUTE = 130  # of text that is also looked at
UNMEASURED = 6  # minutes that a notebook may take, until it has been measured
LEAST_QUESTIONS = 5  # minutes that must be left at the end of a plan

# (minutes, words) is said by you; ("run", number) is a notebook, executed while you go on talking;
# ("do", number, exercise) takes what the notebook says.
PLANS: dict[str, tuple[int, list[tuple]]] = {
    "90 minutes: a picture becomes a prompt": (90, [
        (5, "Welcome; everybody has run `dsd-tutorial doctor` at home. What the two papers claim"),
        ("run", "00"),
        (12, "00, sections 2, 5 and 6: one image, one denoising step, where the text gets in"),
        ("run", "03"),
        (8, "03, section 1 and the five lines of section 2, on the board"),
        ("do", "03", 1),
        ("do", "03", 2),
        (6, "03, section 5: the gallery and its controls"),
        ("run", "04"),
        (8, "04, sections 1 to 3: the edit as a formula, its sweep over alpha"),
        ("do", "04", 1),
    ]),
    "Half a day: reading and steering": (240, [
        (10, "Welcome; the world of shapes, the judge, what counts as evidence"),
        ("run", "00"),
        (15, "00: every tensor of one denoising step"),
        ("run", "01"),
        (15, "01, sections 2 to 5: from Q and K to a score, heat maps and their controls"),
        ("do", "01", 1),
        ("do", "01", 4),
        (10, "Break"),
        ("run", "02"),
        (10, "02, sections 2, 3 and 9: what a few labels can teach, and what is wrong on purpose"),
        ("do", "02", 2),
        ("run", "03"),
        (15, "03, sections 1 to 3: five lines from a loss to a matrix"),
        ("do", "03", 1),
        ("do", "03", 3),
        (15, "Break"),
        ("run", "04"),
        (15, "04: edits, FT and CT, and what each forgets"),
        ("do", "04", 1),
        ("do", "04", 4),
        ("do", "04", 5),
        (15, "In groups: one claim of 04 on pictures of their own, with its control"),
    ]),
}  # fmt: skip

JUMPS: list[tuple[str, int, str]] = [
    ("00", 5, "one denoising step, tensor by tensor; nothing before it is needed"),
    ("01", 2, "the attention score; needs softmax and the first cell's imports"),
    ("01", 3, "traps of pooling, noise that must be shared, heat maps and their controls"),
    ("02", 3, "a loss and a training step by hand; needs gradients"),
    ("02", 9, "four mistakes that look like training; needs sections 1 to 3 to have run"),
    ("03", 2, "the closed form; needs a singular value decomposition"),
    ("03", 8, "where a fact is lost, stage by stage; needs sections 1 to 5 to have run"),
    ("04", 2, "the edit and its sweep; needs notebook 03's idea, not its code"),
    ("04", 5, "tuning on one picture; needs section 1 to have run"),
]


@dataclass(frozen=True)
class Lesson:
    """A notebook as a teacher sees it: minutes, sections by number, exercises by number."""

    notebook: Notebook
    words: int
    sections: dict[int, str]
    exercises: dict[int, tuple[str, int]]  # number -> (title, minutes)
    slides: list[Slide]

    @property
    def run(self) -> int:
        """Minutes to execute all cells, rounded up."""
        seconds = self.notebook.seconds
        return UNMEASURED if seconds is None else math.ceil(seconds / 60)

    @property
    def read(self) -> int:
        """Minutes to read its text, rounded to five."""
        return 5 * math.ceil(self.words / WORDS_A_MINUTE / 5)

    @property
    def work(self) -> int:
        """Minutes for all its exercises, as it says."""
        return sum(minutes for _, minutes in self.exercises.values())


def lesson(notebook: Notebook) -> Lesson:
    """The `Lesson` in a notebook's own headings."""
    read = json.loads(notebook.path.read_text(encoding="utf-8"))
    cells = read["cells"]
    text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    sections = {int(n): title for n, title in re.findall(r"^## (\d+)\. (.+)$", text, re.M)}
    found = re.findall(r"^### ✏ Exercise (\d+): (.+)\n\n.*?\*\*(\d+) minutes\*\*", text, re.M)
    exercises = {int(n): (title, int(minutes)) for n, title, minutes in found}
    return Lesson(notebook, len(text.split()), sections, exercises, slides_of(read))


def slides_about(one: Lesson, told: str) -> str:
    """Which slides of a deck show the sections that a plan names, e.g. "slides 13 to 20".

    A plan that names no section speaks of the whole deck: "".
    """
    named = re.search(r"sections? (\d+)(?:(, \d+)* and (?:[a-z ]*section )?(\d+)| to (\d+))?", told)
    if not named:
        return ""
    numbers = {int(n) for n in re.findall(r"\d+", named[0])}
    if " to " in named[0]:
        numbers = set(range(min(numbers), max(numbers) + 1))
    starts = tuple(f"{n}. " for n in numbers)
    return ranges(i for i, x in enumerate(one.slides, 1) if (x.over or x.title).startswith(starts))


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as "slide 3" or "slides 3, 5 to 7"; "" for none."""
    found: list[list[int]] = []
    for n in numbers:
        if found and n == found[-1][-1] + 1:
            found[-1].append(n)
        else:
            found.append([n])
    runs = [f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in found]
    many = len(found) > 1 or any(len(run) > 1 for run in found)
    return f"slide{'s' if many else ''} {', '.join(runs)}" if runs else ""


def lessons() -> dict[str, Lesson]:
    """Notebook number ("00") -> `Lesson`."""
    return {found.name[:2]: lesson(found) for found in all_notebooks(ROOT)}


def minutes_table(known: dict[str, Lesson]) -> str:
    """Minutes to run, to read and to work through each notebook, in Markdown."""
    rows = ["| notebook | run | read | exercises |", "| --- | ---: | ---: | ---: |"]
    for one in known.values():
        run = f"{one.run}" if one.notebook.seconds is not None else f"≤ {one.run}"
        link = f"[{one.notebook.title}](../notebooks/{one.notebook.path.name})"
        rows.append(f"| {link} | {run} | {one.read} | {one.work or '–'} |")
    return "\n".join(rows)


def entries(known: dict[str, Lesson], plan: list[tuple]) -> list[tuple[int, str]]:
    """(minutes, what) of a plan; a notebook that runs costs no minutes, since you go on talking."""
    told = []
    for entry in plan:
        match entry:
            case "run", number:
                minutes = known[number].run
                told.append((0, f"*Run all of {number}* ({minutes} min in the background)"))
            case "do", number, exercise:
                title, minutes = known[number].exercises[exercise]
                heading = f"✏ Exercise {exercise}: {title}"
                at = [i for i, x in enumerate(known[number].slides, 1) if x.title == heading]
                told.append((minutes, f"**{number}, exercise {exercise}**: {title} ({ranges(at)})"))
            case minutes, what:
                shown = slides_about(known[what[:2]], what) if what[:2] in known else ""
                told.append((minutes, f"{what} ({shown})" if shown else what))
    return told


def plan_table(known: dict[str, Lesson], total: int, plan: list[tuple]) -> str:
    """A plan by the clock, in Markdown; what is left is for questions.

    Raises ValueError where too little is left.
    """
    told = entries(known, plan)
    left = total - sum(minutes for minutes, _ in told)
    if left < LEAST_QUESTIONS:
        raise ValueError(f"only {left} of {total} minutes are left for questions: shorten the plan")
    rows, now = ["| from | minutes | what |", "| ---: | ---: | --- |"], 0
    for minutes, what in [*told, (left, "Questions, the quiz, take-aways")]:
        rows.append(f"| {now // 60}:{now % 60:02} | {minutes or ''} | {what} |")
        now += minutes
    return "\n".join(rows)


def plans(known: dict[str, Lesson]) -> str:
    """All plans, each under its heading."""
    return "\n\n".join(
        f"### {title}\n\n{plan_table(known, total, plan)}" for title, (total, plan) in PLANS.items()
    )


def jump_table(known: dict[str, Lesson]) -> str:
    """Where one can begin, in Markdown."""
    rows = ["| notebook, section | what it teaches, what it needs |", "| --- | --- |"]
    for number, section, what in JUMPS:
        rows.append(f"| {number}, {section}. {known[number].sections[section]} | {what} |")
    return "\n".join(rows)


def blocks() -> dict[str, str]:
    """The blocks of the page as they must be today."""
    known = lessons()
    return {"minutes": minutes_table(known), "plans": plans(known), "jumps": jump_table(known)}


def main() -> None:
    """Write the page."""
    write_blocks(PAGE, COMMAND, blocks())


if __name__ == "__main__":
    main()
