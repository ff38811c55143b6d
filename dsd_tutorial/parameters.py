"""What each notebook accepts: names, types and ranges, checked before any work starts.

A notebook has one cell tagged `parameters` with its defaults, then one line:

    from dsd_tutorial.parameters import check_parameters
    p = check_parameters("01_attention_scores", globals())

`dsd-tutorial run` makes the same check before a kernel starts. A new notebook adds a class and a
line to `PARAMETERS`. Defaults live in the notebook only; a test holds both sides together.
"""

import ast
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .registry import MissingModelError, resolve

DEVICE = r"^(auto|cpu|mps|cuda(:\d+)?)$"

PICTURES = (".png", ".jpg", ".jpeg", ".webp")

TimeStep = Annotated[int, Field(ge=0, le=999)]
PositiveNumber = Annotated[float, Field(gt=0, le=1000)]


class ParameterError(ValueError):
    """A parameter has an unknown name or a value out of range; the message says what is allowed."""


def picture_files(folder: str | Path) -> list[Path]:
    """The pictures in a folder, by name; none where there is no such folder."""
    found = Path(folder).expanduser()
    files = found.iterdir() if found.is_dir() else ()
    return sorted(path for path in files if path.suffix.lower() in PICTURES)


class Parameters(BaseModel):
    """What every notebook takes."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(
        min_length=1, description="name, hub id or folder; `dsd-tutorial list` shows the names"
    )
    device: str = Field(pattern=DEVICE, description="auto, cpu, mps, cuda or cuda:N")
    seed: int = Field(ge=0, le=2**32 - 1, description="of every random draw")

    @field_validator("model")
    @classmethod
    def _can_be_found(cls, name: str) -> str:
        try:
            resolve(name)
        except MissingModelError as error:  # pydantic explains ValueErrors only
            raise ValueError(str(error)) from None
        return name


class OrientationParameters(Parameters):
    """Notebook 00: one picture, sampled and taken apart."""

    prompt: str = Field(min_length=1, description="the caption to draw")
    steps: int = Field(ge=1, le=1000, description="denoising steps")
    guidance: float = Field(ge=0, le=50, description="classifier-free guidance scale; 1 is none")


class AttentionParameters(Parameters):
    """Notebook 01: from attention to a matching score."""

    n_items: int = Field(ge=8, le=2000, description="test items per task")
    steps: list[TimeStep] = Field(
        min_length=1, max_length=50, description="diffusion time steps to look at, each 0..999"
    )
    noises: int = Field(ge=1, le=64, description="noises per time step")
    layers: str | list[str] = Field(
        min_length=1, description='layers of the untuned score: "all", "last" or names such as "up"'
    )
    token_mask: Literal["all", "words", "no_start", "no_padding"] = Field(
        description="which tokens enter the untuned score"
    )
    lam: float = Field(gt=0, le=1000, description="inverse temperature of log-sum-exp pooling")
    word: Literal["circle", "square", "triangle", "star", "cross", "ring"] = Field(
        description="the shape whose heat map is drawn"
    )


class FewShotParameters(Parameters):
    """Notebook 02: what a few labelled examples teach."""

    task: Literal["comvg", "refcoco", "vqa", "winoground"] = Field(description="the matching task")
    dataset: str = Field(
        description='"shapes", or a folder with the task\'s benchmark or an items.jsonl of your own'
    )
    adapter: Literal["soft prompt", "attention prompt", "lora", "head weights"] = Field(
        description="what is learned beside the adapter made by hand"
    )
    shots: int = Field(ge=1, le=256, description="labelled items to learn from")
    seeds: int = Field(ge=1, le=20, description="how often the labelled items are drawn anew")
    steps: int = Field(ge=1, le=5000, description="training steps of what needs U-Net passes")
    lr: float = Field(ge=0, le=10, description="learning rate; 0: the adapter's own")
    layers: str | list[str] = Field(
        min_length=1, description='"chosen" on validation, "all", "last" or names such as "up"'
    )
    time_steps: list[TimeStep] = Field(
        min_length=1, max_length=50, description="diffusion time steps that are read, each 0..999"
    )
    error_weight: float = Field(ge=0, le=100, description="of the error term in the score")
    n_items: int = Field(ge=8, le=2000, description="test items")

    @field_validator("dataset")
    @classmethod
    def _is_there(cls, name: str) -> str:
        if name != "shapes" and not Path(name).expanduser().is_dir():
            raise ValueError(f"there is no folder {name!r}")
        return name


class ProjectionParameters(Parameters):
    """Notebook 03: from an image to a prompt in closed form."""

    references: str = Field(
        description="folder with pictures of your own to vary; empty: scenes of the shapes world"
    )
    method: Literal[
        "auto", "ridge", "gaussian", "mean_shift", "procrustes", "direct", "refined"
    ] = Field(description="alternative beside the truncated inverse; auto: best on validation")
    threshold: PositiveNumber | Literal["auto", "none"] = Field(
        description="singular values below it are cut"
    )
    length: PositiveNumber | Literal["auto"] = Field(
        description="of a converted text state; auto: as the text encoder's own"
    )
    copies: Annotated[int, Field(ge=1)] | Literal["auto", "all"] = Field(
        description="positions of the prompt that the state fills"
    )
    n_references: int = Field(ge=4, le=500, description="reference pictures that are measured")
    guidance: PositiveNumber | Literal["auto"] = Field(
        description="classifier-free guidance scale; auto: the model's own"
    )
    steps: int = Field(ge=1, le=1000, description="denoising steps of every variation")

    @field_validator("references")
    @classmethod
    def _holds_pictures(cls, folder: str) -> str:
        if folder and not picture_files(folder):
            raise ValueError(f"no pictures ({', '.join(PICTURES)}) in the folder {folder!r}")
        return folder


PARAMETERS: dict[str, type[Parameters]] = {
    "00_orientation": OrientationParameters,
    "01_attention_scores": AttentionParameters,
    "02_few_shot_prompt_learning": FewShotParameters,
    "03_closed_form_projection": ProjectionParameters,
}


def parameters_of(notebook: str | Path) -> type[Parameters]:
    """The class that describes a notebook, given by name or path; raises `ParameterError`."""
    name = Path(notebook).stem
    if name not in PARAMETERS:
        raise ParameterError(
            f"No parameters are described for notebook {name!r}; known: {', '.join(PARAMETERS)}. "
            "Add a class to dsd_tutorial/parameters.py."
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


def _explain(notebook: str, accepts: type[Parameters], errors: list[dict]) -> str:
    """One line per error: which parameter, what is wrong, what is allowed instead."""
    lines = [f"Notebook {notebook} cannot start:"]
    names = list(accepts.model_fields)
    for error in errors:
        name = str(error["loc"][0])
        if error["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, names, n=2)
            hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            lines.append(f"  unknown parameter {name!r}: {hint}It takes {', '.join(names)}.")
        elif error["type"] == "missing":
            lines.append(f"  {name} is missing: give {allowed(accepts, name)}.")
        else:
            lines.append(
                f"  {name} = {error['input']!r} is refused, {_lower(error['msg'])}: "
                f"give {allowed(accepts, name)}."
            )
    return "\n".join(dict.fromkeys(lines))


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def validate(notebook: str, values: Mapping[str, Any], strict: bool = True) -> Parameters:
    """The checked parameters of a notebook. `strict=False` reads numbers from strings.

    Raises `ParameterError` that names every bad parameter, what is allowed and the nearest names.
    """
    accepts = parameters_of(notebook)
    try:
        return accepts.model_validate(dict(values), strict=strict)
    except ValidationError as error:
        raise ParameterError(_explain(notebook, accepts, error.errors())) from None


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
    names = []
    for source in history:
        if not source.startswith("# Parameters\n"):
            continue
        for statement in ast.parse(source).body:
            if isinstance(statement, ast.Assign):
                names += [target.id for target in statement.targets]
    return names


def defaults(path: Path) -> dict[str, Any]:
    """A notebook's own defaults, read from its `parameters` cell without running it."""
    import papermill

    found = papermill.inspect_notebook(str(path))
    return {name: ast.literal_eval(entry["default"]) for name, entry in found.items()}


def check_overrides(path: Path, texts: Mapping[str, str]) -> dict[str, Any]:
    """The typed values of command-line parameters for a notebook, checked with its defaults.

    `texts` maps names to what was typed; a list is written `[100, 500]`. No kernel is started.
    Raises `ParameterError`.
    """
    parameters_of(path)  # an unknown notebook is the first thing to say
    given = {name: _read(text) for name, text in texts.items()}
    checked = validate(path.stem, {**defaults(path), **given}, strict=False)
    return {name: getattr(checked, name) for name in given}


def _read(text: str) -> Any:
    """A typed value from what was typed; what cannot be read stays text, to be refused later."""
    if text.startswith("["):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text
    return text
