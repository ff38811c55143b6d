"""From text to values: what is typed after `-p`, and parameter files in YAML.

YAML 1.1 takes `no` for false, `010` for 8, `1:30` for 90 and `1_0` for 10. Nobody who types a time
step means that. Here numbers are decimal and `true`, `false` and `null` are the only words with a
meaning, as in JSON and YAML 1.2; all else stays text, and is refused where a number is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
DECIMAL = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


class ParameterFileError(ValueError):
    """A file of parameters cannot be read; the message names it and says what it must hold."""


class PlainLoader(yaml.SafeLoader):
    """YAML with the scalars of JSON: decimal numbers, true, false, null, and text."""

    yaml_implicit_resolvers: dict = {}


for _tag, _pattern, _first in (
    ("bool", re.compile(r"(true|false)$"), "tf"),
    ("null", re.compile(r"(null|~|)$"), ["n", "~", ""]),
    ("int", re.compile(WHOLE.pattern + "$"), "-+0123456789"),
    ("float", re.compile(DECIMAL.pattern + "$"), "-+.0123456789"),
):
    PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, list(_first))
PlainLoader.add_constructor(
    "tag:yaml.org,2002:float", lambda loader, node: float(loader.construct_scalar(node))
)
PlainLoader.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node))
)


def typed(accepts: Any, name: str, text: str) -> Any:
    """The value that `text` is for the parameter `name` of the class `accepts`.

    What cannot be read as a value stays text, to be refused by the class with its own words.
    """
    schema = accepts.model_json_schema()["properties"].get(name, {})
    kinds = schema.get("anyOf", [schema])
    lists = [kind for kind in kinds if kind.get("type") == "array"]
    if lists and text.lstrip().startswith("["):
        try:
            found = yaml.load(text, PlainLoader)
        except yaml.YAMLError:
            return text
        if not isinstance(found, list):
            return text
        return [_as(entry, {lists[0].get("items", {}).get("type")}) for entry in found]
    return _as(_number(text) if {"integer", "number"} & _types(kinds) else text, _types(kinds))


def _types(kinds: list[dict]) -> set[str]:
    return {kind.get("type") for kind in kinds}


def _number(text: str) -> Any:
    """The number that is written in `text`, else `text`."""
    if WHOLE.fullmatch(text.strip()):
        return int(text)
    return float(text) if DECIMAL.fullmatch(text.strip()) else text


def _as(value: Any, types: set[str]) -> Any:
    """A float without a fraction as an int where only whole numbers are taken: 5.0 is 5."""
    whole = isinstance(value, float) and value.is_integer() and "number" not in types
    return int(value) if whole and "integer" in types else value


def read_parameter_file(path: Path, notebooks: list[str]) -> dict[str, dict[str, Any]]:
    """What a YAML file says: notebook -> parameter -> value. `notebooks` are the known names.

    Raises ParameterFileError for a file that is not there, is no UTF-8 or no YAML, is not two
    levels deep, or names a notebook that does not exist.
    """
    shape = "write `notebook:` and under it, indented, `parameter: value`"
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), PlainLoader)
    except FileNotFoundError:
        raise ParameterFileError(f"there is no parameter file {path}: {shape}.") from None
    except UnicodeDecodeError as error:
        raise ParameterFileError(
            f"{path} is not UTF-8 (byte {error.start}): save it in that encoding."
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise ParameterFileError(f"{path} cannot be read ({reason}): give a YAML file.") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ParameterFileError(f"{path}{where} is no plain YAML ({problem}): {shape}.") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ParameterFileError(f"{path} holds a {type(content).__name__}: {shape}.")
    for notebook, values in content.items():
        if notebook not in notebooks:
            raise ParameterFileError(
                f"{path} names {notebook!r}, which is no notebook; known are "
                f"{', '.join(notebooks)}: {shape}."
            )
        if not isinstance(values, Mapping):
            raise ParameterFileError(f"{path}: {notebook} has {values!r} for parameters: {shape}.")
    return {notebook: dict(values) for notebook, values in content.items()}
