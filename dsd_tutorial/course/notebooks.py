"""The notebooks of the course as files: where they are, what they are called, what they cost.

Nothing here starts a kernel; `dsd_tutorial.course.execution` does.
"""

import copy
import difflib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsd_tutorial.course.records import CARRIED, CLONE
from dsd_tutorial.saving import expanded, require_writable, write_text

FOLDER = "notebooks"
QUICK = Path("tests") / "params" / "fast.yaml"  # parameters of a quick look at each notebook
RECORD = Path("results") / "notebooks.json"  # minutes and memory, written by `make readme`
LEFT_OUT = "# The solution is left out of this copy; what follows uses the package's own."


class UnreadableNotebook(ValueError):
    """A notebook file cannot be read as one; the message says what is wrong and what to do."""


class NotebookNotFound(FileNotFoundError):
    """A notebook, or the folder that holds them, is not there; the message says what to do."""


def hasten_nbformat() -> None:
    """Import nbformat without the slowest part of what it needs; called before it or papermill is.

    Its jsonschema builds a grammar of internationalised addresses when it is first imported. That
    takes seconds, more than all the rest, and no notebook's schema asks for it.
    """
    grammar = "rfc3987_syntax"
    if {"jsonschema", grammar} & set(sys.modules):
        return
    sys.modules[grammar] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        import nbformat  # noqa: F401
    finally:
        del sys.modules[grammar]


@dataclass(frozen=True)
class Notebook:
    """One notebook: its file, its title, and seconds and peak MB as last measured (or None)."""

    path: Path
    title: str
    seconds: float | None = None
    peak_mb: float | None = None

    @property
    def name(self) -> str:
        """The file name without its ending, e.g. `01_attention_scores`."""
        return self.path.stem


def repository() -> Path:
    """The folder of the clone: the current folder, one above it, or the one we are imported from.

    Without a clone it is the folder of the same order that the wheel carries. Raises
    `NotebookNotFound` when none of them holds `notebooks/`.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, CLONE):
        if (folder / FOLDER).is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    if (CARRIED / FOLDER).is_dir():
        return CARRIED
    raise NotebookNotFound(
        f"No {FOLDER}/ folder in {here}, above it or in {CLONE}: change into a clone, or install "
        "the package from its wheel, which carries them."
    )


def read_notebook(path: Path) -> dict[str, Any]:
    """A notebook as JSON; raises UnreadableNotebook for an empty, broken or cut-off file."""
    remedy = "restore it from the repository, or give another notebook"
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except IsADirectoryError:
        raise UnreadableNotebook(f"{path} is a folder, not a notebook: {remedy}.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        empty = path.stat().st_size == 0
        said = "is empty" if empty else f"is no notebook, or half of one: {error}"
        raise UnreadableNotebook(f"{path} {said}; {remedy}.") from None
    except OSError as error:
        raise UnreadableNotebook(f"{path} cannot be read ({error.strerror}): {remedy}.") from None
    if not isinstance(found, dict) or not isinstance(found.get("cells"), list):
        raise UnreadableNotebook(f"{path} is JSON, but no notebook (it has no cells): {remedy}.")
    return found


def notebook_text(notebook: Mapping[str, Any]) -> str:
    """A notebook, given as JSON, as the text of its file."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def read_title(path: Path) -> str:
    """The first heading of a notebook, without mark-up; its file name where there is none."""
    try:
        cells = read_notebook(path)["cells"]
    except UnreadableNotebook:
        return "(cannot be read)"
    for cell in cells:
        if cell["cell_type"] == "markdown":
            found = re.search(r"^#\s+(.+)$", "".join(cell["source"]), flags=re.MULTILINE)
            if found:
                return re.sub(r"[`*]", "", found.group(1)).strip()
    return path.stem


