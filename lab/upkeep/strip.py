"""Notebooks as they are committed: no outputs, no counters, no private metadata.

`python -m lab.upkeep.strip` rewrites `notebooks/`; `--check` only says which would change.
"""

import argparse
import copy
import hashlib
import sys
from pathlib import Path

import nbformat

from lab.upkeep.blocks import ROOT

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
KEPT = ("tags", "jupyter", "slideshow")  # what a cell's metadata may say
HIDDEN = ("source_hidden", "outputs_hidden")


def stripped(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy of a notebook in its committed form; the same source always gives the same file.

    Cell ids derive from the source, so that they never change by opening and saving.
    """
    clean = copy.deepcopy(notebook)
    clean.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    clean.nbformat, clean.nbformat_minor = 4, 5
    seen: dict[str, int] = {}
    for cell in clean.cells:
        kept = {key: cell.metadata[key] for key in KEPT if cell.metadata.get(key)}
        if "jupyter" in kept:
            kept["jupyter"] = {k: v for k, v in kept["jupyter"].items() if k in HIDDEN and v}
        cell.metadata = nbformat.from_dict({key: value for key, value in kept.items() if value})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    nbformat.validate(clean)
    return clean


def text_of(notebook: nbformat.NotebookNode) -> str:
    """The file text of a notebook."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def is_stripped(path: Path) -> bool:
    """Whether a file is exactly what `stripped` would write."""
    text = path.read_text(encoding="utf-8")
    return text == text_of(stripped(nbformat.reads(text, as_version=4)))


def main() -> int:
    """The exit status: 1 when `--check` finds a notebook that is not stripped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    changed = [
        path
        for path in given.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb"))
        if not is_stripped(path)
    ]
    for path in changed:
        if not given.check:
            notebook = nbformat.read(path, as_version=4)
            path.write_text(text_of(stripped(notebook)), encoding="utf-8", newline="\n")
        print(f"{'not stripped' if given.check else 'stripped'}: {path.name}")
    return int(given.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
