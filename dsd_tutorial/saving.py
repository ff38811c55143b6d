"""Files that appear whole or not at all, and folders that are known to take them.

A result is written beside its target and moved over it at the end, so that a killed process, a
full disk or Ctrl-C leaves the old file as it was. `Written` remembers what a command wrote into a
folder: whatever else lies there is somebody's own work, and is never removed or written over.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

REMEDIES = {
    errno.ENOSPC: "the disk is full: make room, or give another folder",
    errno.EDQUOT: "your share of the disk is used up: make room, or give another folder",
    errno.EROFS: "that disk is read-only: give another folder",
    errno.EACCES: "you may not write there: give a folder of your own",
    errno.EPERM: "you may not write there: give a folder of your own",
    errno.EEXIST: "a file is there, and a folder is needed: give another folder",
    errno.ENOTDIR: "a part of that path is a file, not a folder: give another folder",
    errno.EISDIR: "a folder is there, and a file is needed: give another name",
    errno.ENAMETOOLONG: "that name is too long: give a shorter one",
}


class OutputError(ValueError):
    """A file or folder cannot be written; the message names it and says what to do."""


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The `OutputError` that tells people what an `OSError` means for `path`."""
    remedy = REMEDIES.get(error.errno or 0, f"{error.strerror or error}: give another folder")
    shown = str(path) if len(str(path)) <= 200 else f"{str(path)[:80]}…{str(path)[-20:]}"
    return OutputError(f"cannot write to {shown}: {remedy}.")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a file name beside `path`; what is written there takes the place of `path` at the end.

    Its name has the ending of `path`. After an error, also Ctrl-C, it is removed and `path` is as
    it was; a link is followed. Raises OutputError where the file cannot be written.
    """
    path = Path(path)
    target = path.resolve()
    partial = target.with_name(f".partial-{os.getpid()}-{target.name}"[-200:])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(_mode(target))
        os.replace(partial, target)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _mode(target: Path) -> int:
    """The permissions of the file that is replaced, or those that a new file would get."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file as a whole."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file as a whole, in UTF-8, with line feeds on every system."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file as a whole, indented, with a line feed at its end."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def save_tensors(
    tensors: Mapping[str, Any], path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file as a whole; the tensors may be views of the file they replace."""
    from safetensors.torch import save_file

    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as partial:
        save_file(kept, partial, metadata=dict(metadata) if metadata else None)


@contextmanager
def replacing_in(folder: str | Path) -> Iterator[Path]:
    """Yield an empty folder; each file written into it is moved into `folder` at the end.

    For libraries that write several files by themselves (`save_pretrained`). Raises OutputError.
    """
    folder = Path(folder).resolve()
    with _folder_made(folder), tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as name:
        yield Path(name)
        for path in sorted(Path(name).iterdir()):
            path.chmod(_mode(folder / path.name))
            os.replace(path, folder / path.name)


@contextmanager
def _folder_made(folder: Path, keep: bool = True) -> Iterator[None]:
    """Make `folder`; without `keep`, or where the block fails, what was made goes again."""
    made, whole = [], False
    try:
        for part in [*reversed(folder.parents), folder]:
            if not part.is_dir():
                part.mkdir()
                made.append(part)
        yield
        whole = True
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        if not (whole and keep):
            for part in reversed(made):
                with suppress(OSError):
                    part.rmdir()


def require_writable(folder: str | Path, room: int = 1_000_000, make: bool = True) -> Path:
    """The absolute path of `folder`, made if need be, after trying that files can be written there.

    `room` is the number of bytes that must be free. Where the answer is no, and with `make=False`
    in any case, no folder is left behind. Raises OutputError.
    """
    folder = Path(os.path.abspath(expanded(folder)))
    with _folder_made(folder, keep=make):
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free
        if free < room:
            raise OutputError(
                f"cannot write to {folder}: {free / 1e6:.1f} MB are free and about "
                f"{room / 1e6:.1f} MB are needed: make room, or give another folder."
            )
    return folder


def require_writable_file(path: str | Path) -> Path:
    """The absolute path of a file that can be written; raises OutputError. Nothing is written."""
    path = Path(os.path.abspath(expanded(path)))
    if path.is_dir():
        raise cannot_write(path, OSError(errno.EISDIR, os.strerror(errno.EISDIR)))
    require_writable(path.parent, make=False)
    if path.exists() and not os.access(path, os.W_OK):
        raise cannot_write(path, OSError(errno.EACCES, os.strerror(errno.EACCES)))
    return path


def expanded(path: str | Path) -> Path:
    """`path` with `~` as a home folder; raises OutputError where nobody has that home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise OutputError(
            f"{str(path)!r} begins with the home folder of somebody who is not known here: "
            "write the path in full, or ./~name for a folder of that name."
        ) from None


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Written:
    """What our commands wrote into `folder`, by name and SHA-256, kept in a small file there.

    A file counts as ours while its content is still what we wrote.
    """

    NAME = ".written.json"

    def __init__(self, folder: Path):
        self.folder = folder
        self._list = folder / self.NAME
        try:
            self.files: dict[str, str] = dict(json.loads(self._list.read_text("utf-8"))["files"])
        except (OSError, ValueError, KeyError, TypeError):
            self.files = {}  # none yet, or not ours: then nothing here is taken for ours

    def ours(self, path: Path) -> bool:
        """Whether `path` is a file of ours that nobody has changed since."""
        return path.is_file() and self.files.get(path.name) == file_sha256(path)

    def add(self, *paths: Path) -> None:
        """Remember files just written."""
        self.files |= {path.name: file_sha256(path) for path in paths if path.is_file()}
        write_json(self._list, {"about": "what dsd-tutorial wrote here", "files": self.files})

    def make_way(self, path: Path) -> Path | None:
        """Move a file that is not ours out of the way of `path`; its new place, or None."""
        if not path.exists() or self.ours(path):
            return None
        number = 1
        while (kept := path.with_name(f"{path.stem}.kept-{number}{path.suffix}")).exists():
            number += 1
        path.rename(kept)
        return kept

    def remove(self, names: set[str]) -> tuple[list[Path], list[Path]]:
        """Delete files of ours called `names`: (deleted, kept since somebody changed them)."""
        there = [self.folder / name for name in sorted(names & self.files.keys())]
        there = [path for path in there if path.is_file()]
        gone = [path for path in there if self.ours(path)]
        for path in gone:
            path.unlink()
        self.files = {n: d for n, d in self.files.items() if n not in names}
        return gone, [path for path in there if path.exists()]
