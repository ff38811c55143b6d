"""Runs of the tests against one changed module: a warm process that forks for every mutant.

Importing torch, diffusers and pytest takes seconds, a test milliseconds. So one process imports all
of that once and forks; the child imports the package itself anew (a tenth of a second), with the
mutant's source in place of the file's, and runs the tests that reach the changed lines, until one
fails. No file is ever changed. Needs a system that can fork, so not Windows.
"""

from __future__ import annotations

import gc
import importlib.abc
import importlib.machinery
import importlib.util
import json
import math
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

OPTIONS = ["-x", "-q", "--no-header", "-W", "ignore", "--timeout=0", "--assert=plain"]
# nothing is written, nothing is collected twice, and no time goes into plugins nobody asks here
WITHOUT = ("cacheprovider", "nbval", "xdist", "unraisableexception", "threadexception")
OPTIONS += [part for name in WITHOUT for part in ("-p", f"no:{name}")]
OWN = ("dsd_tutorial", "lab")  # what a child imports anew, beside the tests
KILLED, SURVIVED, TIMEOUT, BROKEN = "killed", "survived", "timeout", "broken"
SLOW = 3.0  # seconds; a test that takes longer is not asked, so a survivor pays for quick ones only
# A mutant is endless after SLACK seconds more than five times what its tests take: seconds of
# the processor, and PATIENCE times as many by the clock, since others may work here too.
SLACK, PATIENCE = 15.0, 10.0


@dataclass
class Reach:
    """Which tests reach which lines: of a run of all of them without a mutant.

    seconds  {test: how long it took}, in the order of the run
    lines    {file: {line: tests}}; what a shared fixture reaches counts for all tests of its file
    loaded   {file: lines that run on import}, which any test may notice
    """

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    loaded: dict[str, list[int]] = field(default_factory=dict)

    def tests(self, file: str, first: int, last: int) -> list[str]:
        """Return the tests that reach one of the lines, quick ones first and slow ones not."""
        if set(range(first, last + 1)) & set(self.loaded.get(file, ())):
            return self.every()
        lines = self.lines.get(file, {})
        return self._quick({t for line in range(first, last + 1) for t in lines.get(line, ())})

    def every(self) -> list[str]:
        """Return all tests but the slow ones, the quickest first."""
        return self._quick(self.seconds)

    def _quick(self, found: Iterable[str]) -> list[str]:
        chosen = [test for test in found if self.seconds[test] < SLOW]
        return sorted(chosen, key=lambda test: self.seconds[test])


class Mutated(importlib.machinery.SourceFileLoader, importlib.abc.MetaPathFinder):
    """Imports the module of one file from a text; leaves every other module to others."""

    def __init__(self, file: Path, text: str):
        parts = file.with_suffix("").parts
        self.package = parts[-1] == "__init__"
        super().__init__(".".join(parts[:-1] if self.package else parts), str(file.resolve()))
        self.text = text

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname != self.name:
            return None
        where = [str(Path(self.path).parent)] if self.package else None
        return importlib.util.spec_from_file_location(
            fullname, self.path, loader=self, submodule_search_locations=where
        )

    def get_code(self, fullname: str) -> Any:
        return compile(self.text, self.path, "exec")


class Chosen:
    """A pytest plugin: runs the chosen tests alone, in the given order, and ends at a failure.

    Which test that was is written to the file descriptor `told`.
    """

    def __init__(self, tests: list[str], told: int):
        self.place, self.told = {test: i for i, test in enumerate(tests)}, told

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        files: dict[str, int] = {}  # a module's fixtures are made once: its tests stay together
        for test in self.place:
            files.setdefault(test.split("::")[0], len(files))
        items[:] = [item for item in items if item.nodeid in self.place]
        items.sort(key=lambda i: (files[i.nodeid.split("::")[0]], self.place[i.nodeid]))

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            os.write(self.told, report.nodeid.encode())
            os._exit(1)  # at once: nobody reads what would still be reported


class Reaching:
    """A pytest plugin: tells the coverage measurement which test runs, and times it."""

    def __init__(self, coverage: Any):
        self.coverage, self.seconds, self.now = coverage, defaultdict(float), ""

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.now = nodeid
        self.coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration if report.when == "call" else 0.0

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Any:
        shared = fixturedef.scope != "function"
        if shared:
            file = self.now.split("::")[0] if fixturedef.scope == "module" else ""
            self.coverage.switch_context(f"{file}::")
        yield
        if shared:
            self.coverage.switch_context(self.now)


