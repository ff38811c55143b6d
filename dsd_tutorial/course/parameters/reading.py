"""From text to values: what is typed after `-p`, and parameter files in YAML.

YAML 1.1 takes `no` for false, `010` for 8, `1:30` for 90 and `1_0` for 10. Nobody who types a time
step means that. Here numbers are decimal and `true`, `false` and `null` are the only words with a
meaning, as in JSON and YAML 1.2; all else stays text, and is refused where a number is needed.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
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


def typed(accepts: Any, name: str, text: str) -> Any:
    """The value that `text` is for the parameter `name` of the class `accepts`.

    What cannot be read as a value stays text, to be refused by the class with its own words.
    """
    schema = accepts.model_json_schema()["properties"].get(name, {})
    kinds = {kind.get("type"): kind for kind in schema.get("anyOf", [schema])}
    if "array" in kinds and text.lstrip().startswith("["):
        try:
            found = yaml.load(text, PlainLoader)
        except yaml.YAMLError:
            return text
        entries = {kinds["array"].get("items", {}).get("type")}
        return [_as(entry, entries) for entry in found] if isinstance(found, list) else text
    if kinds.keys() & {"integer", "number"}:
        if WHOLE.fullmatch(text.strip()):
            return int(text)
        if DECIMAL.fullmatch(text.strip()):
            return _as(float(text), kinds)
    return text


def _as(value: Any, types: Container[str]) -> Any:
    """A float without a fraction as an int where only whole numbers are taken: 5.0 is 5."""
    whole = isinstance(value, float) and value.is_integer() and "number" not in types
    return int(value) if whole and "integer" in types else value


def yaml_fault(error: Exception) -> tuple[str, str]:
    """Where a file is no plain YAML (", line 3", or ""), and what is wrong there."""
    mark = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}" if mark else ""
    return where, getattr(error, "problem", None) or str(error).splitlines()[0]


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
        where, problem = yaml_fault(error)
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
