"""A sandbox as the judge holds it: started, asked, watched, and ended with all that it started."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import psutil

from dsd_tutorial.course.checks.exercise import Unanswerable
from dsd_tutorial.course.grading import enclosure
from dsd_tutorial.course.grading.wire import Garbled, decode, encode, receive
from dsd_tutorial.course.records import CLONE

START = 120.0  # seconds that Python and torch may take to start
LOOK = 0.2  # seconds between two looks at the memory
SPARE = 64  # processes and threads beside those that run already


@dataclass(frozen=True)
class Limits:
    """What one exercise of a hand-in may take; a sandbox holds all of one hand-in."""

    seconds: float = 30.0
    memory_mb: int = 3000
    scratch_mb: int = 64
    walls: bool = True


class Stopped(Unanswerable):
    """A sandbox ended, or was ended, before it answered."""


class Sandbox:
    """A process that answers for one hand-in; started anew when it was ended."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.unwalled: str | None = None  # why there are no walls; "" where there are
        self.deadline = 0.0
        self._asked = 0  # the number of the last message; what comes back bears it
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="dsd-hand-in-", ignore_cleanup_errors=True
        )
        folder = Path(self._folder.name)
        folder.chmod(0o777 if hasattr(os, "geteuid") and os.geteuid() == 0 else 0o700)
        keep, hide = enclosure.visible()
        settings = {
            "folder": str(folder.resolve()),
            "keep": keep,
            "hide": hide,
            "memory_mb": self.limits.memory_mb,
            "scratch_mb": self.limits.scratch_mb,
            "cpu_seconds": int(self.limits.seconds * 20 + START),
            "processes": running_processes() + SPARE,
            "walls": self.limits.walls,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", enclosure.__name__, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=plain_environment(),
            start_new_session=True,
        )
        # by threads, since a hand-in need neither write nor read
        self._inbox: queue.Queue[Any] = queue.Queue()
        self._outbox: queue.Queue[bytes | None] = queue.Queue()
        for target, box in ((_read, self._inbox), (_write, self._outbox)):
            threading.Thread(target=target, args=(self._process, box), daemon=True).start()
        self.deadline, self._asked = time.monotonic() + START, 0
        self.unwalled = str(self._next()["hello"])

    def ready(self) -> None:
        """Start the process where it is not running."""
        if self._process is None:
            self._start()

    def ask(self, message: dict[str, Any], functions: list[Callable] | None = None) -> Any:
        """The sandbox's next message. Raises Stopped."""
        if self._process is None:
            raise Stopped("the process ended", "It was ended before.")
        self._asked += 1
        self._outbox.put(encode({**message, "id": self._asked}, functions))
        return self._next()

    def _next(self) -> Any:
        while True:
            if time.monotonic() > self.deadline:  # also of one that calls back without an end
                self._give_up("too slow", f"It gave no answer within {self.limits.seconds:g} s.")
            try:
                parts = self._inbox.get(timeout=LOOK)
                break
            except queue.Empty:
                self._look_at_the_tree()
        if parts is None:
            self._give_up("the process ended", "The process ended by itself.")
        if isinstance(parts, Garbled):
            self._give_up("no readable answer", f"What came back was {parts}.")
        try:
            message = decode(*parts)
            if not isinstance(message, dict) or message.get("id") != self._asked:
                raise Garbled("nobody asked for it")
            return message
        except Garbled as error:
            self._give_up("no readable answer", f"What came back could not be read: {error}.")

    def _look_at_the_tree(self) -> None:
        tree = _tree(self._process.pid) if self._process else []
        used = 0
        for process in tree:
            with suppress(psutil.Error):
                used += process.memory_info().rss
        if used > self.limits.memory_mb * 1_000_000:
            self._give_up("too much memory", f"It used more than {self.limits.memory_mb} MB.")
        if len(tree) > SPARE:
            self._give_up("too many processes", f"It started more than {SPARE} processes.")

    def _give_up(self, name: str, words: str) -> NoReturn:
        self.end()
        raise Stopped(name, words)

    def load(self, name: str, cells: list[tuple[str, str]]) -> dict[str, Any]:
        """What the sandbox says after it defined `name`."""
        self.ready()
        self.deadline = time.monotonic() + self.limits.seconds
        return self.ask({"name": name, "cells": cells})

    def end(self) -> None:
        """End the process and all that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        for each in _tree(process.pid):
            with suppress(psutil.Error):
                each.kill()
        with suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        self._outbox.put(None)
        process.wait()
        self._folder.cleanup()


def _read(process: subprocess.Popen, inbox: queue.Queue) -> None:
    """Put the sandbox's messages into `inbox`, as bytes; None at their end."""
    assert process.stdout is not None
    with suppress(OSError), process.stdout as stream:
        try:
            while (parts := receive(stream)) is not None:
                inbox.put(parts)
        except Garbled as error:
            inbox.put(error)
            return
    inbox.put(None)


def _write(process: subprocess.Popen, outbox: queue.Queue) -> None:
    """Write what comes out of `outbox` to the sandbox, until None or its end."""
    assert process.stdin is not None
    with suppress(OSError), process.stdin as stream:
        while (message := outbox.get()) is not None:
            stream.write(message)
            stream.flush()


def _tree(pid: int) -> list[psutil.Process]:
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.Error:
        return []


def running_processes() -> int:
    """Processes and threads of this user: what a system counts against its limit."""
    if not hasattr(os, "getuid"):
        return 0
    uid = os.getuid() or enclosure.NOBODY
    count = 0
    for process in psutil.process_iter(["uids", "num_threads"]):
        if process.info["uids"] and process.info["uids"].real == uid:
            count += process.info["num_threads"] or 1
    return count


def plain_environment() -> dict[str, str]:
    """The few variables that a sandbox gets: no tokens, no paths of the instructor's."""
    kept = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "PYTHONPATH": os.pathsep.join([str(CLONE), *enclosure.package_folders()]),
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
        "USER": "learner",
    }