class Warm:
    """One warm process for a set of test files; call from the root of a copy of the repository."""

    def __init__(self, tests: list[str]):
        self.tests, self.child = tests, 0
        self.killed_by: Counter[tuple[str, str]] = Counter()  # (file, test): how many mutants
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started this says when to stop
        sys.path[:0] = [".", "tests"]
        self._warm()

    def _warm(self) -> None:
        """Import all that tests import, and forget the package again."""
        import torch
        from hypothesis import Phase, settings

        torch.set_num_threads(1)
        # the same examples every time, and none spent on a smaller one: it fails or it does not
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", derandomize=True, database=None, phases=phases)
        settings.load_profile("mutants")
        out = os.dup(1)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            pytest.main(["--collect-only", *OPTIONS, *self.tests])
            from tiny_model import tiny_model  # what builds it is imported late by diffusers

            tiny_model()
            os.dup2(out, 1)
        for name in list(sys.modules):
            if name.split(".")[0] in OWN or name.startswith(("test_", "tiny_", "conftest")):
                del sys.modules[name]
        gc.collect()
        gc.freeze()  # a child that collects would copy every page

    def reach(self, room_files: list[str], log: Path) -> Reach:
        """Return which tests reach what, after running all; RuntimeError if one fails."""
        answer = log.with_suffix(".json")
        if self._fork(lambda: self._measure(room_files, answer), 3600.0, log) != 0:
            raise RuntimeError(f"the tests fail without any mutant; see {log}")
        return Reach(**_lines_as_numbers(json.loads(answer.read_text(encoding="utf-8"))))

    def _measure(self, room_files: list[str], answer: Path) -> int:
        from coverage import Coverage

        meter = Coverage(data_file=None, include=room_files, branch=False)
        meter.start()
        plugin = Reaching(meter)
        status = int(pytest.main([*OPTIONS, *self.tests], plugins=[plugin]))
        meter.stop()
        data, reach = meter.get_data(), Reach(seconds=dict(plugin.seconds))
        for path in data.measured_files():
            file = os.path.relpath(path)
            rows, loaded = {}, []
            for line, contexts in data.contexts_by_lineno(path).items():
                found: set[str] = set()
                for name in contexts:
                    if name.endswith("::"):  # a fixture: of one file, or of all
                        own = name if len(name) > 2 else ""
                        found |= {test for test in reach.seconds if test.startswith(own)}
                    elif name:
                        found.add(name)
                    else:
                        loaded.append(line)
                rows[line] = sorted(found & set(reach.seconds))
            reach.lines[file], reach.loaded[file] = rows, loaded
        answer.write_text(json.dumps(reach.__dict__), encoding="utf-8")
        return status

    def outcome(self, file: str, text: str, tests: list[str], usual: float) -> tuple[str, float]:
        """Return what became of a mutant, and the seconds; `usual` is what the tests take.

        Tests that noticed other mutants of the file are asked first.
        """
        try:
            compile(text, file, "exec")
        except SyntaxError:
            return BROKEN, 0.0
        started = time.perf_counter()
        tests = sorted(tests, key=lambda test: -self.killed_by[file, test])
        heard, told = os.pipe()
        os.set_blocking(heard, False)  # what a stopped child left behind may hold the other end
        status = self._fork(lambda: self._test(file, text, tests, told), SLACK + 5 * usual, None)
        try:
            killer = os.read(heard, 4096).decode()
        except BlockingIOError:
            killer = ""
        finally:
            os.close(heard)
            os.close(told)
        if killer:
            self.killed_by[file, killer] += 1
        word = {0: SURVIVED, None: TIMEOUT, -signal.SIGXCPU: TIMEOUT}.get(status, KILLED)
        return word, time.perf_counter() - started

    def _test(self, file: str, text: str, tests: list[str], told: int) -> int:
        sys.meta_path.insert(0, Mutated(Path(file), text))
        files = list(dict.fromkeys(test.split("::")[0] for test in tests))
        return int(pytest.main([*OPTIONS, *files], plugins=[Chosen(tests, told)]))

    def _fork(self, run: Any, limit: float, log: Path | None) -> int | None:
        """Return the exit status of `run` in a child of its own; None if it took too long.

        `limit` counts the processor's seconds; a child that waits for ever ends by the clock.
        """
        import resource  # not on every system, as fork is not

        self.child = os.fork()
        if not self.child:
            status = 1
            try:
                os.setpgid(0, 0)
                seconds = math.ceil(limit)
                resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                with open(log or os.devnull, "w") as out:
                    os.dup2(out.fileno(), 1)
                    os.dup2(out.fileno(), 2)
                    status = run()
            finally:
                os._exit(status)
        pid, until, pause = self.child, time.monotonic() + PATIENCE * limit, 0.002
        while time.monotonic() < until:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self.child = 0
                return os.waitstatus_to_exitcode(status)
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        self._stop_child()
        return None

    def _stop_child(self) -> None:
        if self.child:
            try:
                os.killpg(self.child, signal.SIGKILL)
            except ProcessLookupError:
                os.kill(self.child, signal.SIGKILL)
            os.waitpid(self.child, 0)
            self.child = 0

    def _end(self, *_: Any) -> None:
        self._stop_child()
        os._exit(143)


def _lines_as_numbers(found: dict[str, Any]) -> dict[str, Any]:
    """Return what was read from JSON, whose keys are words, with line numbers as numbers."""
    lines = {f: {int(k): v for k, v in rows.items()} for f, rows in found["lines"].items()}
    return {**found, "lines": lines}
