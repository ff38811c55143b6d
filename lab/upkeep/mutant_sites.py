"""Small faults: every place in a room's modules that an operator of cosmic-ray changes."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = "dsd_tutorial"
METRICS = "matching/metrics.py"  # asked as a room of its own
# what stands in a room and is no part of the papers' methods: baselines, drawing, the judge's view
OTHER_IDEAS = (
    "metrics.py", "heatmaps.py", "coop.py", "pair_adapters.py", "methods.py", "fidelity.py",
    "edit_items.py", "projection/references.py",
)  # fmt: skip
# which tests notice a room's faults, beside its own and those of the defaults
ROOMS = {
    "attention": ("matching", "prompt_learning"),
    "matching": ("prompt_learning",),
    "metrics": ("metrics",),
    "projection": ("customization_parts",),
    "prompt_learning": (),
    "variation": (),
    "customization": (),
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

    tree: Path  # the checkout, or a copy of it
    room: str
    file: str  # below `tree`
    operator: str
    occurrence: int
    lines: tuple[int, int]  # of the statement it is in, for the tests that reach it
    line: int
    function: str  # qualified name, "" at the top

    def key(self) -> str:
        """Return a name for it that holds while the file stays as it is."""
        return f"{digest(self.tree, self.file)} {self.file} {self.operator} {self.occurrence}"

    def text(self) -> str:
        """Return the file's text with the change."""
        from cosmic_ray.mutating import mutate_code

        source = (self.tree / self.file).read_text(encoding="utf-8")
        return mutate_code(source, _operators()[self.operator](), self.occurrence)

    def change(self) -> tuple[str, str]:
        """Return what stood there and what stands there now, as one line each."""
        old = (self.tree / self.file).read_text(encoding="utf-8").splitlines()
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
def digest(tree: Path, *files: str) -> str:
    """Return a short digest of the texts of files."""
    found = hashlib.sha256()
    for file in files:
        found.update((tree / file).read_bytes())
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


def files_of(tree: Path, room: str) -> list[str]:
    """Return the files of a room, below the root."""
    if room == "metrics":
        return [f"{PACKAGE}/{METRICS}"]
    found = (
        p
        for p in sorted((tree / PACKAGE / room).glob("*.py"))
        if not p.as_posix().endswith(OTHER_IDEAS)
    )
    return [path.relative_to(tree).as_posix() for path in found]


def tests_of(tree: Path, room: str) -> list[str]:
    """Return the test files of a room, below the root."""
    methods = tree / "tests" / "methods"
    found = [methods / "test_defaults.py", *sorted((methods / room).glob("test_*.py"))]
    for name in ROOMS[room]:
        found += sorted(methods.rglob(f"test_{name}.py"))
    return [path.relative_to(tree).as_posix() for path in found if path.is_file()]


def mutants_of(tree: Path, room: str) -> Iterator[Mutant]:
    """Yield every mutant of a room."""
    from cosmic_ray.ast import ast_nodes, get_ast

    for file in files_of(tree, room):
        source = (tree / file).read_text(encoding="utf-8")
        parsed, nodes = ast.parse(source), list(ast_nodes(get_ast(source)))
        silent, statements = _silent(parsed), _statements(parsed)
        for name, make in _operators().items():
            spots = [(s, node) for node in nodes for s in make().mutation_positions(node)]
            step = 2 if name == "NumberReplacer" else 1  # + 1 and - 1 at every number: + 1 does
            for occurrence, ((start, end), node) in enumerate(spots):
                if occurrence % step or any(a <= start and end <= b for a, b in silent):
                    continue
                if node.parent is not None and node.parent.type == "parameters":
                    continue  # the bare star of a signature, which is no product
                lines, function = _around(statements, start[0])
                yield Mutant(tree, room, file, name, occurrence, lines, start[0], function)


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
