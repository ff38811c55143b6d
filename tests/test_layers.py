"""The direction of the arrows: a module imports only from rooms above its own in this list."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "dsd_tutorial"
ROOMS = (
    "saving", "registry", "shapes", "metrics", "stable_diffusion", "attention", "matching",
    "heatmaps", "prompt_learning", "baselines", "projection", "variation", "customization",
    "datasets", "results", "figures", "claims", "applies", "quiz", "checks", "widgets", "notebooks",
    "parameters", "execution", "running", "doctor", "terminal", "training", "evaluation", "cli",
)  # fmt: skip


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            name = node.module or ""
            if node.level == 0 and name.split(".")[0] != "dsd_tutorial":
                continue
            parts = name.split(".")[0 if node.level else 1 :]
            found |= {parts[0]} if parts and parts[0] else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {n[1] for n in names if n[0] == "dsd_tutorial" and len(n) > 1}
    return found


MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.stem != "__init__")


def test_every_room_is_in_the_list():
    assert {room(path) for path in MODULES} == set(ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_come_from_above(path):
    mine = ROOMS.index(room(path))
    below = {r for r in imported_rooms(path) if ROOMS.index(r) > mine}
    assert not below, f"{path.name} imports {', '.join(sorted(below))}, which stand below it"
