#!/usr/bin/env python3
"""The one entry point: `python make.py run | test | lab | ...`, on Linux, macOS and Windows.

It needs the standard library only. It creates `.venv` from `requirements.lock` (again whenever the
lock, the Python or the folder changed) and carries out the command inside. `make` calls it.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import FunctionType

ROOT = Path(__file__).resolve().parent
LOCK = ROOT / "requirements.lock"
VENV = ROOT / ".venv"
OLDEST = (3, 11, 5)

# Everything below runs offline; a value that the caller has set wins.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not one in the home folder
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # the debugger's start-up warning
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "passive",  # threads that wait leave the core to others
    # glibc keeps freed memory for the next tensor: otherwise up to a third of the time of two
    # processes side by side goes into handing pages back and having them zeroed again
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "PYTHONUTF8": "1",  # Windows consoles and notebooks agree on the encoding
}


def venv_python() -> Path:
    """The interpreter inside `.venv`, on either kind of system."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint() -> str:
    """A digest of all that the installed environment depends on."""
    parts = [
        LOCK.read_bytes(),
        (ROOT / "pyproject.toml").read_bytes(),
        str(ROOT).encode(),
        sys.version.encode(),
        torch_build().encode(),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def call(*command: object, check: bool = True, **variables: str) -> int:
    """The exit status of a command, run in the repository root; with `check`, failure ends us.

    `variables` are put into its environment where the caller has not set them.
    """
    sys.stdout.flush()
    environment = {**ENVIRONMENT, **variables, **os.environ}
    try:
        code = subprocess.call([str(part) for part in command], cwd=ROOT, env=environment)
    except KeyboardInterrupt:
        code = 130
    if check and code:
        sys.exit(code)
    return code


def torch_build() -> str:
    """Which torch this machine gets: `cpu`, `cuda`, or `plain` where there is one for all.

    On Linux the package index's torch brings gigabytes for CUDA. So there it is the CPU build,
    unless an NVIDIA device is seen or TORCH=cuda is said; TORCH=cpu says it the other way.
    """
    asked = os.environ.get("TORCH", "auto")
    if asked not in ("auto", "cpu", "cuda"):
        sys.exit(f"TORCH={asked} is not known: give cpu, cuda or auto.")
    if not sys.platform.startswith("linux"):
        return "plain"
    if asked != "auto":
        return asked
    return "cuda" if nvidia_device() else "cpu"


def nvidia_device() -> bool:
    """Whether the driver of an NVIDIA device answers."""
    try:
        command = ["nvidia-smi", "--list-gpus"]
        return subprocess.run(command, capture_output=True, timeout=20).stdout.strip() != b""
    except (OSError, subprocess.TimeoutExpired):
        return False


def install_cpu_torch(*pip: object) -> None:
    """Install the locked torch in its CPU build, from wherever it is to be had.

    First from where pip looks here (an index or a folder that somebody set), then through uv, which
    knows where PyTorch keeps its builds. No address is written here. Where both fail, the lock's
    own, larger torch follows.
    """
    version = next(line for line in LOCK.read_text().splitlines() if line.startswith("torch=="))
    locked = version.split(";")[0].strip()
    if call(*pip, f"{locked}+cpu", check=False) == 0:
        return
    uv = ("-m", "uv", "pip", "install", "--quiet", "--torch-backend", "cpu")
    if call(*pip, "uv", check=False) == 0 and call(venv_python(), *uv, locked, check=False) == 0:
        return
    print("No CPU build of torch could be had: the one for CUDA follows, gigabytes larger.")


def ensure_environment() -> None:
    """Create or renew `.venv` where the lock, the Python or the folder is not the one installed."""
    stamp = VENV / "installed.txt"
    wanted = fingerprint()
    if stamp.is_file() and stamp.read_text() == wanted and venv_python().exists():
        return
    if sys.version_info[:3] < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        sys.exit(
            f"Python {sys.version.split()[0]} is too old: this course needs {oldest} or "
            "newer. Give another one: `python3.11 make.py ...`, `make PYTHON=python3.11 ...`."
        )
    print("Creating .venv from requirements.lock (once; some minutes, about 2 GB)", flush=True)
    if VENV.exists():
        shutil.rmtree(VENV)
    call(sys.executable, "-m", "venv", VENV)
    pip = (venv_python(), "-m", "pip", "install", "--disable-pip-version-check", "--quiet")
    if torch_build() == "cpu":
        install_cpu_torch(*pip)
    call(*pip, "-r", LOCK)
    call(*pip, "--no-deps", "--no-build-isolation", "--editable", ROOT)
    stamp.write_text(wanted)


def module(help: str, *start: str, runs: bool = False, **variables: str) -> FunctionType:
    """A command that starts a module, with these arguments and those that follow the command.

    With `runs` it is made of executed notebooks, and those that are missing are executed first.
    """

    def command(python: Path, rest: list[str]) -> int:
        if runs:
            run_once(python)
        return call(python, "-m", *start, *rest, **variables)

    command.__doc__ = help
    return command


def run_once(python: Path) -> None:
    """Execute the notebooks of which build/ has no current run; the others are left as they are."""
    asked = subprocess.run(
        [str(python), "-m", "lab.reach.executed"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    if asked.returncode:
        sys.exit(asked.returncode)
    if asked.stdout.split():
        COMMANDS["run"](python, asked.stdout.split())


def test(python: Path, rest: list[str]) -> int:
    """Package tests; each notebook by papermill with fast values, by nbval, on foreign models.

    All of them run two at a time, each with half of the cores: that is faster than one after the
    other with all. nbval computes with as many threads as papermill did, because it compares what
    is printed. At the end it is said how long each part took.
    """
    cores = os.cpu_count() or 1
    together = ("--numprocesses", min(2, cores), "--dist", "loadfile")
    half = {"OMP_NUM_THREADS": str(max(1, cores // 2))}
    took: dict[str, float] = {}

    def part(name: str, *command: object) -> None:
        begun = time.monotonic()
        call(python, "-m", *command, **half)
        took[name] = time.monotonic() - begun

    # the longest files first, as tests/conftest.py has them, and without nbval: importing it takes
    # each process seconds
    ordered = (*together, "--no-loadscope-reorder", "-p", "no:nbval")
    part("package", "pytest", "tests", "-q", *ordered, *rest)
    output = ROOT / "build" / "test"
    fast = ("--output", output, "--parameters", "tests/params/fast.yaml", "--cell-timeout", 300)
    part("papermill", "dsd_tutorial.course.running", *fast, "--jobs", min(2, cores))
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    executed = [notebook["output"] for notebook in record["notebooks"]]
    if not executed:
        print("No notebook to compare: notebooks/ is empty.")
        return 0
    compared = ("--nbval", "--nbval-current-env", "--nbval-cell-timeout=300", "--timeout=600")
    masked = ("--nbval-sanitize-with", "tests/nbval_sanitize.cfg")
    part("nbval", "pytest", "-q", *compared, *masked, *together, *executed)
    part("foreign models", "lab.upkeep.foreign")
    said = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in took.items())
    print(f"minutes: {said}; in all {sum(took.values()) / 60:.1f}")
    return 0


def grading(python: Path, rest: list[str]) -> int:
    """Judge thirty made hand-ins, then three by nbgrader's own commands (installed beside)."""
    call(python, "-m", "lab.upkeep.handins", *rest)
    return call(python, "-m", "lab.upkeep.nbgrader")


def tables(python: Path, rest: list[str]) -> int:
    """Measure every table in results/ again; hours, and each goes on where it was stopped."""
    for name in (
        "model", "few-shot", "lora-settings", "readings", "ranking", "precision", "projection",
        "editing", "customization", "grounding", "information", "features", "quality", "retrieval",
        "bridge",
    ):  # fmt: skip
        call(python, "-m", "lab", "measure", name, *rest)
    return 0


def lab(python: Path, rest: list[str]) -> int:
    """Open JupyterLab at the first notebook."""
    first = next(iter(sorted((ROOT / "notebooks").glob("*.ipynb"))), ROOT / "notebooks")
    if getattr(os, "geteuid", lambda: 1)() == 0:  # in a container everybody is
        print("You are root, which JupyterLab refuses unless told that it is meant: it is told so.")
        rest = ["--allow-root", *rest]
    return call(python, "-m", "jupyterlab", first, *rest)


def lint(python: Path, rest: list[str]) -> int:
    """Check style, which way imports go, and the types of the companion package."""
    call(python, "-m", "ruff", "check", ".", *rest)
    call(python, "-c", "from importlinter.cli import lint_imports_command as c; c()")
    return call(python, "-m", "pyright", "--pythonpath", python)


COMMANDS = {
    "run": module(
        "Execute every notebook at its defaults into build/: notebooks, HTML, run.json.",
        "dsd_tutorial.course.running", "--html", "--output", "build",
    ),
    "test": test,
    "foreign": module(
        "Run every notebook on two foreign models with random weights: a 1.x and a 2.x.",
        "lab.upkeep.foreign",
    ),
    "mutants": module(
        "Plant small faults and count which tests notice; resumable (extra `mutants`).",
        "lab.upkeep.mutants",
    ),
    "grading": grading,
    "memory": module(
        "Every notebook beside a Jupyter server within 2 GB, as on Binder.", "lab.upkeep.memory"
    ),
    "faults": module(
        "Forty runs with workers and client killed on the way; equal to an undisturbed sweep?",
        "lab.upkeep.faults",
    ),
    "train": module(
        'Train one part of the embedded model: `make train ARGS="unet --output build/shapes-sd"`.',
        "lab", "train",
    ),
    "tables": tables,
    "bench": module(
        "Time score, rank and the rest against the released way; ARGS=--quick takes three minutes.",
        "lab", "bench",
        # threads that spin are what small batches, hence the released way, run fastest with
        OMP_NUM_THREADS=str(os.cpu_count() or 1), OMP_WAIT_POLICY="active",
    ),
    "lab": lab,
    "lint": lint,
    "strip": module(
        "Take outputs, counters and private metadata out of notebooks/ before a commit.",
        "lab.upkeep.strip",
    ),
    "lock": module(
        "Write requirements.lock from pyproject.toml and what `.venv` holds.", "lab.upkeep.lock"
    ),
    "environments": module(
        "Write environment.yml and binder/environment.yml from pyproject.toml.",
        "lab.upkeep.environments",
    ),
    "readme": module(
        "Put the minutes and memory of the last `run` into results/ and the README.",
        "lab.upkeep.readme",
    ),
    "picture": module("Draw the README's picture with the embedded model.", "lab.upkeep.picture"),
    "book": module(
        "Build the course as a web page, into build/book, from what `run` executed.",
        "lab.reach.book", runs=True,
    ),
    "slides": module(
        "Write a deck of each notebook, into build/slides, from what `run` executed (needs npm).",
        "lab.reach.deck", runs=True,
    ),
    "browser": module(
        "Try book, slides and live notebooks in Chromium, with the network cut (needs both).",
        "lab.reach.browser",
    ),
}  # fmt: skip


def main() -> int:
    """The exit status of the chosen command."""
    lines = "\n".join(f"  {name:13} {f.__doc__.splitlines()[0]}" for name, f in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="make.py",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
        epilog=f"commands:\n  {'venv':13} Only create .venv.\n{lines}",
    )
    parser.add_argument("command", choices=["venv", *COMMANDS], metavar="command")
    parser.add_argument(
        "--here",
        action="store_true",
        help="use the Python that runs this (conda, Binder) instead of .venv",
    )
    arguments, rest = parser.parse_known_args()
    if not arguments.here:
        ensure_environment()
    if arguments.command == "venv":
        return 0
    python = Path(sys.executable) if arguments.here else venv_python()
    return COMMANDS[arguments.command](python, rest)


if __name__ == "__main__":
    sys.exit(main())
