"""Whether nbgrader's own commands take our assignments: three made hand-ins, right to broken.

`python -m lab.upkeep.nbgrader` makes an environment with nbgrader beside ours (once), exports a
notebook, and runs `generate_assignment`, `autograde`, `generate_feedback` and `export` as an
instructor would. The scores must be all, half, and none.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ipykernel.kernelspec import write_kernel_spec

from dsd_tutorial.course.grading import write_assignments
from dsd_tutorial.course.notebooks import find_notebook, read_notebook
from dsd_tutorial.saving import write_json
from lab.upkeep.handins import WRONG, answered, solutions

VERSION = "0.9.6"
BROKEN = "def {name}(first, *rest)\n    return first\n"  # a colon is missing


def environment(folder: Path) -> Path:
    """The folder of nbgrader's commands, in an environment of its own."""
    commands = folder / ("Scripts" if os.name == "nt" else "bin")
    if not (commands / "nbgrader").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [commands / "python", "-m", "pip", "install", "--quiet", f"nbgrader=={VERSION}"]
        subprocess.run(pip, check=True)
    return commands


def kernel(folder: Path) -> dict[str, str]:
    """Variables by which the kernel `python3` is this Python, which has the course."""
    write_kernel_spec(folder / "kernels" / "python3")
    return {"JUPYTER_PATH": str(folder), "JUPYTER_PREFER_ENV_PATH": "0", "HF_HUB_OFFLINE": "1"}


def trial(notebook: Path, course: Path, commands: Path) -> dict[str, float]:
    """Person -> score, after all of nbgrader's commands ran in `course`."""
    name = notebook.stem
    path = os.pathsep.join([str(commands), os.environ.get("PATH", "")])  # it calls alembic
    variables = {**os.environ, **kernel(course / "jupyter"), "PATH": path}

    def nbgrader(*arguments: str) -> None:
        print(f"nbgrader {' '.join(arguments)}", flush=True)
        subprocess.run([commands / "nbgrader", *arguments], cwd=course, env=variables, check=True)

    write_assignments([notebook], course)
    nbgrader("generate_assignment", name, "--create")
    released = read_notebook(course / "release" / name / notebook.name)
    text = json.dumps(released)
    assert "BEGIN SOLUTION" not in text and "your turn" in text
    right = solutions(notebook)
    half = list(right)[: len(right) // 2]
    made = {
        "right": right,
        "half": {n: s if n in half else WRONG.format(name=n) for n, s in right.items()},
        "broken": {n: BROKEN.format(name=n) for n in right},
    }
    for person, answers in made.items():
        target = course / "submitted" / person / name / notebook.name
        write_json(target, answered(released, answers))
    nbgrader("autograde", name, "--create")
    nbgrader("generate_feedback", name)
    nbgrader("export", "--to=grades.csv")
    for person in made:
        page = course / "feedback" / person / name / f"{name}.html"
        assert page.is_file(), f"no feedback for {person}"
    with open(course / "grades.csv", newline="", encoding="utf-8") as file:
        return {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}


def main() -> int:
    """The exit status: 0 when nbgrader gives all, half and none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notebook", default="01")
    parser.add_argument("--output", type=Path, default=Path("build") / "nbgrader")
    parser.add_argument("--environment", type=Path, default=Path("build") / "venvs" / "nbgrader")
    given = parser.parse_args()
    notebook = find_notebook(given.notebook)
    given.output.mkdir(parents=True, exist_ok=True)
    course = Path(tempfile.mkdtemp(prefix="course-", dir=given.output)).absolute()
    scores = trial(notebook, course, environment(given.environment.absolute()))
    n = len(solutions(notebook))
    print(f"scores of {n}: {scores}")
    return int(scores != {"right": n, "half": n // 2, "broken": 0})


if __name__ == "__main__":
    sys.exit(main())
