"""Folders, disk and memory: whether they take what the course writes and needs."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dsd_tutorial.course.notebooks import NotebookNotFound, repository
from dsd_tutorial.doctor.finding import Finding
from dsd_tutorial.saving import OutputError, require_writable

MEMORY_GB = 2.0  # what the most demanding notebook needs, with the browser beside it
DISK_GB = 1.0
FULL = 20_000_000  # bytes: with less, not even one executed notebook can be written
HOME_ROOM = 10_000_000  # bytes for what Jupyter and others keep in the home folder
HOME = "USERPROFILE" if os.name == "nt" else "HOME"


def check_memory() -> Finding:
    """Whether enough memory is free for the most demanding notebook."""
    import psutil

    free = psutil.virtual_memory().available / 1e9
    seen = f"{free:.1f} GB free"
    if free < MEMORY_GB:
        return Finding("WARN", "memory", seen, f"close programs until {MEMORY_GB:.0f} GB are free")
    return Finding("OK", "memory", seen)


def check_folder() -> Finding:
    """Whether the working folder is there and takes files: commands write beneath it."""
    try:
        here = Path.cwd()
    except OSError:
        seen = "the current folder is gone: deleted or moved"
        return Finding("FAIL", "folder", seen, "cd into a folder that exists, and try again")
    try:
        require_writable(here, room=0)
    except OutputError as error:
        remedy = f"{error} Commands take it with --output FOLDER."
        return Finding("WARN", "folder", f"{here} takes no files", remedy)
    return Finding("OK", "folder", f"{here} can be written")


def check_clone(notebooks: Path | None = None) -> Iterator[Finding]:
    """A warning where the course's own notebooks cannot be saved; nothing where all is well."""
    try:
        notebooks = repository() / "notebooks" if notebooks is None else notebooks
        require_writable(notebooks, room=0)
    except OutputError:
        remedy = (
            "`dsd-tutorial export FOLDER` writes copies to work on; `dsd-tutorial run` reads them "
            "where they are: give --output another folder"
        )
        yield Finding("WARN", "notebooks", f"{notebooks} takes no files", remedy)
    except (NotebookNotFound, OSError):
        return  # the package without a clone: `run` and `list` say so themselves


def check_home() -> Finding:
    """Whether there is a home folder that takes files: Jupyter and downloads keep theirs there."""
    how = "" if os.name == "nt" else f" (export {HOME}=/path/to/it)"
    other = f"set {HOME} to a folder of your own{how}"
    try:
        home = Path.home()
    except RuntimeError:
        return Finding("FAIL", "home", f"{HOME} is not set, and this user has no home", other)
    if not home.is_absolute():
        return Finding("FAIL", "home", f"{HOME} is {str(home)!r}, no absolute path", other)
    if not os.path.isdir(home):
        return Finding("WARN", "home", f"{home} is not there", f"make that folder, or {other}")
    try:
        require_writable(home, HOME_ROOM)
    except OutputError as error:
        said = str(error).removesuffix(", or give another folder.").removesuffix(".")
        remedy = f"{said}; or {other}: `jupyter lab` and downloads need it"
        return Finding("WARN", "home", f"{home} takes no files", remedy)
    if not os.environ.get(HOME):
        return Finding("WARN", "home", f"{HOME} is not set; {home} is taken for it", other)
    return Finding("OK", "home", f"{home} can be written")


def check_disk() -> Finding:
    """Whether executed notebooks and pages will fit, and the files that a kernel needs."""
    free = {}
    for what, find, remedy in (
        ("here", Path.cwd, "make room, or cd into another folder"),
        ("for temporary files", tempfile.gettempdir, "make room, or set TMPDIR to another folder"),
    ):
        try:
            free[what] = shutil.disk_usage(find()).free
        except OSError as error:
            return Finding("FAIL", "disk", f"no folder {what}: {error.strerror or error}", remedy)
        if free[what] < FULL:
            return Finding("FAIL", "disk", f"full: {free[what] / 1e6:.1f} MB free {what}", remedy)
    seen = f"{free['here'] / 1e9:.1f} GB free here"
    if free["here"] < DISK_GB * 1e9:
        return Finding("WARN", "disk", seen, f"free {DISK_GB:.0f} GB, or work in another folder")
    return Finding("OK", "disk", seen)
