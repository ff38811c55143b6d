"""Execute notebooks with papermill and say for each: how long, how much memory, did it finish.

`python -m dsd_tutorial.course.running` runs the whole course; `make run` and `make test` call it.
"""

import argparse
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

from dsd_tutorial.course.execution import Outcome, run_notebook
from dsd_tutorial.course.notebooks import (
    NotebookNotFound,
    all_notebooks,
    find_notebook,
    hasten_nbformat,
)
from dsd_tutorial.course.parameters import (
    PARAMETERS,
    check_overrides,
    defaults,
    located,
    read_parameter_file,
    validate,
)
from dsd_tutorial.saving import (
    OutputError,
    Written,
    expanded,
    require_writable,
    write_json,
    write_text,
)

ROOM = 20_000_000  # bytes that one executed notebook and its page may take


def write_html(executed: Path) -> Path:
    """The HTML page beside an executed notebook, with its figures inside, solutions folded."""
    hasten_nbformat()
    import nbformat
    from nbconvert import HTMLExporter

    page = executed.with_suffix(".html")
    notebook = nbformat.read(executed, as_version=4)
    notebook.cells = [_folded(cell) for cell in notebook.cells]
    body, _ = HTMLExporter().from_notebook_node(notebook)
    write_text(page, body)
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
    paths: Sequence[Path],
    output: Path,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    html: bool = False,
    cell_timeout: int | None = None,
    jobs: int = 1,
) -> list[Outcome]:
    """The outcomes of several notebooks, in order; a failed one does not stop the others.

    Args:
        paths: The notebooks.
        output: The folder of executed notebooks and pages.
        parameters: Notebook -> parameter -> value, checked before the first kernel starts.
        html: Whether a page is written beside each executed notebook.
        cell_timeout: Seconds that one cell may take.
        jobs: Notebooks that run side by side, each with its share of the cores.

    Raises:
        ParameterError: A value is out of range, or a name unknown.
        OutputError: The folder cannot be written, or holds the notebooks themselves.
    """
    chosen = parameters or {}
    for path in paths:
        validate(path.stem, {**defaults(path), **chosen.get(path.stem, {})})
    written = Written(prepare_output(paths, output))
    for name in [path.with_suffix(kind).name for path in paths for kind in (".ipynb", ".html")]:
        if kept := written.make_way(written.folder / name):
            print(f"{name} was changed, or is not of a run: kept as {kept.name}", flush=True)
    tasks = [(p, written.folder / p.name, chosen.get(p.stem), cell_timeout) for p in paths]
    outcomes = []
    for outcome in _side_by_side(tasks, jobs) if jobs > 1 else _in_turn(tasks):
        executed = Path(outcome.output)
        try:
            if outcome.saved:
                written.add(executed)
            if outcome.saved and html:
                written.add(write_html(executed))
        except OutputError as error:  # the notebook itself is there
            outcome.status, outcome.error = "failed", outcome.error or str(error)
        outcomes.append(outcome)
        print(describe(outcome), flush=True)
    return outcomes


def prepare_output(paths: Sequence[Path], output: Path) -> Path:
    """The absolute folder for executed notebooks, made and tried; nothing else is changed.

    Raises OutputError where it cannot be written, and where it is the folder of a source, however
    it is spelt: a run would put its results in the place of the notebooks themselves.
    """
    folder = Path(os.path.abspath(expanded(output)))
    sources = [path.resolve() for path in paths]
    for source in sources:
        target = folder / source.name
        same = folder.is_dir() and folder.samefile(source.parent)
        if same or (target.exists() and target.samefile(source)):
            raise OutputError(
                f"{output} holds {source.name} itself, not a result of it: give another folder "
                "with --output, such as build."
            )
    return require_writable(folder, room=ROOM * len(sources))


def _in_turn(tasks: list[tuple[Any, ...]]) -> Iterator[Outcome]:
    for position, task in enumerate(tasks, start=1):
        print(f"[{position}/{len(tasks)}] {task[0].stem}", flush=True)
        yield run_notebook(*task)


def _side_by_side(tasks: list[tuple[Any, ...]], jobs: int) -> Iterator[Outcome]:
    """`jobs` notebooks at a time, each from a process of its own, which watches its own kernel.

    The largest start first, so that none is left alone at the end. No progress bars: they would
    write over each other.
    """
    threads = str(max(1, (psutil.cpu_count() or 1) // jobs))
    os.environ.setdefault("OMP_NUM_THREADS", threads)  # the processes and their kernels inherit it
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        by_size = sorted(range(len(tasks)), key=lambda i: -tasks[i][0].stat().st_size)
        running = {i: pool.submit(run_notebook, *tasks[i], progress=False) for i in by_size}
        for i in range(len(tasks)):
            yield running[i].result()


def describe(outcome: Outcome) -> str:
    """One line for people: name, time, memory, status, and the error beneath."""
    line = (
        f"{outcome.notebook:28} {outcome.seconds:7.1f} s {outcome.peak_mb:7.0f} MB  "
        f"{outcome.status}"
    )
    return line if outcome.error is None else f"{line}\n    {outcome.error}\n    {outcome.output}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dsd_tutorial.course.running", description=__doc__
    )
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
    parser.add_argument("--jobs", type=_positive, default=1, help="notebooks that run side by side")
    parser.add_argument("--cell-timeout", type=_positive, help="seconds that one cell may take")
    return parser


def _positive(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is refused: give a whole number from 1")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """The exit status of running the course: 0 when every notebook ran to its end."""
    given = _parser().parse_args(arguments)
    try:
        paths = list(dict.fromkeys(find_notebook(name) for name in given.notebooks))
        paths = paths or [notebook.path for notebook in all_notebooks()]
        parameters = _parameters(paths, given.parameters, dict(given.set))
        outcomes = run_all(
            paths, given.output, parameters, given.html, given.cell_timeout, given.jobs
        )  # fmt: skip
    except (NotebookNotFound, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    _finish(outcomes, Path(os.path.abspath(expanded(given.output))))
    failed = [outcome for outcome in outcomes if outcome.status != "ok"]
    total = sum(outcome.seconds for outcome in outcomes)
    print(
        f"\n{len(outcomes) - len(failed)} of {len(outcomes)} notebooks ran to their end "
        f"in {total:.0f} s; see {given.output}"
    )
    for outcome in outcomes:
        print("  " + describe(outcome))
    return 1 if failed else 0


def _parameters(
    paths: Sequence[Path], file: Path | None, everywhere: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Notebook -> parameter -> value, from a file and from what was typed for every notebook."""
    parameters = {} if file is None else read_parameter_file(file, list(PARAMETERS))
    for path in paths:
        chosen = parameters.setdefault(path.stem, {})
        chosen.update(check_overrides(path, everywhere))
        validate(path.stem, {**defaults(path), **chosen})
        chosen.update({name: located(name, value) for name, value in chosen.items()})
    return parameters


def _finish(outcomes: Sequence[Outcome], output: Path) -> None:
    """Write run.json, and take away our own results of notebooks that the course has no more."""
    written, record = Written(output), output / "run.json"
    written.make_way(record)
    machine = {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "python": platform.python_version(),
    }
    write_json(record, {"machine": machine, "notebooks": [asdict(o) for o in outcomes]})
    course = {notebook.name for notebook in all_notebooks()}
    results = {name for name in written.files if name.endswith((".ipynb", ".html"))}
    _, kept = written.remove({name for name in results if Path(name).stem not in course})
    for path in kept:
        print(f"{path.name} is of no notebook of the course, but somebody changed it: it stays")
    written.add(record)


if __name__ == "__main__":
    sys.exit(main())
