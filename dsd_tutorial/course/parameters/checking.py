"""Parameters against their classes: read, check, and say what is allowed instead."""

import ast
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dsd_tutorial.course.notebooks import QUICK, hasten_nbformat, repository
from dsd_tutorial.course.parameters.classes import DOMAINS, PARAMETERS, Parameters
from dsd_tutorial.course.parameters.reading import read_parameter_file, typed
from dsd_tutorial.saving import expanded
from dsd_tutorial.stable_diffusion.registry import REGISTRY

FOLDERS = ("model", "dataset", "references", "domain")  # parameters that may be one
NO_FOLDERS = ("shapes", *DOMAINS, *REGISTRY)  # words that win over a folder of that name


class ParameterError(ValueError):
    """A parameter has an unknown name or a value out of range; the message says what is allowed.

    `said` holds (parameter, sentence) of each that is refused.
    """

    def __init__(self, message: str, said: Sequence[tuple[str, str]] = ()):
        super().__init__(message)
        self.said = list(said)


def parameters_of(notebook: str | Path) -> type[Parameters]:
    """The class that describes a notebook, given by name or path; raises `ParameterError`."""
    name = Path(notebook).stem
    if name not in PARAMETERS:
        raise ParameterError(
            f"No parameters are described for notebook {name!r}; known: {', '.join(PARAMETERS)}. "
            "Add a class to dsd_tutorial/course/parameters/classes.py."
        )
    return PARAMETERS[name]


def allowed(accepts: type[Parameters], name: str) -> str:
    """What one parameter may be, in words: its type or choices, its range, its meaning."""
    schema = accepts.model_json_schema()["properties"][name]
    said = []
    if "enum" in schema:
        said.append("one of " + ", ".join(map(repr, schema["enum"])))
    else:
        kinds = schema.get("anyOf", [schema])
        said.append(" or ".join(kind.get("type", "value") for kind in kinds))
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is not None:
        said.append(("above " if "exclusiveMinimum" in schema else "from ") + f"{low:g}")
    if high is not None:
        said.append(("below " if "exclusiveMaximum" in schema else "to ") + f"{high:g}")
    if "maxItems" in schema:
        said.append(f"with {schema.get('minItems', 0)} to {schema['maxItems']} entries")
    return f"{' '.join(said)} ({schema.get('description', name)})"


def _explained(accepts: type[Parameters], error: Any) -> tuple[str, str]:
    """(parameter, sentence) of an error: what is wrong, and what is allowed instead."""
    name, names = str(error["loc"][0]), list(accepts.model_fields)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, names, n=2)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        return name, f"unknown parameter {name!r}: {hint}It takes {', '.join(names)}."
    if error["type"] == "missing":
        return name, f"{name} is missing: give {allowed(accepts, name)}."
    why = error["msg"][:1].lower() + error["msg"][1:]
    given = f"{name} = {error['input']!r} is refused, {why}"
    return name, f"{given}: give {allowed(accepts, name)}."


def validate(notebook: str, values: Mapping[str, Any]) -> Parameters:
    """The checked parameters of a notebook; a number in quotes is no number.

    Raises `ParameterError` that names every bad parameter, what is allowed and the nearest names.
    """
    accepts = parameters_of(notebook)
    try:
        return accepts.model_validate(dict(values), strict=True)
    except ValidationError as error:
        # entries of a list may say the same
        said = list(dict.fromkeys(_explained(accepts, each) for each in error.errors()))
        lines = [f"Notebook {notebook} cannot start:", *(sentence for _, sentence in said)]
        raise ParameterError("\n  ".join(lines), said) from None


def check_parameters(notebook: str, namespace: Mapping[str, Any]) -> Parameters:
    """The checked parameters of a running notebook. `namespace` is its `globals()`.

    Names that papermill injected and the notebook does not know are errors too: papermill itself
    only warns about them. Raises `ParameterError`.
    """
    accepts = parameters_of(notebook)
    values = {name: namespace[name] for name in accepts.model_fields if name in namespace}
    values |= {name: namespace.get(name) for name in _injected(namespace.get("In", []))}
    return validate(notebook, values)


def _injected(history: list[str]) -> list[str]:
    """The names assigned by the cells that papermill injects, from IPython's input history."""
    injected = [ast.parse(source) for source in history if source.startswith("# Parameters\n")]
    assigned = [x for tree in injected for x in tree.body if isinstance(x, ast.Assign)]
    return [name.id for x in assigned for name in x.targets if isinstance(name, ast.Name)]


def defaults(path: Path) -> dict[str, Any]:
    """A notebook's own defaults, read from its `parameters` cell without running it."""
    hasten_nbformat()
    import papermill

    found = papermill.inspect_notebook(str(path))
    return {name: ast.literal_eval(entry["default"]) for name, entry in found.items()}


def quick_values(notebook: str) -> dict[str, Any]:
    """The parameters with which a notebook ends within a minute; {} where none are known.

    They are those that its tests take, and come with a clone and with the wheel.
    """
    path = repository() / QUICK
    return read_parameter_file(path, list(PARAMETERS)).get(notebook, {}) if path.is_file() else {}


def check_overrides(path: Path, texts: Mapping[str, str]) -> dict[str, Any]:
    """The typed values of command-line parameters for a notebook, checked with its defaults.

    `texts` maps names to what was typed; a list is written `[100, 500]`. No kernel is started.
    Raises `ParameterError`.
    """
    accepts = parameters_of(path)  # an unknown notebook is the first thing to say
    given = {name: typed(accepts, name, text) for name, text in texts.items()}
    checked = validate(path.stem, {**defaults(path), **given})
    return {name: located(name, getattr(checked, name)) for name in given}


def located(name: str, value: Any) -> Any:
    """`value`, but for a folder that was named from where we are: a kernel works elsewhere."""
    if name not in FOLDERS or not value or value in NO_FOLDERS:
        return value
    folder = expanded(value)
    return str(folder.resolve()) if folder.is_dir() else value
