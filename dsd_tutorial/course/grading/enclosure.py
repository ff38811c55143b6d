"""Walls around a hand-in's process: what it may see, use and reach. Standard library only.

    python -m dsd_tutorial.course.grading.enclosure SETTINGS

On Linux, where the system permits namespaces, the process gets a file system that holds Python,
its packages and an empty scratch folder and nothing else, no network, and no other processes; it
cannot undo that. Everywhere it gets limits as far as the system knows them. Then it becomes the
sandbox, which reports which of both it is in.
"""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import signal
import sys
from contextlib import suppress
from pathlib import Path

SANDBOX = "dsd_tutorial.course.grading.sandbox"
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store")
SYSTEM += tuple(f"/etc/{name}" for name in ("ld.so.cache", "ld.so.conf", "ld.so.conf.d"))
SYSTEM += ("/etc/alternatives", "/etc/fonts", "/etc/localtime", "/etc/passwd")
DEVICES = ("null", "zero", "full", "random", "urandom")
NOBODY = 65534
UNWALLED = 97  # exit status: no walls here, nothing has been read from the judge
SCRATCH = "/tmp"
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18,
)  # fmt: skip
NOATIME, NODIRATIME, RELATIME = 1024, 2048, 1 << 21
DETACH, PDEATHSIG, NO_NEW_PRIVS = 2, 1, 38


def visible() -> tuple[list[str], list[str]]:
    """(folders a sandbox needs to see, folders in them that it must not): Python and packages."""
    package = Path(__file__).resolve().parents[2]
    keep = {*SYSTEM, str(package)}
    keep |= {sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parents[1])}
    keep |= set(package_folders())
    hide = [package / "course" / "checks", package / "data" / "course"]
    return sorted(keep), [str(folder) for folder in hide if folder.is_dir()]


def package_folders() -> list[str]:
    """The folders of installed packages that this Python imports from."""
    return [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]


def libc() -> ctypes.CDLL:
    """The C library of this process."""
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    given = [text.encode() if text is not None else None for text in (source, target, kind)]
    _checked(libc().mount(*given, ctypes.c_ulong(flags), options.encode()), f"mount {target}")


def _show(path: str, root: str) -> None:
    """Make `path` visible under `root`, read-only; a link stays a link."""
    if not os.path.lexists(path):
        return
    place = Path(root + path)
    if place.exists() or place.is_symlink():  # inside a folder that is shown already
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if os.path.islink(path):
        place.symlink_to(os.readlink(path))
        return
    place.mkdir() if os.path.isdir(path) else place.touch()
    _mount(path, str(place), None, BIND | REC)
    was = os.statvfs(path).f_flag
    kept = {os.ST_NOSUID: NOSUID, os.ST_NODEV: NODEV, os.ST_NOEXEC: NOEXEC}
    kept |= {os.ST_NOATIME: NOATIME, os.ST_NODIRATIME: NODIRATIME, os.ST_RELATIME: RELATIME}
    flags = sum(flag for bit, flag in kept.items() if was & bit)
    if not path.startswith("/dev/"):
        flags |= NODEV
    _mount("none", str(place), None, REMOUNT | BIND | RDONLY | NOSUID | flags)


def _furnish(root: str, keep: list[str], hide: list[str], scratch_mb: int) -> None:
    """A file system of its own under `root`, and step into it for good."""
    _mount("none", "/", None, REC | PRIVATE)
    _mount("tmpfs", root, "tmpfs", NOSUID | NODEV, "size=4m,mode=755")
    for path in sorted(keep, key=len):
        _show(path, root)
    for path in hide:
        if os.path.isdir(root + path):
            _mount("tmpfs", root + path, "tmpfs", NOSUID | NODEV | RDONLY, "size=4k,mode=755")
    for name in DEVICES:
        _show(f"/dev/{name}", root)
    for name in ("/proc", SCRATCH, "/dev/shm"):
        os.makedirs(root + name, exist_ok=True)
    _mount("proc", root + "/proc", "proc", NOSUID | NODEV | NOEXEC)
    for name in (SCRATCH, "/dev/shm"):
        options = f"size={scratch_mb}m,mode=777"
        _mount("tmpfs", root + name, "tmpfs", NOSUID | NODEV, options)
    os.chdir(root)
    _checked(libc().pivot_root(b".", b"."), "pivot_root")
    _checked(libc().umount2(b".", DETACH), "umount")
    os.chdir("/")
    _mount("none", "/", None, REMOUNT | BIND | RDONLY | NOSUID | NODEV)
    os.chdir(SCRATCH)


