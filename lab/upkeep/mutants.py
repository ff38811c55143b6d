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
import ast
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lab.upkeep.blocks import ROOT

STATE = ROOT / "build" / "mutants"
TREE = STATE / "tree"  # the copy that is tested, so that the checkout may be edited meanwhile
REASONS = ROOT / "docs" / "mutants.md"
PACKAGE = "dsd_tutorial"
METRICS = "matching/metrics.py"  # asked as a room of its own
# what stands in a room and is no part of the papers' methods: baselines, drawing, the judge's view
OTHER_IDEAS = (
    "metrics.py", "heatmaps.py", "coop.py", "pair_adapters.py", "methods.py", "fidelity.py",
    "edit_items.py", "projection/references.py",
)  # fmt: skip
LEAST = 0.9  # share of a room's mutants that tests must notice

# the tests of each room, quick ones, beside those of the defaults; the first is the room's own
ROOMS = {
    "attention": ("attention", "pooling", "matching", "heatmaps", "prompt_learning"),
    "matching": ("matching", "prompt_learning", "time_steps"),
    "metrics": ("metrics",),
    "projection": ("projection", "projection_matrices", "customization_parts"),
    "prompt_learning": ("prompt_learning", "prompt_learning_fit"),
    "variation": ("variation", "variation_editing"),
    "customization": ("customization", "customization_parts", "customization_tuning"),
}

# One exchange for each operator: others of cosmic-ray's would be noticed by the same tests.
EXCHANGES = {
    "Binary": {
        "Add": "Sub", "Sub": "Add", "Mul": "Div", "Div": "Mul", "FloorDiv": "Mul", "Mod": "Mul",
        "Pow": "Mul", "BitOr": "BitAnd", "BitAnd": "BitOr", "RShift": "LShift",
    },
    "Comparison": {
        "Eq": "NotEq", "NotEq": "Eq", "Lt": "LtE", "LtE": "Lt", "Gt": "GtE", "GtE": "Gt",
        "Is": "IsNot", "IsNot": "Is",
    },
    "Unary": {"USub": "UAdd", "Not": "Nothing", "Invert": "Nothing"},
}  # fmt: skip
OTHERS = (
    "AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr",
    "ReplaceOrWithAnd", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak",
    "ExceptionReplacer", "NumberReplacer", "RemoveDecorator", "ZeroIterationForLoop",
)  # fmt: skip
SHOWN = ("tqdm", "set_postfix", "set_description")  # progress bars are looked at, not tested


@dataclass(frozen=True)
class Mutant:
    """One change of one file: the `occurrence`-th place of a cosmic-ray operator."""

    room: str
    file: str  # below the root
    operator: str
    occurrence: int
    lines: tuple[int, int]  # of the statement it is in, for the tests that reach it
    line: int
    function: str  # qualified name, "" at the top

    def key(self) -> str:
        """Return a name for it that holds while the file stays as it is."""
        return f"{digest(self.file)} {self.file} {self.operator} {self.occurrence}"

    def text(self) -> str:
        """Return the file's text with the change."""
        from cosmic_ray.mutating import mutate_code

        source = (TREE / self.file).read_text(encoding="utf-8")
        return mutate_code(source, _operators()[self.operator](), self.occurrence)

    def change(self) -> tuple[str, str]:
        """Return what stood there and what stands there now, as one line each."""
        old = (TREE / self.file).read_text(encoding="utf-8").splitlines()
        new = self.text().splitlines()
        start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
        old, new = old[start:], new[start:]
        while len(old) > 1 and len(new) > 1 and old[-1] == new[-1]:
            old, new = old[:-1], new[:-1]
        return tuple(" ".join(" ".join(lines).split()) for lines in (old, new))

    def place(self) -> tuple[str, str, str, str]:
        """Return (file, function, before, after): what a reason is kept for, free of numbers."""
        return (self.file, self.function, *self.change())


@cache
def digest(*files: str) -> str:
    """Return a short digest of the texts of files, as they are in the copy."""
    found = hashlib.sha256()
    for file in files:
        found.update((TREE / file).read_bytes())
    return found.hexdigest()[:16]


@cache
def _operators() -> dict[str, Any]:
    """Return the operators that are used, by name."""
    from cosmic_ray.operators.provider import OperatorProvider

    names = [
        f"Replace{kind}Operator_{a}_{b}"
        if kind != "Unary"
        else f"ReplaceUnaryOperator_{_unary(a, b)}"
        for kind, pairs in EXCHANGES.items()
        for a, b in pairs.items()
    ]
    provider = OperatorProvider()
    return {name: provider[name] for name in [*names, *OTHERS]}


