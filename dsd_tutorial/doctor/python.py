"""Python, its packages, the model's weights, the kernel: whether they are what the course needs."""

import importlib.metadata
import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from dsd_tutorial.doctor.finding import Finding

PACKAGE = "dsd-tutorial"
OLDEST, NEWEST = (3, 11, 5), (3, 13)
LEARNERS = "course"  # the extra that is missed where it is absent; the others are for who asks


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
    if importlib.util.find_spec("torchvision"):
        seen = "is installed: some of its builds break `import CLIPImageProcessor`"
        yield Finding("WARN", "torchvision", seen, "if imports fail: pip uninstall torchvision")


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
