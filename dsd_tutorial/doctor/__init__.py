"""Is this machine ready for the course, or for a class? One finding per line, each with a remedy.

`dsd-tutorial doctor` prints them; `examine` yields them as they are made, quick ones first, and
`examine_room` what a class of N people needs beside.
"""

from collections.abc import Iterator

from dsd_tutorial.doctor.classroom import examine_room
from dsd_tutorial.doctor.finding import Finding, looked_at
from dsd_tutorial.doctor.machine import (
    check_clone,
    check_disk,
    check_folder,
    check_home,
    check_memory,
)
from dsd_tutorial.doctor.python import (
    check_device,
    check_kernel,
    check_packages,
    check_python,
    check_sampling,
    check_weights,
)

__all__ = ["Finding", "examine", "examine_room"]


def examine(deep: bool = False) -> Iterator[Finding]:
    """Every finding, in order; with `deep` also a started kernel and a sampled image.

    No check ends the others, but for a working folder that is gone: torch cannot start there.
    """
    yield check_python()
    folder = looked_at("folder", check_folder)
    yield folder
    if folder.status == "FAIL":
        return
    yield from check_clone()
    yield looked_at("home", check_home)
    yield from check_packages()
    yield looked_at("device", check_device)
    yield looked_at("weights", check_weights)
    yield looked_at("memory", check_memory)
    yield looked_at("disk", check_disk)
    yield check_kernel(start=deep)
    if deep:
        yield check_sampling()
