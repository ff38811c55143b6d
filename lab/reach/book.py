"""`make book`: the course as a web page in build/book, from the notebooks as `make run` left them.

One page for each notebook, with its figures; the documents; a glossary, to which first uses of its
words lead; the public names of the package. Nothing in it asks the network for anything: it can be
opened from the disk, carried on a stick, or published as it is (`.github/workflows/book.yml`).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

from dsd_tutorial.saving import write_text
from lab.reach import api, glossary, map
from lab.reach.executed import NotExecuted, all_outputs, widget_html
from lab.reach.staging import MARKS, page_of_notebook, relinked, repository
from lab.reach.tools import BUILD, HERE, ROOT, MissingTool, book_python

SOURCE, WORK = BUILD / "book-source", BUILD / "book-work"
DOCUMENTS = {  # part of the book -> documents
    "Teaching": ("docs/workshop.md",),
    "Your own models and runs": ("docs/real-checkpoints.md", "docs/many-runs.md"),
    "Look up": ("docs/glossary.md", "docs/errors.md", "docs/further-reading.md"),
    "The code": ("docs/architecture.md", "CONTRIBUTING.md"),
}
LEFT_OUT = ("_sources", ".buildinfo", "objects.inv", "*macros.html", "sphinx-thebe.*")
BOX = 'class="task-list-item-checkbox"'
MISNAMED = re.compile(
    r'(<(?:button class="btn search-button-field|summary)[^>]*?)'
    r' aria-label="(?:Search|Toggle hidden content)"'
)
MERMAID = re.compile(r"```mermaid\n.*?```", re.S)


def stage(executed: Path, source: Path = SOURCE) -> list[str]:
    """Write the sources of the book; return its pages, as paths in `source`.

    Raises NotExecuted where a notebook was not run.
    """
    found = all_outputs(executed)
    shutil.rmtree(source, ignore_errors=True)
    where = repository()
    listed = glossary.terms((ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"))
    documents = [path for paths in DOCUMENTS.values() for path in paths]
    notebooks = [f"notebooks/{notebook.path.name}" for notebook, _ in found]
    pages = {"README.md", *documents, *notebooks}
    for (notebook, outputs), path in zip(found, notebooks, strict=True):
        stills = {
            cell: widget_html(executed / notebook.path.name, x) for cell, x in outputs.items()
        }
        page = page_of_notebook(
            json.loads(notebook.path.read_text(encoding="utf-8")), outputs, stills, listed, pages,
            where, notebook.name,
        )  # fmt: skip
        write_text(source / path, json.dumps(page, indent=1, ensure_ascii=False))
    for path in ("README.md", *documents):
        text = MARKS.sub("", (ROOT / path).read_text(encoding="utf-8"))
        text = relinked(text, PurePosixPath(path), pages, where)
        if path == "docs/glossary.md":
            text = glossary.as_directive(text)
        text = MERMAID.sub(f"![{map.alt()}](map.svg)", text)
        write_text(source / (path if path != "README.md" else "index.md"), text)
    write_text(source / "docs" / "map.svg", map.svg())
    for picture in (ROOT / "docs").glob("*.png"):
        shutil.copy(picture, source / "docs")
    rooms = [f"api/{room}.md" for room in api.ROOMS]
    for room, path in zip(api.ROOMS, rooms, strict=True):
        write_text(source / path, api.page(room))
    shutil.copytree(HERE / "static", source / "_static")
    shutil.copy(HERE / "book.yml", source / "_config.yml")
    parts = {"Notebooks": notebooks, **DOCUMENTS}
    parts["The code"] = (*parts["The code"], *rooms)
    write_text(source / "_toc.yml", toc(parts))
    return ["index.md", *notebooks, *documents, *rooms]


def toc(parts: dict[str, tuple[str, ...] | list[str]]) -> str:
    """Return the table of contents, in jupyter-book's words."""
    lines = ["format: jb-book", "root: index", "parts:"]
    for caption, paths in parts.items():
        lines += [f"  - caption: {caption}", "    chapters:"]
        for page in (path.rsplit(".", 1)[0] for path in paths):
            lines.append(f"      - file: {page}")
            if "." in page:  # a room: its name alone, or narrow screens break it within a word
                lines.append(f"        title: {page.rsplit('.', 1)[1]}")
    return "\n".join(lines) + "\n"


def build(output: Path) -> None:
    """Build the staged book into `output`; warnings are errors. Raises CalledProcessError."""
    python = book_python()
    start = "from jupyter_book.cli.main import main; main()"
    command = [python, "-c", start, "build", SOURCE, "--path-output", WORK]
    subprocess.run([*command, "--warningiserror", "--keep-going", "--quiet"], check=True)
    made = WORK / "_build" / "html"
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(made, output, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for page in output.rglob("*.html"):
        write_text(page, tidy(page.read_text(encoding="utf-8")))
    write_text(output / ".nojekyll", "")


def tidy(page: str) -> str:
    """Return a page without what would ask the network (thebe), and with controls that have a name.

    A button whose visible text is not in its `aria-label` cannot be called by voice; the boxes of a
    checklist have no name at all.
    """
    # what has a text of its own goes first: without its opening tag the text would be shown
    page = re.sub(r'<script type="text/x-thebe-config">[^<]*</script>\n?', "", page)
    page = re.sub(r"<script\b[^>]*>[^<]*THEBE_JS_URL[^<]*</script>\n?", "", page)
    page = re.sub(r"<(script|link)\b[^>]*thebe[^>]*>(</script>)?\n?", "", page)
    page = re.sub(r"<script>kernelName = [^<]*</script>\n?", "", page)
    page = re.sub(r'(<i class="theme-switch[^>]*?)\s+title="[^"]*"', r"\1", page)
    page = page.replace(f"<input {BOX}", f'<input aria-label="done" {BOX}')
    return re.sub(MISNAMED, r"\1", page)


def main() -> int:
    """The exit status: 2 where something is missing, which is said in one line."""
    parser = argparse.ArgumentParser(prog="make book", description=__doc__)
    parser.add_argument("--executed", type=Path, default=BUILD, help="the folder of a run")
    parser.add_argument("--output", type=Path, default=BUILD / "book")
    given = parser.parse_args()
    try:
        pages = stage(given.executed.resolve())
        build(given.output.resolve())
    except (NotExecuted, MissingTool) as error:
        print(error, file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"the book was not built: {error}", file=sys.stderr)
        return 1
    print(f"{len(pages)} pages: open {given.output / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
