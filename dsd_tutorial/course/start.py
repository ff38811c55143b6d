"""The course in a folder of one's own, and JupyterLab at its first notebook: `dsd-tutorial start`.

What a learner changed is never written over. A copy of each file as the course gave it lies in
`.dsd-tutorial/`, so that after an upgrade both can be said: what is new, and what you changed.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from dsd_tutorial.course.execution import KEEP_FREED_MEMORY
from dsd_tutorial.course.notebooks import (
    FOLDER,
    QUICK,
    UnreadableNotebook,
    read_notebook,
    repository,
)
from dsd_tutorial.saving import expanded, require_writable, write_bytes

ORIGINALS = ".dsd-tutorial"  # the files as the course gave them
QUICK_NAME = "quick.yaml"
PACKAGE = "dsd-tutorial"
WANTED = f"{PACKAGE}[course]"  # what brings JupyterLab
SETTINGS = {  # for the kernels; what the caller has set wins
    "HF_HUB_OFFLINE": "1",
    "JUPYTER_PREFER_ENV_PATH": "1",
    "OMP_WAIT_POLICY": "passive",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class CannotStart(RuntimeError):
    """JupyterLab cannot be opened; the message says what to type."""


@dataclass(frozen=True)
class Laid:
    """One file of the course in the learner's folder: new, as it was, updated, yours or beside."""

    name: str
    what: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.what:10}{self.name}" + (f"\n{'':10}{self.note}" if self.note else "")


def lay_out(folder: Path, source: Path | None = None) -> list[Laid]:
    """What became of each file of the course in `folder`; nothing that was changed is touched.

    Args:
        folder: The learner's; it is made where it is not there.
        source: Where the course's files are (default: a clone, or what the wheel carries).

    Raises:
        OutputError: The folder cannot be written.
        NotebookNotFound: No course is at hand.
    """
    source = repository() if source is None else source
    files = {path.name: path.read_bytes() for path in sorted((source / FOLDER).glob("*.ipynb"))}
    if (source / QUICK).is_file():
        files[QUICK_NAME] = (source / QUICK).read_bytes()
    folder = require_writable(folder, room=3 * sum(map(len, files.values())) + 100_000)
    if folder.resolve() == (source / FOLDER).resolve():
        raise ValueError(f"{folder} holds the course itself: give another folder.")
    return [_laid(folder, name, content) for name, content in files.items()]


def _laid(folder: Path, name: str, content: bytes) -> Laid:
    target, original = folder / name, folder / ORIGINALS / name
    before = original.read_bytes() if original.is_file() else None
    there = target.read_bytes() if target.is_file() else None
    if there is None or there == before != content:
        write_bytes(target, content)
        found = Laid(name, "new" if there is None else "updated")
    elif there == content:
        found = Laid(name, "as it was")
    elif before == content:
        found = Laid(name, "yours", "changed by you; the course has nothing new in it")
    else:
        found = Laid(name, "yours", _beside(target, original, content))
    write_bytes(original, content)
    return found


def _beside(target: Path, original: Path, content: bytes) -> str:
    """Put what is new beside what was changed, and say what differs in both."""
    place, number = target.with_name(f"{target.stem}.new{target.suffix}"), 1
    while place.exists() and place.read_bytes() != content:
        number += 1
        place = target.with_name(f"{target.stem}.new-{number}{target.suffix}")
    yours = changed_sections(original, target)
    write_bytes(place, content)
    return f"{place.name} is new: {changed_sections(original, place)}; yours changed: {yours}"


def changed_sections(before: Path, after: Path) -> str:
    """How many cells differ between two notebooks, and under which headings, in words."""
    try:
        old, new = list(_cells(before)), list(_cells(after))
    except (UnreadableNotebook, KeyError):
        return "cannot be compared"
    sources = [[source for _, source in cells] for cells in (old, new)]
    steps = SequenceMatcher(None, *sources, autojunk=False).get_opcodes()
    changed = [step for step in steps if step[0] != "equal"]
    number = sum(max(i2 - i1, j2 - j1) for _, i1, i2, j1, j2 in changed)
    headings = [h for _, i1, i2, j1, j2 in changed for h, _ in new[j1:j2] or old[i1:i2]]
    where = list(dict.fromkeys(headings))
    more = f" and {len(where) - 3} more" if len(where) > 3 else ""
    named = f" ({'; '.join(where[:3])}{more})" if where else ""
    return f"{number} cell{'' if number == 1 else 's'}{named}"


def _cells(path: Path) -> Iterator[tuple[str, str]]:
    """(heading it stands under, source) of each cell."""
    heading = "beginning"
    for cell in read_notebook(path)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and source.startswith("#"):
            heading = source.splitlines()[0].lstrip("# ")
        yield heading, source


def open_lab(folder: Path, options: list[str]) -> int:
    """The exit status of JupyterLab, opened at the first notebook of `folder`.

    Where JupyterLab is not installed and uv runs us (`uvx dsd-tutorial start`), uv is asked for the
    same command with it.

    Raises:
        CannotStart: There is no JupyterLab.
    """
    folder = expanded(folder).absolute()
    environment = {**SETTINGS, **KEEP_FREED_MEMORY, **os.environ}
    if importlib.util.find_spec("jupyterlab") is None:
        return _by_uv(folder, options, environment)
    notebooks = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    root = ["--allow-root"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    command = [sys.executable, "-m", "jupyterlab", *map(str, notebooks[:1]), *root, *options]
    try:
        return subprocess.call(command, cwd=folder, env=environment)
    except KeyboardInterrupt:
        return 130


def _by_uv(folder: Path, options: list[str], environment: dict[str, str]) -> int:
    from importlib.metadata import version

    uv = environment.get("UV")
    if not uv or "DSD_TUTORIAL_AGAIN" in environment:
        raise CannotStart(
            f'JupyterLab is not installed here: pip install "{WANTED}", or without installing: '
            f'uvx --from "{WANTED}" {PACKAGE} start, '
            f'pipx run --spec "{WANTED}" {PACKAGE} start. The notebooks lie in {folder}.'
        )
    pinned = f"{WANTED}=={version(PACKAGE)}"
    command = [uv, "tool", "run", "--from", pinned, PACKAGE, "start", str(folder), *options]
    return subprocess.call(command, env={**environment, "DSD_TUTORIAL_AGAIN": "1"})
