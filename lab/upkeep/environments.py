"""The conda files, written from pyproject.toml, the one source of what the course depends on.

`python -m lab.upkeep.environments` writes `environment.yml` (everything, for people who use
conda) and `binder/environment.yml` (what Binder needs, with the CPU build of torch).

conda decides by itself which build of `pytorch` a machine gets: those for CUDA need the virtual
package `__cuda`, which is there where a driver is seen, or asked for by `CONDA_OVERRIDE_CUDA=12.8`.
"""

import sys
import tomllib
from collections.abc import Iterable

from packaging.requirements import Requirement

from dsd_tutorial.saving import write_text
from lab.upkeep.blocks import ROOT

PYTHON = "3.11"
HEADER = "# Written by `make environments` from pyproject.toml; do not edit.\n"


def requirements(extras: Iterable[str] | None = None, but: tuple = ()) -> list[Requirement]:
    """What pyproject.toml asks for, with some of its extras (None: all, `but` these), in order."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in project["optional-dependencies"] if extras is None else extras:
        lines += project["optional-dependencies"][extra] if extra not in but else []
    return [Requirement(line) for line in lines]


def conda_file(name: str, extras: tuple[str, ...], torch: str, editable: bool) -> str:
    """The text of one conda file. `torch` is the conda package that provides it.

    torch comes from conda-forge, whose CPU build keeps Binder small; the rest by pip, under the
    names and ranges of pyproject.toml. With `editable`, the package itself is installed as well
    (Binder does that in `postBuild`, since conda reads `-e .` relative to the file).
    """
    wanted = requirements(extras)
    version = next(r.specifier for r in wanted if r.name == "torch")
    lines = [
        f"name: {name}",
        "channels:",
        "  - conda-forge",
        "  - nodefaults",
        "dependencies:",
        f"  - python={PYTHON}",
        "  - pip",
        "  - setuptools",
        f"  - {torch}{_ordered(version)}",
        "  - pip:",
    ]
    lines += [f'      - "{r.name}{_ordered(r.specifier)}"' for r in wanted if r.name != "torch"]
    if editable:
        lines.append("      - -e .")
    return HEADER + "\n".join(lines) + "\n"


def _ordered(specifier: object) -> str:
    """A version range with its lower bound first; packaging keeps no order of its own."""
    return ",".join(sorted(str(specifier).split(","), reverse=True))


def files() -> dict[str, str]:
    """Path -> text of every generated conda file."""
    return {
        "environment.yml": conda_file(
            "dsd-tutorial", ("course", "train", "test"), "pytorch", editable=True
        ),
        "binder/environment.yml": conda_file(
            "dsd-tutorial-binder", ("course",), "pytorch-cpu", editable=False
        ),
    }


def main() -> int:
    """Write the files; the exit status is 0."""
    for name, text in files().items():
        write_text(ROOT / name, text)
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
