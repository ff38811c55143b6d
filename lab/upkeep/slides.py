"""What of a notebook stands on slides: read from the metadata of its own cells.

A Markdown cell with `slide_type: slide` begins a slide, or one for each of its headings. On the
slide stand title, the sentences that carry the idea (`sentences: "2 3"` numbers them; without it
the first), formulas, lists and tables; the whole prose goes to the speaker's notes, as does all
that follows until the next slide. A code cell with `slide_type: fragment` adds its figure, or its
lines where they are few, and what it printed.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_LINES = 8  # of code on one slide
MOST_PRINTED = 12  # lines of what a cell printed
NEVER = ("Five questions", "What this run took")  # sections that stay in the notebook
GOALS = re.compile(r"\*\*After (this notebook|it) you can\*\*")
ENDS = r"(?:(?<=[.!?])|(?<=[.!?][)*\"”])|(?<=[.!?]\*\*))(?<!et al\.)(?<!e\.g\.)(?<!i\.e\.)"
SENTENCE = re.compile(ENDS + r"\s+(?=[^a-z\s])")
LIST, TABLE, QUOTED = re.compile(r"[*-] |\d+\. "), re.compile(r"\|"), re.compile(r" {4,}")


@dataclass
class Slide:
    """One slide: all texts are Markdown, code and outputs are as in the notebook."""

    title: str
    over: str = ""  # the section that it belongs to
    said: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    outputs: list[Mapping[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    exercise: bool = False
    first: bool = False


@dataclass(frozen=True)
class Part:
    """A heading with what stands below it, in one Markdown cell; level 0 is before any heading."""

    level: int
    title: str
    body: str


def parts(source: str) -> list[Part]:
    """Return the parts of a Markdown cell, without empty ones.

    A section that is followed by a subsection at once keeps its text for the notes: the subsection
    is what is shown, below the section's name.
    """
    pieces = re.split(r"^(#+) (.+)$", source, flags=re.M)
    found = [Part(0, "", pieces[0].strip())]
    found += [
        Part(len(marks), title.strip(), body.strip())
        for marks, title, body in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True)
    ]
    return [part for part in found if part.title or part.body]


def blocks(body: str) -> list[str]:
    """Return paragraphs, lists, tables and formulas of Markdown, in order."""
    return [block.strip("\n") for block in re.split(r"\n\s*\n", body) if block.strip()]


def is_prose(block: str) -> bool:
    """Whether a block is a paragraph, rather than a list, a table or a formula."""
    return not any(kind.match(block) for kind in (LIST, TABLE, QUOTED))


def sentences(block: str) -> list[str]:
    """Return the sentences of a paragraph."""
    return SENTENCE.split(" ".join(block.split()))


def lead(block: str) -> tuple[str, str]:
    """Return (title, rest) of a paragraph that begins in bold; the rest keeps a title it needs."""
    found = re.match(r"\*\*(.+?)\*\*\s*", block)
    if not found:
        return "", block
    title = found.group(1)
    return title.rstrip(".:"), block[found.end() :] if title[-1] in ".:?" else block


def told(body: str, wanted: str | None) -> list[str]:
    """Return what a slide says of a text: chosen sentences, then formulas, lists and tables."""
    every = blocks(body)
    kept = [block for block in every if not is_prose(block)]
    leads = [lead(block) for block in every if is_prose(block)]
    prose = [sentence for _, rest in leads for sentence in sentences(rest)]
    if sum(bool(title) for title, _ in leads) >= 3:  # a list, written as paragraphs
        points = [f"* **{title}.** {sentences(rest)[0]}" for title, rest in leads if title and rest]
        return ["\n".join(points), *kept]
    if not wanted and kept and every[0] == kept[0]:  # a list that needs no introduction
        return kept
    chosen = [int(n) for n in (wanted or "1").split()]
    last = max(chosen)
    if wanted and last > len(prose):
        raise ValueError(f"sentence {last} is asked for, there are {len(prose)}: {body[:60]}")
    idea = " ".join(prose[n - 1] for n in chosen if n <= len(prose))
    return [idea, *kept] if idea else kept


def lines_of(code: str) -> int:
    """Return the number of lines of code, without blank lines, comments and docstrings."""
    counted: set[int] = set()
    before = tokenize.NEWLINE
    quiet = (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE)
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        docstring = token.type == tokenize.STRING and before in quiet
        if token.type not in (*quiet, tokenize.ENDMARKER) and not docstring:
            counted.update(range(token.start[0], token.end[0] + 1))
        before = token.type
    return len(counted)


class _Deck:
    """The slides so far, and where we are in the notebook."""

    def __init__(self) -> None:
        self.slides: list[Slide] = []
        self.section = self.heading = ""

    def note(self, text: str) -> None:
        if self.slides and text:
            self.slides[-1].notes.append(text)

    def passed(self, part: Part) -> None:
        """Remember a heading."""
        if part.level == 2:
            self.section = part.title
        if part.level >= 2 and not part.title.startswith("✏"):
            self.heading = part.title

    def show(self, part: Part, wanted: str | None) -> None:
        """Add the slide of one part, with its prose as notes."""
        prose = [block for block in blocks(part.body) if is_prose(block)]
        exercise = part.title.startswith("✏")
        asked = [x for block in prose[:1] for x in sentences(block)[:1] if x.endswith("?")]
        title = part.title or lead(prose[0] if prose else "")[0] or "".join(asked) or self.heading
        title = title[:1].upper() + title[1:]
        slide = Slide(title, "" if title == self.section else self.section, exercise=exercise)
        slide.said = blocks(part.body) if exercise else told(part.body, wanted)
        self.slides.append(slide)
        self.note(part.body)

    def begin(self, part: Part, wanted: str | None) -> None:
        """Add the first slide, of title and first sentences, and the one of what is learned."""
        mark = GOALS.search(part.body)
        before, after = part.body[: mark.start()], part.body[mark.end() :]
        self.slides.append(Slide(part.title, said=told(before, wanted or "1 2"), first=True))
        self.note(before)
        goals = next(block for block in blocks(after) if LIST.match(block))
        self.slides.append(Slide(mark[0].strip("*"), said=[goals]))
        self.note(after)


def _markdown(deck: _Deck, source: str, mark: Mapping[str, str]) -> None:
    shown = mark.get("slide_type") == "slide"
    found = parts(source)
    for i, part in enumerate(found):
        deck.passed(part)
        if part.level == 1 and shown:
            deck.begin(part, mark.get("sentences"))
            continue
        below = found[i + 1] if i + 1 < len(found) else part
        opener = (part.level, below.level) == (2, 3) and not below.title.startswith("✏")
        aside = not part.level and len(found) > 1  # what ends the slide before
        if shown and part.body and not (opener or aside or part.title in NEVER):
            deck.show(part, mark.get("sentences"))
        elif part.title not in NEVER:
            deck.note(part.body)


def slides_of(
    notebook: Mapping[str, Any], outputs: Mapping[str, Sequence[Any]] | None = None
) -> list[Slide]:
    """Return the slides of a notebook (JSON, as committed).

    `outputs` are those of its cells, by cell id, as it was executed; without them nothing is shown
    of what a cell draws. Raises ValueError where a slide shows more than `MOST_LINES` of code.
    """
    deck = _Deck()
    for cell in notebook["cells"]:
        source, mark = "".join(cell["source"]), cell["metadata"].get("slideshow", {})
        if cell["cell_type"] == "markdown":
            _markdown(deck, source, mark)
        elif "solution" in cell["metadata"].get("tags", []):
            deck.note(f"```python\n{source}\n```")
        elif mark.get("slide_type") == "fragment":
            _code(deck.slides[-1], source, (outputs or {}).get(cell["id"], ()))
    for slide in deck.slides:
        if sum(map(lines_of, slide.code)) > MOST_LINES:
            raise ValueError(f"slide {slide.title!r} shows more than {MOST_LINES} lines of code")
    return deck.slides


def _code(slide: Slide, source: str, outputs: Sequence[Mapping[str, Any]]) -> None:
    """Add a code cell to a slide: its first figure, or else its few lines; what it printed."""
    kept = list(_few(outputs))
    drawn = any(is_figure(output) for output in kept) or draws(source)
    if slide.exercise or not (drawn or lines_of(source) > MOST_LINES):
        slide.code.append(source.strip())
    if not slide.exercise:
        slide.outputs += kept


def draws(source: str) -> bool:
    """Whether a cell shows a figure, as its code says."""
    return bool(re.search(r"^\s*(show_\w+|draw_model)\(|\.still\(\)", source, re.M))


def is_figure(output: Mapping[str, Any]) -> bool:
    """Whether an output is a figure of the course."""
    return "<figure" in "".join(output.get("data", {}).get("text/html", ""))


def _few(outputs: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the first figure, and what was printed, if it is short."""
    figure = next((output for output in outputs if is_figure(output)), None)
    for output in outputs:
        printed = output["output_type"] == "stream" and output["name"] == "stdout"
        few = printed and "".join(output["text"]).count("\n") <= MOST_PRINTED
        if output is figure or few:
            yield output
