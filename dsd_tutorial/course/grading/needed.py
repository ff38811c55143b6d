"""What a function of a notebook needs: the statements behind its names, and no others.

A hand-in is not run from top to bottom, which takes minutes. Of the course's cells and the
learner's own, those statements are executed that bind a name which the function uses, and what
those use in turn: imports, helpers, constants, and what was computed only where it is asked for.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator

EVERYTHING = {"globals", "locals", "vars", "dir"}  # who calls these may use any name


def needed(cells: list[tuple[str, str]], name: str) -> list[tuple[str, ast.stmt]]:
    """The statements behind `name`, in order, each with the label of its cell.

    Args:
        cells: (label, source) of each cell, in the order in which they would run.
        name: of the function.

    Raises:
        SyntaxError: The last cell cannot be read. Others that cannot are passed over.
    """
    program = [
        (label, statement)
        for position, (label, source) in enumerate(cells)
        for statement in _statements(source, strict=position == len(cells) - 1)
    ]
    imports = [s for _, s in program if isinstance(s, ast.Import)]
    modules = {_alias(alias) for statement in imports for alias in statement.names}
    wanted, kept = {name}, []
    for label, statement in reversed(program):
        if wanted.isdisjoint(bound(statement, modules)):
            continue
        statement = _narrowed(statement, wanted)
        used = _used(statement)
        if used & EVERYTHING:
            used.update(*(bound(before, modules) for _, before in program))
        wanted |= used
        kept.append((label, statement))
    return kept[::-1]


def _statements(source: str, strict: bool) -> list[ast.stmt]:
    """The statements of a cell, each with its place in it; lines of IPython's own are left out."""
    lines = ["" if line.lstrip()[:1] in ("%", "!") else line for line in source.splitlines()]
    try:
        return ast.parse("\n".join(lines)).body
    except SyntaxError:
        if strict:
            raise
        return []


def _narrowed(statement: ast.stmt, wanted: set[str]) -> ast.stmt:
    """An import of many names as an import of those that are wanted."""
    if not isinstance(statement, ast.Import | ast.ImportFrom):
        return statement
    names = [alias for alias in statement.names if _alias(alias) in wanted | {"*"}]
    if isinstance(statement, ast.Import):
        return ast.copy_location(ast.Import(names), statement)
    return ast.copy_location(ast.ImportFrom(statement.module, names, statement.level), statement)


def _alias(alias: ast.alias) -> str:
    return alias.asname or alias.name.split(".")[0]


def bound(node: ast.AST, modules: set[str]) -> Iterator[str]:
    """Yield the names that a statement binds, or whose value it may change.

    To call a function of a module changes nothing; to assign to one does.
    """
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        return
    if isinstance(node, ast.Lambda):
        return
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from (_alias(alias) for alias in node.names)
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
        yield from _root(node)
    elif isinstance(node, ast.ExceptHandler) and node.name:
        yield node.name
    elif isinstance(node, ast.comprehension):  # its target is its own
        for part in (node.iter, *node.ifs):
            yield from bound(part, modules)
        return
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        if isinstance(node.value.func, ast.Attribute):  # a.append(1) changes a
            yield from (root for root in _root(node.value.func) if root not in modules)
    for child in ast.iter_child_nodes(node):
        yield from bound(child, modules)


def _root(node: ast.expr) -> Iterator[str]:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def _used(statement: ast.stmt) -> set[str]:
    """The names of the notebook that a statement reads; what is local to a function is not one."""
    table = symtable.symtable(ast.unparse(statement), "cell", "exec")
    names = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    waiting = list(table.get_children())
    while waiting:
        inner = waiting.pop()
        names |= {symbol.get_name() for symbol in inner.get_symbols() if symbol.is_global()}
        waiting += inner.get_children()
    return names
