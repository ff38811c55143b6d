"""What a run's figures came out of: versions, commit, machine; the kernel adds where.

Two runs with one key and equal provenance must agree in every recorded figure.
"""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "diffusers", "transformers")
ROOT = Path(__file__).resolve().parents[3]


@cache
def provenance() -> dict[str, Any]:
    """Versions of the package and of what it computes with, commit, and kind of machine."""
    return {
        "package": _version("dsd-tutorial"),
        **_commit(),
        "python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> dict[str, Any]:
    """The commit that the package is of, and whether a file of it was changed since; or nothing."""
    if not (ROOT / ".git").exists():
        return {"commit": None, "changed": None}
    try:
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--", "dsd_tutorial", "notebooks")
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "changed": None}
    return {"commit": head, "changed": bool(changed)}


def _git(*command: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *command], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


def _processor() -> str:
    """The processor's name, where the system says it: other ones may round otherwise."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What two provenances do not agree in: name -> (one, other)."""
    return {
        name: (one.get(name), other.get(name))
        for name in dict.fromkeys([*one, *other])
        if one.get(name) != other.get(name)
    }
