"""The house: which way imports go, what the package's face offers, what notebooks import."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import dsd_tutorial
from lab.upkeep import house
from lab.upkeep.blocks import with_blocks

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ROOMS, NAMES, LINES = 10, 30, 380  # that a notebook may import and show
NOT_THERE_YET: dict[str, tuple[int, int]] = {}  # notebook: names and lines today, which only fall


def python(code: str) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter, at the root."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_arrows_go_down_only():
    """The contracts stand in pyproject.toml; what breaks one is printed."""
    done = python("from importlinter.cli import lint_imports_command; lint_imports_command()")
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_costs_nothing():
    code = "import time; start = time.perf_counter(); import dsd_tutorial; import sys; "
    code += "print(time.perf_counter() - start, sorted({'torch', 'numpy'} & set(sys.modules)))"
    seconds, *heavy = python(code).stdout.split(maxsplit=1)
    assert float(seconds) < 0.1 and heavy == ["[]\n"]


@pytest.mark.parametrize("room", ["", ".course", ".stable_diffusion"])
def test_what_is_offered_lazily_is_there(room):
    package = importlib.import_module(f"{dsd_tutorial.__name__}{room}")
    assert package.__all__ == sorted(set(package.__all__)) and set(package.__all__) <= set(
        dir(package)
    )
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="offers no 'nonsense'"):
        _ = package.nonsense


@pytest.mark.parametrize("room", ["", "/course", "/stable_diffusion"])
def test_what_is_offered_lazily_is_offered_to_type_checkers_too(room):
    """In a typed package `import name` is private, `import name as name` is not."""
    package = ROOT / "dsd_tutorial"
    assert (package / "py.typed").exists()
    tree = ast.parse((package / room.lstrip("/") / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert all(name.asname == name.name for node in block.body for name in node.names)


def code_cells(notebook: Path) -> list[dict]:
    """Return the code cells of a notebook, as JSON, each with its source as one text."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [c | {"source": "".join(c["source"])} for c in cells if c["cell_type"] == "code"]


def imports_of(notebook: Path) -> dict[str, set[str]]:
    """Return {room: names} of what a notebook imports from the package."""
    found: dict[str, set[str]] = {}
    for cell in code_cells(notebook):
        lines = cell["source"].splitlines()
        tree = ast.parse("\n".join("" if x.startswith(("%", "!")) else x for x in lines))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] != "lab":
                if node.module.split(".")[0] == dsd_tutorial.__name__:
                    found.setdefault(node.module, set()).update(a.name for a in node.names)
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "lab" for name in names), (
                f"{names}: the laboratory"
            )
    return found


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_imports_what_rooms_offer_and_from_few(notebook):
    found = imports_of(notebook)
    assert len(found) <= ROOMS, sorted(found)
    most, _ = NOT_THERE_YET.get(notebook.stem, (NAMES, LINES))
    assert sum(map(len, found.values())) <= most, found
    for room, names in found.items():
        offered = set(importlib.import_module(room).__all__)
        assert room.count(".") == 1, f"{room} is a part of a room: import from the room"
        assert names <= offered, f"{room} does not offer {sorted(names - offered)}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_few_lines_of_code(notebook):
    """Solutions are folded away, and neither blank lines nor comments count."""
    folded = [c["metadata"].get("jupyter", {}).get("source_hidden") for c in code_cells(notebook)]
    lines = [
        line
        for cell, hidden in zip(code_cells(notebook), folded, strict=True)
        for line in cell["source"].splitlines()
        if not hidden
    ]
    _, most = NOT_THERE_YET.get(notebook.stem, (NAMES, LINES))
    assert len([x for x in lines if x.strip() and not x.strip().startswith("#")]) <= most


def test_only_notebooks_that_are_beyond_a_limit_are_excused():
    for name, (names, lines) in NOT_THERE_YET.items():
        assert names > NAMES or lines > LINES, f"{name} is there: take it off the list"


def test_the_map_shows_the_house_as_it_is():
    text = (house.ROOT / house.PAGE).read_text(encoding="utf-8")
    assert with_blocks(text, house.COMMAND, house.blocks()) == text, f"run `{house.COMMAND}`"
    assert all(len(steps) <= 6 for *_, steps in house.WALKS)


def test_a_walk_whose_function_is_gone_is_noticed():
    with pytest.raises(ValueError, match="has no nowhere"):
        house.line_of("matching/scoring.py", "nowhere")
