"""Names that a package offers, each imported at its first use (PEP 562)."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lazily(
    package: str, file: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package.

    It offers what its `if TYPE_CHECKING:` block imports, which type checkers and editors read too.

    Args:
        package: The package's `__name__`.
        file: The package's `__file__`.
    """
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    (block,) = (x for x in tree.body if isinstance(x, ast.If))
    imports = [x for x in block.body if isinstance(x, ast.ImportFrom)]
    modules = {name.name: str(x.module) for x in imports for name in x.names}

    def offered(name: str) -> Any:
        if name not in modules:
            names = ", ".join(sorted(modules))
            raise AttributeError(f"{package} offers no {name!r}; it has {names}")
        if modules[name] == package:
            found = importlib.import_module(f"{package}.{name}")
        else:
            found = getattr(importlib.import_module(modules[name]), name)
        setattr(sys.modules[package], name, found)
        return found

    return offered, lambda: sorted(modules), sorted(modules)
