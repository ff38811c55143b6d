"""Execute notebooks with papermill and say for each: how long, how much memory, did it finish.

`python -m dsd_tutorial.running` runs the whole course; `make run` and `make test` call it.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import yaml

from .execution import Outcome, run_notebook
from .notebooks import all_notebooks, find_notebook
from .parameters import ParameterError, defaults, validate


def write_html(executed: Path) -> Path:
    """The HTML page beside an executed notebook, with its figures inside, solutions folded."""
    import nbformat
    from nbconvert import HTMLExporter

    page = executed.with_suffix(".html")
    notebook = nbformat.read(executed, as_version=4)
    notebook.cells = [_folded(cell) for cell in notebook.cells]
    body, _ = HTMLExporter().from_notebook_node(notebook)
    page.write_text(body, encoding="utf-8")
    return page


def _folded(cell: Any) -> Any:
    """A solution's cell as text that opens on a click: HTML pages know nothing of hidden source."""
    if cell.cell_type != "code" or "solution" not in cell.metadata.get("tags", []):
        return cell
    from nbformat.v4 import new_markdown_cell

    return new_markdown_cell(
        f"<details><summary>Solution</summary>\n\n```python\n{cell.source}\n```\n\n</details>"
    )


def run_all(
    paths: list[Path],
    output: Path,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    html: bool = False,
    cell_timeout: int | None = None,
    jobs: int = 1,
) -> list[Outcome]:
    """The outcomes of several notebooks, in order; a failed one does not stop the others.

    `parameters` maps notebook names to values; all are checked before the first kernel starts.
    `jobs` notebooks run side by side, each with its share of the cores. Raises `ParameterError`.
    """
    chosen = parameters or {}
    for path in paths:
        validate(path.stem, {**defaults(path), **chosen.get(path.stem, {})})
    tasks = [(path, output / path.name, chosen.get(path.stem), cell_timeout) for path in paths]
    outcomes = []
    for outcome in _side_by_side(tasks, jobs) if jobs > 1 else _in_turn(tasks):
        if html and Path(outcome.output).is_file():
            write_html(Path(outcome.output))
        outcomes.append(outcome)
        print(describe(outcome), flush=True)
    return outcomes


def _in_turn(tasks: list[tuple]) -> Iterator[Outcome]:
    """One notebook after the other, with a progress bar."""
    for position, task in enumerate(tasks, start=1):
        print(f"[{position}/{len(tasks)}] {task[0].stem}", flush=True)
        yield run_notebook(*task)


def _side_by_side(tasks: list[tuple], jobs: int) -> Iterator[Outcome]:
    """`jobs` notebooks at a time, each from a process of its own, which watches its own kernel.

    No progress bars: they would write over each other.
    """
    threads = str(max(1, (psutil.cpu_count() or 1) // jobs))
    os.environ.setdefault("OMP_NUM_THREADS", threads)  # the processes and their kernels inherit it
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(run_notebook, *task, progress=False) for task in tasks]
        for done in running:
            yield done.result()


def describe(outcome: Outcome) -> str:
    """One line for people: name, time, memory, status, and the error beneath."""
    line = (
        f"{outcome.notebook:28} {outcome.seconds:7.1f} s {outcome.peak_mb:7.0f} MB  "
        f"{outcome.status}"
    )
    return line if outcome.error is None else f"{line}\n    {outcome.error}\n    {outcome.output}"


def write_record(outcomes: list[Outcome], path: Path) -> None:
    """Write what was measured, and on what kind of machine, as JSON."""
    record = {
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": psutil.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "python": platform.python_version(),
        },
        "notebooks": [asdict(outcome) for outcome in outcomes],
    }
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """The exit status of running the course: 0 when every notebook ran to its end."""
    parser = argparse.ArgumentParser(prog="python -m dsd_tutorial.running", description=__doc__)
    parser.add_argument("notebooks", nargs="*", help="names or paths (default: all, in order)")
    parser.add_argument("--output", type=Path, default=Path("build"))
    parser.add_argument("--parameters", type=Path, help="YAML file: notebook -> name -> value")
    parser.add_argument(
        "--set",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter for every notebook, e.g. --set device cuda",
    )
    parser.add_argument("--html", action="store_true", help="also write HTML pages")
    parser.add_argument("--jobs", type=int, default=1, help="notebooks that run side by side")
    parser.add_argument("--cell-timeout", type=int, help="seconds that one cell may take")
    given = parser.parse_args(arguments)
    paths = [find_notebook(name) for name in given.notebooks]
    paths = paths or [notebook.path for notebook in all_notebooks()]
    parameters = {}
    if given.parameters:
        parameters = yaml.safe_load(given.parameters.read_text(encoding="utf-8")) or {}
    for path in paths:
        everywhere = {name: yaml.safe_load(value) for name, value in given.set}
        parameters.setdefault(path.stem, {}).update(everywhere)
    given.output.mkdir(parents=True, exist_ok=True)
    for stale in given.output.glob("*.ipynb"):  # of a notebook that was renamed since
        stale.unlink()
    try:
        outcomes = run_all(
            paths,
            given.output.resolve(),
            parameters,
            given.html,
            given.cell_timeout,
            max(1, given.jobs),
        )
    except ParameterError as error:
        print(error, file=sys.stderr)
        return 2
    write_record(outcomes, given.output / "run.json")
    failed = [outcome for outcome in outcomes if outcome.status != "ok"]
    total = sum(outcome.seconds for outcome in outcomes)
    print(
        f"\n{len(outcomes) - len(failed)} of {len(outcomes)} notebooks ran to their end "
        f"in {total:.0f} s; see {given.output}"
    )
    for outcome in outcomes:
        print("  " + describe(outcome))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
