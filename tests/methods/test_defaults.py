"""What a caller gets who says nothing: defaults, constants, and which values cannot be changed.

Another default gives other numbers without a word to anybody, so `defaults.txt` says each once
more. Whoever means to change one changes it there too; the failure shows the line.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import dsd_tutorial

ROOMS = (
    "attention", "grounding", "matching", "matching.baselines", "projection", "prompt_learning",
    "variation", "customization",
)  # fmt: skip
WRITTEN = Path(__file__).with_name("defaults.txt").read_text(encoding="utf-8").splitlines()


def is_plain(value) -> bool:
    """Whether a value reads the same in every process: numbers and words, and tables of them."""
    if isinstance(value, dict):
        return is_plain([*value.keys(), *value.values()])
    if isinstance(value, tuple | list):
        return all(is_plain(v) for v in value)
    return isinstance(value, bool | int | float | str)


def is_number(value) -> bool:
    """Whether a constant is a number, or a table of them: wording may change."""
    if isinstance(value, dict | tuple):
        return all(is_number(v) for v in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float)


def shown(values) -> str:
    return ", ".join(f"{k}={v!r}" for k, v in values.items() if is_plain(v))


def parameters_of(function) -> str:
    given = inspect.signature(function).parameters.values()
    return shown({p.name: p.default for p in given if p.default is not p.empty})


def members_of(where: str, cls):
    if dataclasses.is_dataclass(cls):
        fixed = "frozen" if cls.__dataclass_params__.frozen else "open"
        equal = "by value" if cls.__dataclass_params__.eq else "by identity"
        values = {f.name: f.default for f in dataclasses.fields(cls)}
        yield f"{where}: {fixed}, equal {equal} ({shown(values)})"
        return
    values = {k: v for k, v in vars(cls).items() if not k.startswith("_")}
    if shown(values):
        yield f"{where}: {shown(values)}"
    for name, member in values.items():
        member = inspect.unwrap(getattr(member, "__func__", member))
        if inspect.isfunction(member) and parameters_of(member):
            yield f"{where}.{name}({parameters_of(member)})"
    if "__init__" in vars(cls) and parameters_of(cls.__init__):
        yield f"{where}({parameters_of(cls.__init__)})"


def lines_of(room: str) -> list[str]:
    """One line for each function, class and constant of a room that says anything by itself."""
    package, found = importlib.import_module(f"dsd_tutorial.{room}"), []
    names = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.ispkg]
    modules = [importlib.import_module(f"dsd_tutorial.{room}.{name}") for name in names]
    for module in modules:
        source = inspect.getsource(module)
        short = module.__name__.removeprefix(f"{dsd_tutorial.__name__}.")
        for name, value in vars(module).items():
            own = getattr(value, "__module__", None) == module.__name__
            if inspect.isclass(value) and own:
                found += members_of(f"{short}.{name}", value)
            elif inspect.isfunction(value) and own and parameters_of(value):
                found.append(f"{short}.{name}({parameters_of(value)})")
            elif re.search(rf"(?m)^{name}\b.* = ", source) and is_number(value):
                found.append(f"{short}.{name} = {value!r}")
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_defaults_are_as_written(room):
    inner = tuple(f"{other}." for other in ROOMS if other.startswith(f"{room}."))
    written = [x for x in WRITTEN if x.startswith(f"{room}.") and not x.startswith(inner or " ")]
    assert sorted(lines_of(room)) == sorted(written)
