"""How much the tests notice: small faults, one at a time, and which of them nobody sees.

`python -m lab.upkeep.mutants` changes one operator, number, word or decorator of a module (the
operators of cosmic-ray), runs the tests that reach it, and counts. A mutant that no test
notices survives; it stands in `docs/mutants.md` with the reason, or it asks for a test.

    python -m lab.upkeep.mutants                      all rooms; goes on where it was stopped
    python -m lab.upkeep.mutants --room matching      one room
    python -m lab.upkeep.mutants --report             only what is known so far

The exit status is 1 where less than 90 % of a room's mutants are killed, or where a survivor has no
reason.

What is known is kept in `build/mutants/`: a result holds while the module's source stays as it is,
a survivor's also only while the room's tests do. After changes elsewhere, take --fresh.
Needs the extra `mutants` (`pip install -e .[test,mutants]`) and a system that can fork. It takes an
hour or two of two processors, at a low priority.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.upkeep.blocks import ROOT
from lab.upkeep.mutant_report import STATE, Known, report
from lab.upkeep.mutant_sites import (
    PACKAGE,
    ROOMS,
    Mutant,
    files_of,
    mutants_of,
    tests_of,
)

TREE = STATE / "tree"  # the copy that is tested, so that the checkout may be edited meanwhile


def copy_tree() -> None:
    """Copy what the tests need to `TREE`."""
    shutil.rmtree(TREE, ignore_errors=True)
    TREE.mkdir(parents=True)
    for name in (PACKAGE, "lab", "tests", "docs", "notebooks", "results"):
        if (ROOT / name).exists():
            skip = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            shutil.copytree(ROOT / name, TREE / name, ignore=skip)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, TREE / path.name)


@contextmanager
def alone() -> Iterator[None]:
    """Yield where no other run is at work; SystemExit otherwise, since both share the copy."""
    import fcntl

    STATE.mkdir(parents=True, exist_ok=True)
    with open(STATE / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("another run of this tool is at work here: wait for it") from None
        yield


def work(room: str, mutants: list[Mutant], texts: list[str], part: int, answers: Any) -> None:
    """Run the mutants of one room in this process, from the copy; every answer goes to a queue."""
    from lab.upkeep.mutant_runs import SURVIVED, Warm

    os.nice(10)
    # signatures are not checked: modules are imported anew, and a class is then not what it was
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", JAXTYPING_DISABLE="1")
    os.chdir(TREE)
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != ROOT]
    for name in [n for n in sys.modules if n.split(".")[0] == PACKAGE]:
        del sys.modules[name]
    try:
        warm = Warm(tests_of(TREE, room))
        reach = warm.reach(files_of(TREE, room), STATE / f"{room}-{part}.log")
        require_effect(warm, reach, mutants[0].file)
        for mutant, text in zip(mutants, texts, strict=True):
            tests = reach.tests(mutant.file, *mutant.lines)
            usual = sum(reach.seconds[test] for test in tests)
            found = warm.outcome(mutant.file, text, tests, usual) if tests else (SURVIVED, 0.0)
            answers.put((mutant.key(), *found, len(tests)))
    except Exception as error:  # said by the process that reads the queue
        answers.put((None, f"{room}: {error}", 0.0, 0))
    answers.put(None)


def require_effect(warm: Any, reach: Any, file: str) -> None:
    """RuntimeError where a module that cannot be imported is not noticed: then no mutant is."""
    from lab.upkeep.mutant_runs import SURVIVED

    word, _ = warm.outcome(file, "raise RuntimeError", reach.every(), 60.0)
    if word == SURVIVED:
        raise RuntimeError(f"{file} is imported past the mutants: none of them takes effect")


def run_room(room: str, mutants: list[Mutant], processes: int, known: Known) -> None:
    """Run mutants in so many processes, and write down each answer as it comes."""
    # what children leave behind when they end at the first failure is nobody's loss
    os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning")
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    parts = [mutants[i::processes] for i in range(processes) if mutants[i::processes]]
    workers = [
        context.Process(target=work, args=(room, part, [m.text() for m in part], i, answers))
        for i, part in enumerate(parts)
    ]
    for worker in workers:
        worker.start()
    done, left = 0, len(workers)
    try:
        while left:
            answer = answers.get()
            if answer is None:
                left -= 1
            elif answer[0] is None:
                raise SystemExit(answer[1])
            else:
                known.add(room, *answer)
                done += 1
                if sys.stderr.isatty():
                    print(f"\r{room}: {done} of {len(mutants)} ", end="", file=sys.stderr)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def main() -> int:
    """The exit status: 0 where every room has its share and every survivor its reason."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--room", action="append", choices=ROOMS, help="only this; may be repeated")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--fresh", action="store_true", help="forget what is known")
    parser.add_argument("--report", action="store_true", help="run nothing, say what is known")
    given = parser.parse_args()
    path = STATE / "results.jsonl"
    if given.fresh:
        path.unlink(missing_ok=True)
    rooms = given.room or list(ROOMS)
    if given.report:
        # of the checkout as it is now; another run may be at work in the copy
        return report(rooms, Known(path, ROOT))
    if not hasattr(os, "fork"):
        raise SystemExit("mutants need a system that can fork")
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has it ignored
        signal.signal(number, signal.default_int_handler)
    with alone():
        copy_tree()
        known = Known(path, TREE)
        try:
            for room in rooms:
                if todo := [m for m in mutants_of(TREE, room) if known.outcome(m) is None]:
                    run_room(room, todo, max(1, given.processes), known)
        except KeyboardInterrupt:
            print("stopped; the same command goes on from here", file=sys.stderr)
        return report(rooms, known)


if __name__ == "__main__":
    sys.exit(main())
