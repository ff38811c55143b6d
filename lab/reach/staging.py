"""Pages of the book from executed notebooks and documents; only `lab.reach.book` calls this.

The repository's own places are kept (notebooks/, docs/), so that links between pages hold. Links to
files that are no page lead to the repository on GitHub, if its address is known.
"""

from __future__ import annotations

import copy
import os
import re
import subprocess
from pathlib import PurePosixPath
from typing import Any

from dsd_tutorial.course.recording import MIME
from lab.reach.executed import VIEWS, is_progress, source_of
from lab.reach.glossary import Term, linked
from lab.reach.tools import ROOT

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)]*)?\)")
MARKS = re.compile(r"^<!--.*?-->\n?", re.M)


def repository() -> str | None:
    """Return OWNER/NAME on GitHub, as a workflow or the remote says; None where neither does."""
    if os.environ.get("GITHUB_REPOSITORY"):
        return os.environ["GITHUB_REPOSITORY"]
    asked = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    try:
        address = subprocess.run(asked, capture_output=True, text=True).stdout
    except OSError:
        return None
    found = re.search(r"github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?\s*$", address)
    return found[1] if found else None


def relinked(markdown: str, page: PurePosixPath, pages: set[str], where: str | None) -> str:
    """Return Markdown whose links lead to pages of the book, to GitHub, or stay plain text."""

    def link(found: re.Match) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        path = os.path.normpath(page.parent / target).replace(os.sep, "/")
        if path in pages:
            to = "index.md" if path == "README.md" else path
            near = os.path.relpath(to, page.parent).replace(os.sep, "/")
            return f"[{text}]({near})"
        if where and (ROOT / path).exists():
            kind = "tree" if (ROOT / path).is_dir() else "blob"
            return f"[{text}](https://github.com/{where}/{kind}/main/{path}{anchor})"
        return text

    return LINK.sub(link, markdown)


def how_to_run(name: str, where: str | None) -> str:
    """Return the box below a notebook's title: how to run it, with links where they are known."""
    links = {
        "Codespaces": f"https://codespaces.new/{where}",
        "Colab": f"https://colab.research.google.com/github/{where}/blob/main/notebooks/{name}.ipynb",
        "Binder": f"https://mybinder.org/v2/gh/{where}/main?urlpath=lab/tree/notebooks/{name}.ipynb",
    }
    badges = " ".join(f"[{title}]({link}){{.badge}}" for title, link in links.items())
    elsewhere = f"\n\nWithout installing anything: {badges}" if where else ""
    return (
        "\n\n:::{admonition} Run this notebook\n:class: tip run-it\n"
        f"`uvx dsd-tutorial start` puts the course into a folder and opens it in JupyterLab; in a "
        f"clone `make lab` does. `dsd-tutorial run {name[:2]}` runs it without, with parameters of "
        f"your own.{elsewhere}\n:::\n"
    )


def page_of_notebook(
    notebook: dict[str, Any], outputs: dict[str, list[Any]], stills: dict[str, str | None],
    terms: list[Term], pages: set[str], where: str | None, name: str,
) -> dict[str, Any]:  # fmt: skip
    """Return a notebook (JSON) as a page of the book.

    Solutions are folded, widgets are what they showed at first, first uses of the glossary's words
    are links. `outputs` and `stills` by cell id.
    """
    page = copy.deepcopy(notebook)
    used: set[str] = set()
    place = PurePosixPath("notebooks") / f"{name}.ipynb"
    page["metadata"]["mystnb"] = {"execution_mode": "off"}
    for number, cell in enumerate(page["cells"]):
        source, tags = source_of(cell), cell["metadata"].setdefault("tags", [])
        if cell["cell_type"] == "markdown":
            text = linked(relinked(source, place, pages, where), terms, used)
            if number == 0:
                title, rest = text.split("\n", 1)
                text = title + how_to_run(name, where) + rest
            cell["source"] = text
            continue
        # what notebooks record for machines is nothing to look at, nor are bars that are full
        shown = [
            x for x in outputs.get(cell["id"], [])
            if MIME not in x.get("data", {}) and not is_progress(x)
        ]  # fmt: skip
        cell["outputs"] = [_output(x, stills.get(cell["id"])) for x in shown]
        if "solution" in tags:
            tags.append("hide-input")
            cell["metadata"]["mystnb"] = {"code_prompt_show": "Show the solution",
                                          "code_prompt_hide": "Hide the solution"}  # fmt: skip
    return page


def _output(output: dict[str, Any], still: str | None) -> dict[str, Any]:
    """An output as a page can show it: in place of a widget, what it showed at first."""
    if VIEWS not in output.get("data", {}):
        return output
    shown = (
        "<p><em>In a live notebook there are controls here; this is what they show first.</em></p>"
    )
    data = {"text/html": shown + (still or ""), "text/plain": "a widget"}
    return {"output_type": "display_data", "data": data, "metadata": {}}
