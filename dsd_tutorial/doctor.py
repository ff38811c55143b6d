"""Is this machine ready for the course? One finding per line, each with a remedy.

`dsd-tutorial doctor` prints them; `examine` yields them as they are made, quick ones first.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from dsd_tutorial.course.notebooks import NotebookNotFound, repository
from dsd_tutorial.saving import OutputError, require_writable

PACKAGE = "dsd-tutorial"
OLDEST, NEWEST = (3, 11, 5), (3, 13)
MEMORY_GB = 2.0  # what the most demanding notebook needs, with the browser beside it
DISK_GB = 1.0
FULL = 20_000_000  # bytes: with less, not even one executed notebook can be written
HOME_ROOM = 10_000_000  # bytes for what Jupyter and others keep in the home folder
HOME = "USERPROFILE" if os.name == "nt" else "HOME"
LEARNERS = "course"  # the extra that is missed where it is absent; the others are for who asks
UNWANTED = {
    "torchvision": "some of its builds break `import CLIPImageProcessor`",
}


@dataclass(frozen=True)
class Finding:
    """One point that was looked at: status OK, WARN or FAIL, what was seen, and what to do."""

    status: str
    what: str
    seen: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.status:5}{self.what:18}{self.seen}"
        return f"{line}\n     {'':18}-> {self.remedy}" if self.remedy else line


def examine(deep: bool = False) -> Iterator[Finding]:
    """Every finding, in order; with `deep` also a started kernel and a sampled image.

    No check ends the others, but for a working folder that is gone: torch cannot start there.
    """
    yield check_python()
    folder = _looked_at("folder", check_folder)
    yield folder
    if folder.status == "FAIL":
        return
    yield from check_clone()
    yield _looked_at("home", check_home)
    yield from check_packages()
    yield _looked_at("device", check_device)
    yield _looked_at("weights", check_weights)
    yield _looked_at("memory", check_memory)
    yield _looked_at("disk", check_disk)
    yield check_kernel(start=deep)
    if deep:
        yield check_sampling()


def _looked_at(what: str, check: Callable[[], Finding]) -> Finding:
    """What a check finds; a failure where the machine is so odd that the check itself fails."""
    try:
        return check()
    except Exception as error:
        seen = f"could not be looked at: {type(error).__name__}: {error}"
        return Finding("FAIL", what, seen, "mend what the other lines say, and try again")


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """Whether this Python is one that the course runs on."""
    seen = ".".join(map(str, version))
    if version < OLDEST:
        return Finding("FAIL", "Python", seen, "install 3.11.5 or newer and run make.py with it")
    if version[:2] > NEWEST:
        newest = ".".join(map(str, NEWEST))
        return Finding("WARN", "Python", seen, f"if packages are missing, use Python {newest}")
    return Finding("OK", "Python", seen)


def check_packages() -> Iterator[Finding]:
    """One finding for all packages in range, else one per package that is not."""
    try:
        lines = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("FAIL", "package", f"{PACKAGE} is not installed", "pip install -e . (clone)")
        return
    wanted = [each for each in map(Requirement, lines) if _for_learners(each)]
    bad = [finding for each in wanted if (finding := check_requirement(each))]
    yield from bad
    if not bad:
        yield Finding("OK", "packages", f"{len(wanted)} in their ranges")
    for name, why in UNWANTED.items():
        if importlib.util.find_spec(name):
            yield Finding(
                "WARN", name, f"is installed: {why}", f"if imports fail: pip uninstall {name}"
            )


def _for_learners(wanted: Requirement) -> bool:
    marker = wanted.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", LEARNERS))


def check_requirement(wanted: Requirement) -> Finding | None:
    """A finding for a package that is absent or out of range; None when all is well.

    What only an extra asks for is a warning: the package itself works without it.
    """
    extra = wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})
    status = "WARN" if extra else "FAIL"
    remedy = f'pip install "{wanted.name}{wanted.specifier}"'
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(status, wanted.name, "is not installed", remedy)
    if not wanted.specifier.contains(version, prereleases=True):
        return Finding(status, wanted.name, f"{version} is outside {wanted.specifier}", remedy)
    return None


def check_device() -> Finding:
    """What torch would compute on. Never a failure: the course is made for a CPU."""
    try:
        import torch
    except ImportError as error:
        return Finding("FAIL", "device", f"torch cannot be imported: {error}", "make venv")
    if torch.cuda.is_available():
        seen = f"cuda ({torch.cuda.get_device_name()})"
    elif torch.backends.mps.is_available():
        seen = "mps"
    else:
        seen = f"cpu, {torch.get_num_threads()} threads"
    return Finding("OK", "device", f"{seen}; torch {torch.__version__}")


def check_weights(folder: Path | None = None) -> Finding:
    """Whether the embedded model is complete and every file is the one that was published."""
    from dsd_tutorial.stable_diffusion.checksums import verify
    from dsd_tutorial.stable_diffusion.files import require_complete
    from dsd_tutorial.stable_diffusion.registry import (
        EMBEDDED_FOLDER,
        REGISTRY,
        ChecksumError,
        MissingModelError,
    )

    folder = EMBEDDED_FOLDER if folder is None else folder
    entry = REGISTRY["shapes-sd"]
    try:
        require_complete(folder, entry)
        checked = verify(folder, entry) or {}
    except (MissingModelError, ChecksumError) as error:
        return Finding("FAIL", "weights", "shapes-sd cannot be used", str(error))
    return Finding("OK", "weights", f"shapes-sd: {len(checked)} files, SHA-256 as published")


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


def check_kernel(start: bool = False) -> Finding:
    """Whether Jupyter's `python3` kernel is this Python; with `start`, whether it answers."""
    remedy = 'pip install "dsd-tutorial[course]" in the environment of the course'
    try:
        from jupyter_client.manager import start_new_kernel

        # with `python3` we mean this environment's kernel, not one in the home folder
        os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
        from jupyter_client.kernelspec import KernelSpecManager

        specification = KernelSpecManager().get_kernel_spec("python3")
    except Exception as error:
        return Finding("FAIL", "kernel", f"no python3 kernel: {error}", remedy)
    command = Path(specification.argv[0])
    if command.is_absolute() and not command.exists():
        return Finding("FAIL", "kernel", f"{command} is gone", "python -m ipykernel install --user")
    if not start:
        return Finding("OK", "kernel", f"python3 in {specification.resource_dir}")
    begin = time.perf_counter()
    try:
        manager, client = start_new_kernel(kernel_name="python3", startup_timeout=60)
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    except Exception as error:
        return Finding("FAIL", "kernel", f"does not start: {error}", remedy)
    return Finding("OK", "kernel", f"started in {time.perf_counter() - begin:.1f} s")


def check_sampling() -> Finding:
    """Whether the embedded model draws an image without a network."""
    begin = time.perf_counter()
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        from dsd_tutorial.stable_diffusion import load_model

        model = load_model("shapes-sd")
        images = model.sample(["a red circle"], steps=4, seed=0, progress=False)
    except Exception as error:
        seen = f"{type(error).__name__}: {error}"
        return Finding("FAIL", "sampling", seen, "mend what the lines above say first")
    seen = f"{tuple(images.shape[-2:])} pixels in {time.perf_counter() - begin:.1f} s, offline"
    return Finding("OK", "sampling", seen)