def _unary(a: str, b: str) -> str:
    return f"Delete_{a}" if b == "Nothing" else f"{a}_{b}"


def files_of(room: str) -> list[str]:
    """Return the files of a room, below the root."""
    if room == "metrics":
        return [f"{PACKAGE}/{METRICS}"]
    found = (
        p
        for p in sorted((TREE / PACKAGE / room).glob("*.py"))
        if not p.as_posix().endswith(OTHER_IDEAS)
    )
    return [path.relative_to(TREE).as_posix() for path in found]


def tests_of(room: str) -> list[str]:
    """Return the test files of a room, below the root."""
    names = ("defaults", *ROOMS[room])
    return [
        str(path.relative_to(ROOT))
        for name in names
        for path in sorted((ROOT / "tests").rglob(f"test_{name}.py"))
    ]


def mutants_of(room: str) -> Iterator[Mutant]:
    """Yield every mutant of a room."""
    from cosmic_ray.ast import ast_nodes, get_ast

    for file in files_of(room):
        source = (TREE / file).read_text(encoding="utf-8")
        tree, nodes = ast.parse(source), list(ast_nodes(get_ast(source)))
        silent, statements = _silent(tree), _statements(tree)
        for name, make in _operators().items():
            spots = [(s, node) for node in nodes for s in make().mutation_positions(node)]
            step = 2 if name == "NumberReplacer" else 1  # + 1 and - 1 at every number: + 1 does
            for occurrence, ((start, end), node) in enumerate(spots):
                if occurrence % step or any(a <= start and end <= b for a, b in silent):
                    continue
                if node.parent is not None and node.parent.type == "parameters":
                    continue  # the bare star of a signature, which is no product
                lines, function = _around(statements, start[0])
                yield Mutant(room, file, name, occurrence, lines, start[0], function)


