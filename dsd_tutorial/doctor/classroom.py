"""Is this machine fit for a class of N people, each with a kernel: `doctor --workshop N`.

It is meant for the machine that runs the kernels, a JupyterHub's or a laptop's (N = 1). What it
expects of a notebook is what `make run` measured.
"""

import json
import os
import shutil
import socket
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from dsd_tutorial.course.notebooks import all_notebooks, read_notebook
from dsd_tutorial.doctor.finding import Finding, looked_at

SERVER_MB = 150  # of one person's Jupyter server
SYSTEM_MB = 1000  # left to the system
PERSON_MB = 60  # of disk: the course, what its notebooks show, some results
KERNEL_PORTS = 5
LAB_PORT = 8888
PATIENCE = 20  # minutes that a class waits for the longest notebook
UNMEASURED_MB, UNMEASURED_MINUTES, MEASURED_CORES = 1500, 6, 2
GLYPHS = "✓✗●○√ᾱ→≤·"  # of the course's figures and texts
BROWSERS = ("firefox", "chromium", "chromium-browser", "google-chrome", "msedge", "safari")


def examine_room(people: int) -> Iterator[Finding]:
    """Findings for a class of so many people, in order; the last ones start kernels."""
    yield looked_at("kernels", check_kernels, people)
    yield looked_at("waiting", check_waiting, people)
    yield looked_at("room on disk", check_room, people)
    yield looked_at("fonts", check_fonts)
    yield looked_at("browser", check_browser)
    yield looked_at("ports", check_ports, people)
    for notebook in all_notebooks():
        yield looked_at(notebook.name[:2], try_first_cells, notebook.path)


def _heaviest() -> tuple[float, float]:
    """(MB, minutes) of the most demanding notebooks, as measured."""
    course = all_notebooks()
    memory = max(n.peak_mb or UNMEASURED_MB for n in course)
    minutes = max((n.seconds or 60 * UNMEASURED_MINUTES) / 60 for n in course)
    return memory, minutes


def check_kernels(people: int, total_mb: float | None = None) -> Finding:
    """Whether the memory holds everybody's kernel and server at once."""
    import psutil

    total = psutil.virtual_memory().total / 1e6 if total_mb is None else total_mb
    each = _heaviest()[0] + SERVER_MB
    fit = max(0, int((total - SYSTEM_MB) // each))
    seen = f"{total / 1000:.0f} GB hold {fit} kernels of {each / 1000:.1f} GB; {people} are wanted"
    if fit >= people:
        return Finding("OK", "kernels", seen)
    remedy = (
        f"{(people * each + SYSTEM_MB) / 1000:.0f} GB in all, or several machines, or "
        f"let {-(-people // max(1, fit))} people share a kernel; shut down what is finished"
    )
    return Finding("FAIL", "kernels", seen, remedy)


def check_waiting(people: int, cores: int | None = None) -> Finding:
    """How long the longest notebook takes when everybody starts it at once."""
    cores = (os.cpu_count() or 1) if cores is None else cores
    minutes = _heaviest()[1]
    wait = minutes * max(1.0, people * MEASURED_CORES / cores)
    seen = f"{cores} cores: the longest notebook takes {wait:.0f} min when all run it at once"
    if wait <= PATIENCE:
        return Finding("OK", "waiting", seen)
    remedy = (
        "hand out `quick.yaml`'s values and pages executed before (`make run`), or let people "
        "start at different times"
    )
    return Finding("WARN", "waiting", seen, remedy)


def check_room(people: int) -> Finding:
    """Whether the disk holds everybody's folder."""
    free = shutil.disk_usage(Path.cwd()).free / 1e6
    wanted = people * PERSON_MB
    seen = f"{free / 1000:.1f} GB free here; {people} folders take up to {wanted / 1000:.1f} GB"
    if free >= wanted:
        return Finding("OK", "room on disk", seen)
    return Finding("FAIL", "room on disk", seen, "make room, or put the home folders elsewhere")


def check_fonts() -> Finding:
    """Whether figures find their font, and all the signs that the course writes in it."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    name = "DejaVu Sans"
    path = font_manager.findfont(name, fallback_to_default=True)
    known = FT2Font(path).get_charmap()
    missing = [sign for sign in GLYPHS if ord(sign) not in known]
    if name.split()[0].lower() not in Path(path).name.lower() or missing:
        seen = f"{name} is not found or lacks {''.join(missing) or 'nothing'}: {path} is taken"
        remedy = "pip install --force-reinstall matplotlib, whose package brings the font"
        return Finding("WARN", "fonts", seen, remedy)
    return Finding("OK", "fonts", f"figures: {name}, with all signs of the course")


def check_browser() -> Finding:
    """Whether a browser is here; on a hub those of the learners count."""
    found = next((name for name in BROWSERS if shutil.which(name)), None)
    if found is None:
        with suppress(webbrowser.Error):
            found = type(webbrowser.get()).__name__
    if found:
        return Finding("OK", "browser", found)
    remedy = "on a hub nothing is amiss: learners bring theirs (Firefox, Chrome, Safari, Edge)"
    return Finding("WARN", "browser", "none on this machine", remedy)


def check_ports(people: int) -> Finding:
    """Whether JupyterLab's port is free, and as many others as the kernels take."""
    wanted = people * KERNEL_PORTS
    with ExitStack() as held:
        try:
            for _ in range(wanted):
                held.enter_context(socket.create_server(("127.0.0.1", 0)))
        except OSError as error:
            seen = f"{wanted} ports for {people} kernels cannot be had ({error.strerror})"
            return Finding("FAIL", "ports", seen, "raise the limit on open files: ulimit -n 4096")
        try:
            held.enter_context(socket.create_server(("127.0.0.1", LAB_PORT)))
        except OSError:
            seen = f"{LAB_PORT} is taken; {wanted} others are free"
            remedy = "another JupyterLab runs: end it, or start with --port 8899"
            return Finding("WARN", "ports", seen, remedy)
    return Finding("OK", "ports", f"{LAB_PORT} and {wanted} for {people} kernels are free")


def first_cells(notebook: dict) -> dict:
    """A copy of a notebook, as JSON, up to the cell that loads the model."""
    for position, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code" and "load_model(" in "".join(cell["source"]):
            return {**notebook, "cells": notebook["cells"][: position + 1]}
    return notebook


def try_first_cells(path: Path) -> Finding:
    """Whether a notebook's first cells run in a kernel here: imports, parameters, the model."""
    from dsd_tutorial.course.execution import run_notebook
    from dsd_tutorial.course.parameters import quick_values

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        short = Path(name) / "short" / path.name
        short.parent.mkdir()
        short.write_text(json.dumps(first_cells(read_notebook(path))), encoding="utf-8")
        values = quick_values(path.stem)
        done = run_notebook(short, Path(name) / path.name, values, 300, progress=False)
    what = path.stem[:2]
    if done.status != "ok":
        said = (done.error or "").splitlines()[0][:200]
        remedy = "docs/errors.md explains it; dsd-tutorial doctor --deep looks closer"
        return Finding("FAIL", what, f"{path.stem}: {said}", remedy)
    seen = f"{path.stem}: its first cells run, {done.seconds:.0f} s, {done.peak_mb / 1000:.1f} GB"
    return Finding("OK", what, seen)
