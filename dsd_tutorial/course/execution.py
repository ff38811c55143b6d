"""One notebook executed with papermill: how long, how much memory, did it finish.

papermill reports success for a notebook that calls `sys.exit(0)` half-way: here every cell must
have run.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dsd_tutorial.course.notebooks import hasten_nbformat, notebook_text
from dsd_tutorial.course.watching import OUT_OF_MEMORY, Limits, Watch, processes_killed_for_memory
from dsd_tutorial.saving import OutputError, write_text

SKIP = "skip-execution"
SAVE_EVERY = 5.0  # seconds; papermill by itself writes the whole file twice for every cell
# no word about transport encryption on one's own machine, nor that a kernel was ended
QUIET = "--IPKernelApp.log_level=50"
NEVER_STARTED = "Kernel died before replying to kernel_info"  # jupyter_client's words
# What glibc reads when a process starts: freed memory is kept for the next tensor. Otherwise up to
# a third of the time goes into handing pages back and having them zeroed again.
KEEP_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
STARTS = 3  # a kernel's ports are chosen before it takes them: another one may be quicker


@dataclass
class Outcome:
    """One executed notebook: what it was, how it ended, what it cost."""

    notebook: str
    status: str  # "ok" or "failed"
    seconds: float
    peak_mb: float  # resident memory of the kernel and its children, in 10^6 bytes
    error: str | None
    output: str
    saved: bool = True  # whether `output` is of this run
    error_class: str | None = None  # OUT_OF_MEMORY, OUT_OF_TIME, or what Python calls it
    error_cell: int | None = None


def unfinished(notebook: Mapping[str, Any]) -> list[int]:
    """The positions of code cells that papermill did not complete, of an executed notebook."""
    positions = []
    for position, cell in enumerate(notebook["cells"]):
        empty = cell["cell_type"] != "code" or not "".join(cell["source"]).strip()
        if empty or SKIP in cell["metadata"].get("tags", []):
            continue
        record = cell["metadata"].get("papermill", {})
        if record.get("status") != "completed" or record.get("exception"):
            positions.append(position)
    return positions


@cache
def sparing_engine() -> str:
    """The name of papermill's own engine, but for one thing: it saves every `SAVE_EVERY` seconds.

    With a hundred figures in a notebook, saving costs more than many of its cells. At the end, and
    after an error or Ctrl-C, everything is written as ever.
    """
    hasten_nbformat()
    from papermill.engines import NBClientEngine, papermill_engines

    class Sparing(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, *args: Any, **kwargs: Any) -> Any:
            save, saved = nb_man.save, time.monotonic()

            def save_now_and_then(**more: Any) -> None:
                nonlocal saved
                if time.monotonic() - saved >= SAVE_EVERY:
                    save(**more)
                    saved = time.monotonic()

            nb_man.save = save_now_and_then
            try:
                return super().execute_managed_notebook(nb_man, *args, **kwargs)
            finally:
                nb_man.save = save  # papermill calls it once more

    papermill_engines.register("sparing", Sparing)
    return "sparing"


def _publish(partial: Path, output: Path) -> dict[str, Any] | None:
    """The executed notebook, after `partial` took the place of `output`; None if it is not whole.

    So an older result stays as it was until there is a new one, whatever happens in between.
    """
    try:
        executed = json.loads(partial.read_text(encoding="utf-8"))
        executed["metadata"].get("papermill", {})["output_path"] = str(output)
        try:
            write_text(output, notebook_text(executed))
        except OutputError:  # no room for a second copy
            os.replace(partial, output)
        return executed
    except (OSError, ValueError):
        return None
    finally:
        partial.unlink(missing_ok=True)


def run_notebook(
    path: Path,
    output: Path,
    parameters: Mapping[str, Any] | None = None,
    cell_timeout: int | None = None,
    progress: bool = True,
    limits: Limits | None = None,
) -> Outcome:
    """The outcome of one notebook; the executed copy is written to `output`, also on failure.

    `parameters` are values already checked. `cell_timeout` in seconds. The kernel works in the
    folder of `output`, so that nothing it writes lands among the sources.
    """
    hasten_nbformat()
    import papermill

    for name, value in KEEP_FREED_MEMORY.items():  # the kernel inherits them
        os.environ.setdefault(name, value)

    def execute() -> None:
        papermill.execute_notebook(
            str(path),
            str(partial),
            parameters=dict(parameters or {}),
            engine_name=sparing_engine(),
            kernel_name="python3",
            language="python",
            cwd=str(output.parent),
            progress_bar=progress,
            execution_timeout=cell_timeout,
            extra_arguments=[QUIET],
        )

    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".partial-{os.getpid()}-{output.name}")
    fault, executed = Fault(), None
    start, killed = time.perf_counter(), processes_killed_for_memory()
    with Watch(limits) as watch:
        try:
            _start_again_where_no_kernel_came(execute)
        except Exception as failure:  # of a cell, a dead kernel, a timeout: report, go on
            fault = Fault.of(failure, processes_killed_for_memory() > killed)
        finally:
            executed = _publish(partial, output)
    seconds = time.perf_counter() - start
    if watch.broken:
        kind, said = watch.broken
        fault = Fault(said, kind, fault.error_cell)
    if executed is None:
        said = f"{fault.error or 'papermill wrote nothing'}; {output.name} is as it was before"
        fault = Fault(said, fault.error_class or "NoNotebook", fault.error_cell)
    elif fault.error is None and (missed := unfinished(executed)):
        said = f"cells {missed} did not run to their end: does one before them call exit()?"
        fault = Fault(said, "Unfinished", missed[0])
    return Outcome(
        notebook=path.stem,
        status="failed" if fault.error else "ok",
        seconds=round(seconds, 1),
        peak_mb=round(watch.bytes / 1e6),
        output=str(output),
        saved=executed is not None,
        **asdict(fault),
    )


@dataclass(frozen=True)
class Fault:
    """What went wrong: in a sentence, as a class of errors, in which cell."""

    error: str | None = None
    error_class: str | None = None
    error_cell: int | None = None

    @classmethod
    def of(cls, failure: Exception, killed_for_memory: bool) -> "Fault":
        """The fault behind what papermill raised, where the system may have killed a process."""
        kind, cell = type(failure).__name__, getattr(failure, "cell_index", None)
        said = f"{kind}: {failure}"
        if cell is not None:  # papermill tells an error of a cell from all others
            kind = str(getattr(failure, "ename", kind))
            said = f"cell {cell}: {kind}: {getattr(failure, 'evalue', failure)}"
        memory = kind in ("MemoryError", "OutOfMemoryError") or "can't allocate memory" in said
        return cls(said, OUT_OF_MEMORY if memory or killed_for_memory else kind, cell)


def _start_again_where_no_kernel_came(execute: Callable[[], None]) -> None:
    for number in range(1, STARTS + 1):
        try:
            return execute()
        except RuntimeError as failure:
            if number == STARTS or NEVER_STARTED not in str(failure):
                raise  # no cell has run, so that nothing happens twice