def _limit(settings: dict) -> None:
    """Limits of this process and its children, as far as the system knows them."""
    try:
        import resource
    except ImportError:  # Windows
        return
    wanted = {
        "RLIMIT_DATA": settings["memory_mb"] * 1_000_000,
        "RLIMIT_CPU": settings["cpu_seconds"],
        "RLIMIT_FSIZE": settings["scratch_mb"] * 1_000_000,
        "RLIMIT_NPROC": settings["processes"],
        "RLIMIT_CORE": 0,
    }
    for name, value in wanted.items():
        with suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (value, value))


def _become_nobody() -> None:
    """Leave root for good, since limits on processes do not hold for it."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def open_to_all(*paths: str) -> bool:
    """Whether everybody may read these files, or enter these folders."""
    for path in map(Path, paths):
        try:
            parts = [path.resolve(), *path.resolve().parents]
            closed = [part for part in parts if not part.stat().st_mode & 0o001]
        except OSError:
            return False
        if closed:
            return False
    return True


def _wall_in(settings: dict) -> None:
    """Namespaces around the process that this becomes; exits with UNWALLED where there are none."""
    root_user = os.geteuid() == 0
    kinds = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET | (0 if root_user else NEWUSER)
    uid, gid = os.geteuid(), os.getegid()
    try:
        libc().prctl(PDEATHSIG, signal.SIGKILL)
        _checked(libc().unshare(kinds), "unshare")
        if not root_user:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
            Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    except OSError as error:
        print(error, file=sys.stderr)
        os._exit(UNWALLED)
    child = os.fork()  # the first process of the new namespace: when it ends, all in it end
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) % 256)
    try:
        _furnish(settings["folder"], settings["keep"], settings["hide"], settings["scratch_mb"])
        if root_user:
            _become_nobody()
        libc().prctl(NO_NEW_PRIVS, 1, 0, 0, 0)
        libc().prctl(PDEATHSIG, signal.SIGKILL)
        _start(settings, "", SCRATCH)
    except OSError as error:
        print(error, file=sys.stderr)
    os._exit(UNWALLED)


def _start(settings: dict, reason: str, scratch: str) -> None:
    """Become the sandbox, with limits; `reason` says why there are no walls, "" where there are."""
    package = str(Path(__file__).parents[2])
    if reason and hasattr(os, "geteuid") and os.geteuid() == 0:
        if open_to_all(sys.executable, sys.prefix, package, *package_folders(), scratch):
            _become_nobody()
            reason += "; they run as nobody, not as root"
        else:
            reason += "; they run as root, since nobody else may use this Python"
    _limit(settings)
    for name in ("HOME", "TMPDIR", "TEMP", "TMP"):
        os.environ[name] = scratch
    os.environ["DSD_UNWALLED"] = reason
    if os.name == "nt":  # exec there starts another process, and the judge would lose this one
        runpy.run_module(SANDBOX, run_name="__main__")
        return
    os.execv(sys.executable, [sys.executable, "-P", "-m", SANDBOX])


def main() -> None:
    """Read the settings and become the sandbox, inside walls where they can be had."""
    settings = json.loads(sys.argv[1])
    os.chdir(settings["folder"])
    reason = f"{sys.platform} has no namespaces"
    if settings["walls"] and sys.platform == "linux":
        child = os.fork()
        if not child:
            _wall_in(settings)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code != UNWALLED:
            sys.exit(code % 256)
        reason = "this system permits no namespaces"
    elif not settings["walls"]:
        reason = "walls were not asked for"
    _start(settings, reason, settings["folder"])


if __name__ == "__main__":
    main()
