"""One notebook executed with papermill: how long, how much memory, did it finish.

papermill reports success for a notebook that calls `sys.exit(0)` half-way: here every cell must
have run.
"""

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from dsd_tutorial.saving import OutputError, write_text

SKIP = "skip-execution"
SAMPLE_EVERY = 0.1  # seconds between two looks at the kernel's memory
SAVE_EVERY = 5.0  # seconds; papermill by itself writes the whole file twice for every cell
QUIET = "--IPKernelApp.log_level=40"  # no word about transport encryption on one's own machine
NEVER_STARTED = "Kernel died before replying to kernel_info"  # jupyter_client's words
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


class PeakMemory:
    """Samples the memory of our child processes (the kernel's tree) in a thread, into `bytes`."""

    def __init__(self) -> None:
        self.bytes = 0
        self._done = threading.Event()
        self._ours = psutil.Process()
        self._before = set(self._ours.children(recursive=True))
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _look(self) -> None:
        total = 0
        for process in self._ours.children(recursive=True):
            if process not in self._before:
                try:
                    total += process.memory_info().rss
                except psutil.Error:  # it ended between the two calls
                    continue
        self.bytes = max(self.bytes, total)

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_EVERY):
            self._look()

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()


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
            write_text(output, json.dumps(executed, indent=1, ensure_ascii=False) + "\n")
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
) -> Outcome:
    """The outcome of one notebook; the executed copy is written to `output`, also on failure.

    `parameters` are values already checked. `cell_timeout` in seconds. The kernel works in the
    folder of `output`, so that nothing it writes lands among the sources.
    """
    import papermill

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
    error, executed = None, None
    start = time.perf_counter()
    with PeakMemory() as memory:
        try:
            for start_number in range(1, STARTS + 1):
                try:
                    execute()
                    break
                except RuntimeError as failure:
                    if start_number == STARTS or NEVER_STARTED not in str(failure):
                        raise  # no cell has run, so that nothing happens twice
        except papermill.PapermillExecutionError as failure:
            error = f"cell {failure.cell_index}: {failure.ename}: {failure.evalue}"
        except Exception as failure:  # a dead kernel, a timeout, no kernel: report, go on
            error = f"{type(failure).__name__}: {failure}"
        finally:
            executed = _publish(partial, output)
    seconds = time.perf_counter() - start
    if executed is None:
        error = f"{error or 'papermill wrote nothing'}; {output.name} is as it was before"
    elif error is None and (missed := unfinished(executed)):
        error = f"cells {missed} did not run to their end: does one before them call exit()?"
    return Outcome(
        path.stem,
        "failed" if error else "ok",
        round(seconds, 1),
        round(memory.bytes / 1e6),
        error,
        str(output),
        executed is not None,
    )
