"""The glossary of docs/glossary.md, and links from the first use of each word on a page.

A line of the page is `* **term** (another name; another): what it means`. Sphinx makes a glossary
of it; `linked` marks first uses in Markdown, outside of headings, code and links.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LINE = re.compile(r"^\* \*\*(?P<term>.+?)\*\*(?: \((?P<others>[^)]+)\))?: (?P<meaning>.+)$", re.M)
# words that are also everyday English: linked only where the text stresses them
ONLY_STRESSED = {
    "control",
    "gate",
    "identity",
    "judge",
    "reading",
    "matching",
    "schedule",
    "held out",
}
# what no link may stand in: code, links and their targets, roles, raw HTML
PROTECTED = re.compile(
    r"```[\s\S]*?```|^ {4}.*$|`[^`\n]+`|!?\[[^\]]*\]\([^)]*\)|<[^>\n]+>|^#.*$|^:::.*$", re.M
)


@dataclass(frozen=True)
class Term:
    """A word, its other names, and what it means, in Markdown."""

    name: str
    others: tuple[str, ...]
    meaning: str


def terms(page: str) -> list[Term]:
    """Return the terms of a glossary page, in its order."""
    return [
        Term(
            found["term"],
            tuple(name.strip() for name in (found["others"] or "").split(";") if name),
            found["meaning"],
        )
        for found in LINE.finditer(page)
    ]


def as_directive(page: str) -> str:
    """Return the page with its lines as a glossary that Sphinx can link to."""
    listed = terms(page)
    body = "\n\n".join(
        "\n".join([term.name, *term.others, f"  {term.meaning[0].upper()}{term.meaning[1:]}."])
        for term in listed
    )
    return LINE.split(page)[0].rstrip() + f"\n\n```{{glossary}}\n{body}\n```\n"


def linked(markdown: str, listed: list[Term], used: set[str]) -> str:
    """Return Markdown in which first uses are links; `used`, the terms linked so far, grows."""
    for term in sorted(listed, key=lambda term: -len(term.name)):
        if term.name in used:
            continue
        for name in (term.name, *term.others):
            markdown, found = _link_first(markdown, name, term.name)
            if found:
                used.add(term.name)
                break
    return markdown


def _link_first(markdown: str, name: str, term: str) -> tuple[str, bool]:
    plain = re.escape(name) if name.isupper() else rf"(?i:{re.escape(name)})"
    word = rf"(?<![\w`-])({plain}(?:s|es)?)(?![\w`-])"
    if name in ONLY_STRESSED:
        word = rf"(?<=\*){word}(?=\*)"
    at = 0
    for kept in [*PROTECTED.finditer(markdown), None]:
        end = kept.start() if kept else len(markdown)
        found = re.compile(word).search(markdown, at, end)
        if found:
            link = f"{{term}}`{found[1]} <{term}>`"
            return markdown[: found.start()] + link + markdown[found.end() :], True
        at = kept.end() if kept else end
    return markdown, False
