"""One run, as a worker carries it out: a notebook comes in as text, and goes back executed.

No file of the sweep is touched here: workers need no disk in common with anybody. A row says what
its figures came out of, its provenance: versions, commit, machine; the kernel adds where. Two runs
with one key and equal provenance must agree in every recorded figure.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import zlib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from dsd_tutorial.course.claims import REPORT
from dsd_tutorial.course.execution import run_notebook
from dsd_tutorial.course.recording import recorded
from dsd_tutorial.course.records import CLONE
from dsd_tutorial.course.watching import OUT_OF_MEMORY, Limits

LIBRARIES = ("torch", "diffusers", "transformers")
STARTED = "dsd-tutorial-started"  # the topic on which a worker says which run it has begun
ONE_THREAD = {  # spinning threads of several processes slow each other down, tenfold at worst
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "TOKENIZERS_PARALLELISM": "false",
}


def carry_out(job: dict[str, Any]) -> tuple[dict[str, Any], bytes | None]:
    """Return (row, executed notebook, compressed) of a job.

    A job holds `key`, `notebook`, `source`, `parameters` (every value), `values` (those that are
    given), `weights`, `memory_mb`, `minutes` and `threads`. A run that fails is a row as well.
    """
    os.environ.update({REPORT: "1", **(ONE_THREAD if job["threads"] == 1 else {})})
    folder, worker, memory_mb = _worker(job)
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as name:
        source = Path(name) / f"{job['notebook']}.ipynb"
        source.write_text(job["source"], encoding="utf-8")
        output = Path(name) / "out" / source.name
        limits = Limits(memory_mb, job["minutes"])
        outcome = run_notebook(source, output, job["values"], progress=False, limits=limits)
        text = output.read_text(encoding="utf-8") if outcome.saved else None
    figures, tables, place = ({}, {}, {}) if text is None else recorded(json.loads(text))
    row = {
        "key": job["key"],
        "notebook": job["notebook"],
        "status": outcome.status,
        "seconds": outcome.seconds,
        "peak_mb": outcome.peak_mb,
        "parameters": job["parameters"],
        "figures": figures,
        "tables": tables,
        "error": outcome.error and outcome.error[-2000:],
        "error_class": outcome.error_class,
        "error_cell": outcome.error_cell,
        "worker": worker,
        "provenance": {**provenance(), "weights": job["weights"], **place},
    }
    return row, None if text is None else zlib.compress(text.encode(), 1)


def out_of_memory(row: dict[str, Any]) -> bool:
    """Whether a run ended because memory ran out."""
    return row["error_class"] == OUT_OF_MEMORY


def _worker(job: dict[str, Any]) -> tuple[str | None, str, float | None]:
    """The worker's folder, its name, and the megabytes that a kernel may take beside it."""
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:  # not inside a cluster
        return None, platform.node(), job["memory_mb"]
    worker.log_event(STARTED, job["key"])
    most = worker.memory_manager.memory_limit if job["memory_mb"] is None else None
    share = most and most / worker.state.nthreads / 1e6
    return worker.local_directory, f"{platform.node()} {worker.name}", job["memory_mb"] or share


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
    if not (CLONE / ".git").exists():
        return {"commit": None, "changed": None}
    try:
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--", "dsd_tutorial", "notebooks")
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "changed": None}
    return {"commit": head, "changed": bool(changed)}


def _git(*command: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(CLONE), *command], capture_output=True, text=True, check=True, timeout=30
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