def all_notebooks(root: Path | None = None) -> list[Notebook]:
    """Every notebook of the course, in order. `root` is the clone (default: `repository()`)."""
    root = repository() if root is None else root
    record = root / RECORD
    measured = json.loads(record.read_text("utf-8"))["notebooks"] if record.is_file() else {}
    found = []
    for path in sorted((root / FOLDER).glob("*.ipynb")):
        if path.is_file():
            cost = measured.get(path.stem, {})
            found.append(Notebook(path, read_title(path), cost.get("seconds"), cost.get("peak_mb")))
    return found


def find_notebook(name: str) -> Path:
    """The file of a notebook given by path, by name (`01_attention_scores`) or number (`01`).

    Raises `NotebookNotFound` that names the nearest ones, `UnreadableNotebook` for a broken file.
    """
    as_path = Path(name)
    if as_path.suffix == ".ipynb" and as_path.exists():
        read_notebook(as_path)
        return as_path
    if as_path.suffix == ".ipynb" and as_path.parent != Path("."):
        raise NotebookNotFound(
            f"There is no notebook {name}. `dsd-tutorial list` shows those of the course."
        )
    names = {notebook.name: notebook.path for notebook in all_notebooks()}
    stem = as_path.name.removesuffix(".ipynb")
    matching = [known for known in names if stem and known.startswith(stem)]
    matching = [stem] if stem in names else matching
    if len(matching) == 1:
        read_notebook(names[matching[0]])
        return names[matching[0]]
    near = difflib.get_close_matches(stem, names, n=3, cutoff=0.4) or list(names)
    raise NotebookNotFound(
        f"No single notebook called {name!r}. Nearest: {', '.join(near) or '(none there)'}. "
        "`dsd-tutorial list` shows all."
    )


def without_solutions(notebook: dict[str, Any]) -> dict[str, Any]:
    """A copy of a notebook, as JSON, in which no solution can be read, and which still runs.

    Where a solution stood, its name is bound to the hidden solution of the check: later cells may
    need it. Outputs are left out as well, since they may show what a solution does.
    """
    clean = copy.deepcopy(notebook)
    for cell in clean["cells"]:
        if cell["cell_type"] != "code":
            continue
        cell["outputs"], cell["execution_count"] = [], None
        if "solution" in cell["metadata"].get("tags", []):
            names = re.findall(r"^def (\w+)_solution\(", "".join(cell["source"]), re.MULTILINE)
            lines = [LEFT_OUT, *(f"{name}_solution = checks.{name}.solution" for name in names)]
            cell["source"], cell["metadata"] = "\n".join(lines), {}
    return clean


def export(paths: Sequence[Path], folder: Path, overwrite: bool = False) -> list[Path]:
    """The files written: notebooks without solutions, for learners, in `folder`.

    Each is made before the first is written. Raises FileExistsError where a file is there already
    and `overwrite` is not said: somebody may have worked in it; ValueError where two notebooks
    have one name; OutputError where `folder` cannot be written.
    """
    paths = list(dict.fromkeys(Path(path).resolve() for path in paths))  # the same one twice
    by_name: dict[str, Path] = {}
    for path in paths:
        if (other := by_name.setdefault(path.name, path)) != path:
            raise ValueError(
                f"{other} and {path} would both become {path.name} in {folder}: export them into "
                "two folders."
            )
    folder = expanded(folder)
    targets = [folder / path.name for path in paths]
    there = [target for target in targets if target.exists()]
    same = [t for t, p in zip(targets, paths, strict=True) if t.exists() and t.samefile(p)]
    if same or (there and not overwrite):
        names = ", ".join(target.name for target in same or there)
        remedy = "give another folder" + ("" if same else " or --overwrite")
        raise FileExistsError(f"{names} in {folder} would be overwritten: {remedy}.")
    texts = [notebook_text(without_solutions(read_notebook(path))) for path in paths]
    require_writable(folder, room=sum(len(text.encode()) for text in texts) + 100_000)
    for text, target in zip(texts, targets, strict=True):
        write_text(target, text)
    return targets