def _span(node: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def _silent(tree: ast.Module) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the spans whose changes nobody should have to notice.

    Annotations (never evaluated here), imports for type checkers, the wording of an error and what
    a progress bar shows.
    """
    found: list[Any] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            found.append(node.annotation)
        elif isinstance(node, ast.FunctionDef):
            found.append(node.returns)
        elif isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            found.append(node)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found += node.exc.args
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            found += [node] if name in SHOWN else []
    return [_span(node) for node in found if node is not None]


def _statements(tree: ast.Module) -> list[tuple[int, int, str]]:
    """Return (first line, last line, function) of every statement, of a block only its head."""
    found = []

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = f"{name}.{child.name}" if name else child.name
            if isinstance(child, ast.stmt | ast.ExceptHandler):
                body = getattr(child, "body", None)
                decorated = getattr(child, "decorator_list", [])
                first = min([child.lineno, *(d.lineno for d in decorated)])
                last = body[0].lineno - 1 if body else child.end_lineno
                found.append((first, max(first, last), inner))
            visit(child, inner)

    visit(tree, "")
    return found


def _around(statements: list[tuple[int, int, str]], line: int) -> tuple[tuple[int, int], str]:
    """Return the lines of the smallest statement around a line, and the function it is in."""
    around = [s for s in statements if s[0] <= line <= s[1]] or [(line, line, "")]
    first, last, function = min(around, key=lambda s: s[1] - s[0])
    return (first, last), function


# -- running ---------------------------------------------------------------------------------------


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
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    os.chdir(TREE)
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != ROOT]
    for name in [n for n in sys.modules if n.split(".")[0] == PACKAGE]:
        del sys.modules[name]
    try:
        warm = Warm(tests_of(room))
        reach = warm.reach(files_of(room), STATE / f"{room}-{part}.log")
        for mutant, text in zip(mutants, texts, strict=True):
            tests = reach.tests(mutant.file, *mutant.lines)
            usual = sum(reach.seconds[test] for test in tests)
            found = warm.outcome(mutant.file, text, tests, usual) if tests else (SURVIVED, 0.0)
            answers.put((mutant.key(), *found, len(tests)))
    except Exception as error:  # said by the process that reads the queue
        answers.put((None, f"{room}: {error}", 0.0, 0))
    answers.put(None)


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


class Known:
    """Results so far, a line each in a file, so that a stopped run goes on."""

    def __init__(self, path: Path):
        self.path, self.rows = path, {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self.rows[row["key"]] = row

    def add(self, room: str, key: str, outcome: str, seconds: float, tests: int) -> None:
        row = {
            "key": key, "outcome": outcome, "seconds": round(seconds, 2), "tests": tests,
            "against": digest(*tests_of(room)),
        }  # fmt: skip
        self.rows[key] = row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def outcome(self, mutant: Mutant) -> str | None:
        """Return what is known of a mutant; None also of a survivor of other tests than today's."""
        row = self.rows.get(mutant.key(), {"outcome": None})
        stale = row["outcome"] == "survived" and row["against"] != digest(*tests_of(mutant.room))
        return None if stale else row["outcome"]


# -- report ----------------------------------------------------------------------------------------

ROW = re.compile(r"^- `([^`]+)` `([^`]*)`: `(.+?)` → `(.*?)`: (.+)$")


def row_of(mutant: Mutant, reason: str) -> str:
    """Return the line of `docs/mutants.md` for a survivor."""
    file, function, before, after = mutant.place()
    return f"- `{file.removeprefix(PACKAGE + '/')}` `{function}`: `{before}` → `{after}`: {reason}"


def reasons() -> dict[tuple[str, ...], str]:
    """Return the reasons of `docs/mutants.md`, by `Mutant.place`."""
    if not REASONS.exists():
        return {}
    rows = [ROW.match(line) for line in REASONS.read_text(encoding="utf-8").splitlines()]
    return {(f"{PACKAGE}/{r[1]}", r[2], r[3], r[4]): r[5].strip() for r in rows if r}


def report(rooms: list[str], known: Known) -> int:
    """Print shares and survivors, write the latter to a file; return the exit status."""
    given, used, wrong, open_rows = reasons(), set(), False, []
    written = [f"# Survivors, by `python -m {__spec__.name if __spec__ else 'lab.upkeep.mutants'}`"]
    for room in rooms:
        counts: Counter[str] = Counter()
        survivors, total = [], 0
        for mutant in mutants_of(room):
            total += 1
            outcome = known.outcome(mutant)
            counts[outcome or "unknown"] += 1
            if outcome == "survived":
                survivors.append(mutant)
        broken, unknown = counts["broken"], counts["unknown"]
        killed = counts["killed"] + counts["timeout"]
        run = killed + len(survivors)
        if not run:
            print(f"{room:16} nothing run yet of {total}")
            continue
        line = f"{room:16} {killed:4} of {run:4} killed = {killed / run:6.1%}"
        line += f"; {unknown} of {total} not run" if unknown else ""
        missing = [m for m in survivors if m.place() not in given]
        print(
            f"{line}; {len(survivors)} survive, {len(missing)} without a reason; {broken} no code"
        )
        wrong |= killed / run < LEAST or bool(missing)
        written += ["", f"## {room}", ""]
        for mutant in sorted(survivors, key=lambda m: (m.file, m.line)):
            reason = given.get(mutant.place(), "")
            used.add(mutant.place())
            where = f"{mutant.file}:{mutant.line}"
            written.append(f"{where} [{mutant.operator}]\n{row_of(mutant, reason or '?')}")
            open_rows += [] if reason else [f"{where}: {' -> '.join(mutant.change())}"]
        if not unknown:
            own = set(files_of(room))
            for place in sorted(p for p in given if p[0] in own and p not in used):
                print(f"  no survivor any more: {place[0]} {place[1]}: {place[2]}")
    path = STATE / "survivors.md"
    path.write_text("\n".join(written) + "\n", encoding="utf-8")
    for row in open_rows:
        print(f"  no reason: {row}")
    print(f"rows for {REASONS.relative_to(ROOT)} are in {path.relative_to(ROOT)}")
    return int(wrong)


def main() -> int:
    """The exit status: 0 where every room has its share and every survivor its reason."""
    global TREE
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
    known, rooms = Known(path), given.room or list(ROOMS)
    if given.report:
        TREE = ROOT  # as the checkout is now; another run may be at work in the copy
        return report(rooms, known)
    if not hasattr(os, "fork"):
        raise SystemExit("mutants need a system that can fork")
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has it ignored
        signal.signal(number, signal.default_int_handler)
    with alone():
        copy_tree()
        try:
            for room in rooms:
                if todo := [m for m in mutants_of(room) if known.outcome(m) is None]:
                    run_room(room, todo, max(1, given.processes), known)
        except KeyboardInterrupt:
            print("stopped; the same command goes on from here", file=sys.stderr)
        return report(rooms, known)


if __name__ == "__main__":
    sys.exit(main())
