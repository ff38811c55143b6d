"""Pages of the package's public names, from signatures and docstrings: what the rooms offer.

They are written here, where the package can be imported, as Markdown with the directives of
Sphinx's Python domain: the book's own environment needs neither torch nor diffusers.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

METHODS = (
    "shapes", "stable_diffusion", "attention", "matching", "grounding", "information", "features",
    "quality", "retrieval", "prompt_learning", "projection", "variation", "customization",
    "datasets",
)  # fmt: skip
ROOMS = ("dsd_tutorial", *(f"dsd_tutorial.{name}" for name in (*METHODS, "course")))
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):\n((?:    .*\n?|\n)+)", re.M)
ENTRY = re.compile(r"^(\*{0,2}\w[\w., ]*): (.*(?:\n {2,}.*)*)", re.M)


class _Plain(str):
    """An annotation as it is written, without quotes."""

    __repr__ = str.__str__


def signature(thing: Any) -> str:
    """Return a signature as it stands in the source; "" for what has none."""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""

    def plain(annotation: Any) -> Any:
        return _Plain(annotation) if isinstance(annotation, str) else annotation

    made = {
        field.name: _Plain(f"{field.default_factory.__name__}()")  # `dict()`, not a marker object
        for field in (dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ())
        if field.default_factory is not dataclasses.MISSING
    }
    kept = [
        x.replace(annotation=plain(x.annotation), default=made.get(x.name, _short(x.default)))
        for x in found.parameters.values()
        if x.name not in ("self", "cls")
    ]
    text = str(found.replace(parameters=kept, return_annotation=plain(found.return_annotation)))
    text = re.sub(r"ForwardRef\((['\"])(.*?)\1\)", r"\2", text)
    return re.sub(
        r"\b(?:torch|dsd_tutorial(?:\.\w+)+|collections\.abc|pathlib)\.(?=[A-Z])", "", text
    )


def _short(default: Any) -> Any:
    """A default that is read at a glance: functions and objects by name."""
    plain = isinstance(default, (int, float, str, tuple, list, type(None)))
    if default is inspect.Parameter.empty or plain:
        return default
    return _Plain(
        getattr(default, "__name__", type(default).__name__) + ("" if callable(default) else "()")
    )


def markdown(doc: str | None) -> str:
    """Return a docstring as Markdown: parameters and errors as fields, lines of code as code."""
    text = textwrap.dedent(inspect.cleandoc(doc or ""))

    def fields(found: re.Match) -> str:
        kinds = {"Args": "param", "Attributes": "ivar", "Raises": "raises"}
        kind = kinds.get(found[1], found[1].lower())
        body = textwrap.dedent(found[2])
        if found[1] in kinds:
            lines = [
                f":{kind} {name.lstrip('*')}: {' '.join(what.split())}"
                for name, what in ENTRY.findall(body)
            ]
        else:
            lines = [f":{kind}: {' '.join(body.split())}"]
        return "\n".join(lines) + "\n"

    text = SECTION.sub(fields, text)
    return "\n\n".join(map(_paragraph, re.split(r"\n\s*\n", text)))


def _paragraph(text: str) -> str:
    """A paragraph, fenced where it is code; lines indented below a sentence keep their lines."""
    dedented = textwrap.dedent(text)
    if _is_code(dedented):
        return f"```python\n{dedented}\n```"
    return "\n".join(line.strip() if line.startswith(" ") else line for line in text.splitlines())


def _is_code(text: str) -> bool:
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return False
    code = (ast.Call, ast.Import, ast.ImportFrom)
    calls = any(isinstance(node, code) for statement in body for node in ast.walk(statement))
    return bool(body) and calls


def _fence(directive: str, argument: str, body: str, depth: int = 5) -> str:
    marks = ":" * depth
    return f"{marks}{{{directive}}} {argument}\n{body}\n{marks}"


def entry(name: str, thing: Any) -> str:
    """Return the directive of one public name."""
    if inspect.isclass(thing):
        members = "\n\n".join(_members(thing))
        body = f"{markdown(thing.__doc__)}\n\n{members}"
        if issubclass(thing, BaseException):
            return _fence("py:exception", name, body, 6)
        return _fence("py:class", name + signature(thing).removesuffix(" -> None"), body, 6)
    if callable(thing):
        return _fence("py:function", name + signature(thing), markdown(thing.__doc__))
    return _fence("py:data", name, _value(thing))


def _members(thing: type) -> Iterator[str]:
    """Yield the methods and properties that a class defines itself, those with a docstring."""
    for name, member in vars(thing).items():
        if name.startswith("_") and name != "__call__":
            continue
        inner = getattr(member, "__func__", getattr(member, "fget", member))
        if not getattr(inner, "__doc__", None) or not inspect.isfunction(inner):
            continue
        if isinstance(member, property):
            yield _fence("py:property", name, markdown(inner.__doc__))
        else:
            yield _fence("py:method", f"{name}{signature(inner)}", markdown(inner.__doc__))


def _value(thing: Any) -> str:
    """What a constant holds, in a line."""
    if isinstance(thing, dict):
        return f"A {type(thing).__name__} with the keys {', '.join(f'`{key}`' for key in thing)}."
    if isinstance(thing, (tuple, list, set, frozenset)):
        return f"{', '.join(f'`{value}`' for value in thing)}."
    return f"`{thing!r}`."


def page(room: str) -> str:
    """Return the page of a room: its docstring, then each name of its `__all__`."""
    module = importlib.import_module(room)
    names = sorted(module.__all__, key=str.lower)
    listed = {
        name: thing for name in names if not isinstance(thing := getattr(module, name), ModuleType)
    }
    head = f"# {room}\n\n:::{{py:module}} {room}\n:::\n\n{markdown(module.__doc__)}"
    if room == ROOMS[0]:  # each name is described in its room
        entries = [
            "\n".join(
                f"* {{py:obj}}`{name} <{_home(name)}>`: {_first(thing)}"
                for name, thing in listed.items()
            )
        ]
    else:
        entries = [entry(name, thing) for name, thing in listed.items()]
    return "\n\n".join([head, *entries]) + "\n"


def _home(name: str) -> str:
    """Return the full name of a function of the package's face in the room that describes it."""
    found = (room for room in ROOMS[1:] if name in importlib.import_module(room).__all__)
    return f"{next(found)}.{name}"


def _first(thing: Any) -> str:
    return inspect.cleandoc(thing.__doc__ or "").split("\n\n")[0].replace("\n", " ")
