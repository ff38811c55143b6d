"""Names that a package offers, imported when they are first asked for (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any


def lazily(package: str, names: dict[str, str]) -> tuple[Callable, Callable, list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package that offers `names`.

    Args:
        package: The package's `__name__`.
        names: The module of each name, absolute; a name that is a module itself stands for it.
    """

    def offered(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"{package} offers no {name!r}; it has {', '.join(sorted(names))}")
        module = importlib.import_module(names[name])
        found = module if names[name].endswith(f".{name}") and not hasattr(module, name) else None
        found = getattr(module, name) if found is None else found
        setattr(sys.modules[package], name, found)
        return found

    return offered, lambda: sorted(names), sorted(names)
