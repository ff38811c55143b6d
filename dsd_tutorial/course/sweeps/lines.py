"""Where a plan says what, so that a mistake is told with its line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import yaml


class PlanError(ValueError):
    """A plan cannot be carried out; the message says in which file, line and run, and why."""


class Lines:
    """Where a plan says what: the lines of its file, by place and by value."""

    def __init__(self, file: str, node: Any = None, content: Any = None):
        self.file = file
        self._at: dict[tuple, tuple[int, Any]] = {}
        if node is not None:
            self._walk(node, content, ())

    def _walk(self, node: Any, content: Any, place: tuple) -> None:
        self._at.setdefault(place, (node.start_mark.line + 1, content))
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if key.value in seen:
                    self.refuse(key.start_mark.line + 1, f"{key.value} stands there twice")
                seen.add(key.value)
                here = (*place, key.value)
                if isinstance(content, Mapping) and key.value in content:
                    self._at[here] = (key.start_mark.line + 1, content[key.value])
                    self._walk(value, content[key.value], here)
        elif isinstance(node, yaml.SequenceNode) and isinstance(content, list):
            for i, (value, each) in enumerate(zip(node.value, content, strict=False)):
                self._walk(value, each, (*place, i))

    def refuse(self, line: int | None, why: str) -> NoReturn:
        """Raise a PlanError about a line of this file."""
        where = f"{self.file}, line {line}" if line else self.file
        raise PlanError(f"{where}: {why}.")

    def of_place(self, place: Sequence[Any]) -> int | None:
        """The line of a place such as ("grid", "n_items", 1), or of what lies around it."""
        place = tuple(place)
        while place and place not in self._at:
            place = place[:-1]
        return self._at[place][0] if place else None

    def of_value(self, name: str, value: Any) -> int | None:
        """The line that gives a parameter this value, or else its first."""
        named = {place: found for place, found in self._at.items() if name in place}
        same = [line for line, content in named.values() if content == value]
        return next(iter([*same, *(line for line, _ in named.values())]), None)
