"""The lock: exact versions of everything the course installs, on three systems.

`python -m lab.upkeep.lock` walks from pyproject.toml (extras, but for `UNLOCKED`) through metadata
of the packages installed here, once per system and Python, and writes `requirements.lock`. What
only another system needs (colorama, pywinpty, appnope, ...) is asked of pip and marked for that
system. A build tag such as `+cpu` is dropped, so that each system takes the wheel it has; what the
CUDA build of torch needs on top is left to pip.
"""

import itertools
import json
import subprocess
import sys
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dsd_tutorial.saving import write_text
from lab.upkeep.blocks import ROOT
from lab.upkeep.environments import requirements

LOCK = ROOT / "requirements.lock"
SYSTEMS = {
    "linux": ("Linux", "posix", "x86_64", "manylinux_2_28_x86_64"),
    "darwin": ("Darwin", "posix", "arm64", "macosx_14_0_arm64"),
    "win32": ("Windows", "nt", "AMD64", "win_amd64"),
}
PYTHONS = ("3.11", "3.12", "3.13")
UNLOCKED = ("mutants",)  # extras of the laboratory, which the course does not install
BUILD = "setuptools"  # builds the package itself, also where there is no network
HEADER = "# Written by `make lock` from pyproject.toml; exact versions for Linux, macOS, Windows.\n"
Target = tuple[str, str]  # (system, Python)


def marker_environment(target: Target) -> dict[str, str]:
    """What environment markers see on a system with a Python, where it differs from here."""
    system, python = target
    name, os_name, machine, _ = SYSTEMS[system]
    return {
        "sys_platform": system,
        "platform_system": name,
        "os_name": os_name,
        "platform_machine": machine,
        "python_version": python,
        "python_full_version": f"{python}.9",
    }


@cache
def known(name: str, target: Target) -> tuple[str, tuple[str, ...]]:
    """Version and requirements of a package: as installed here, else the newest that pip finds."""
    try:
        found = metadata.distribution(name)
        return found.version.split("+")[0], tuple(found.requires or ())
    except metadata.PackageNotFoundError:
        return asked_of_pip(name, target)


def asked_of_pip(name: str, target: Target) -> tuple[str, tuple[str, ...]]:
    """The newest version of a package for another system, and what it requires."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        asked = ["--quiet", "--dry-run", "--no-deps", "--ignore-installed", "--only-binary=:all:"]
        asked += [f"--target={folder}", f"--report={report}", f"--python-version={target[1]}"]
        asked += [f"--platform={SYSTEMS[target[0]][3]}", name]
        subprocess.run([sys.executable, "-m", "pip", "install", *asked], check=True)
        entry = json.loads(report.read_text())["install"][0]["metadata"]
    return entry["version"], tuple(entry.get("requires_dist", ()))


def reached(roots: list[Requirement], target: Target) -> dict[str, str]:
    """Name -> version of all that the roots need on one target, themselves included."""
    environment = marker_environment(target)
    versions: dict[str, str] = {}
    done: set[tuple[str, str]] = set()
    waiting = [(root, "") for root in roots]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({**environment, "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        versions[name], needs = known(name, target)
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in done:
                done.add((name, wanted))
                waiting += [(Requirement(line), wanted) for line in needs]
    return versions


def marker(targets: set[Target]) -> str:
    """The environment marker of a package needed on some targets only; empty when on all."""
    systems = [s for s in SYSTEMS if any(target[0] == s for target in targets)]
    pythons = [p for p in PYTHONS if any(target[1] == p for target in targets)]
    parts = []
    if len(systems) < len(SYSTEMS):
        parts.append(" or ".join(f'sys_platform == "{s}"' for s in systems))
    if len(pythons) < len(PYTHONS):
        parts.append(" or ".join(f'python_version == "{p}"' for p in pythons))
    return " and ".join(
        f"({part})" if len(parts) > 1 and " or " in part else part for part in parts
    )


def direct() -> list[Requirement]:
    """All that the course asks for: dependencies, its extras, and what builds the package."""
    return [*requirements(but=UNLOCKED), Requirement(BUILD)]


def lock_text() -> str:
    """The text of the lock."""
    targets: dict[str, set[Target]] = {}
    versions: dict[str, str] = {}
    for target in itertools.product(SYSTEMS, PYTHONS):
        for name, version in reached(direct(), target).items():
            targets.setdefault(name, set()).add(target)
            versions[name] = version
    lines = []
    for name in sorted(versions):
        where = marker(targets[name])
        lines.append(f"{name}=={versions[name]}" + (f" ; {where}" if where else ""))
    return HEADER + "\n".join(lines) + "\n"


def main() -> int:
    """Write the lock; the exit status is 0."""
    write_text(LOCK, lock_text())
    print(f"wrote {LOCK.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
