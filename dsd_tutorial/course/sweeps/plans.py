"""A plan: which notebooks run, with which values. What YAML says, typed, and where it says it.

In full, with comments on what each line means:

    notebooks: [01]
    set: {n_items: 64}                     # the same in every run
    grid: {layers: [[up.2.0], [up.2.1]]}   # every combination
    zip: {steps: [[200], [600]]}           # side by side: the first with the first, ...
    cases: [{word: star}, {word: ring}]    # as they are listed
    exclude: [{word: ring, steps: [600]}]  # runs with all of these values are left out
    seeds: 0..4
    limits: {minutes: 10, memory_gb: 2}    # of one run
    resources: {GPU: 1}                    # dask's own, of one run
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from dsd_tutorial.course.parameters.reading import PlainLoader, typed, yaml_fault
from dsd_tutorial.course.sweeps.lines import Lines, PlanError

RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?")  # 0..9, or 0..100..10 in steps of ten
MOST = 1_000_000  # values in one range: more is a slip of the pen


def _range(value: Any) -> re.Match[str] | None:
    return RANGE.fullmatch(value) if isinstance(value, str) else None


def _values(given: Any) -> list[Any]:
    """The values of one axis: a list, in which ranges are written out, or one range."""
    if not isinstance(given, list):
        if not _range(given):
            raise ValueError("give a list such as [1, 2, 4], or a range such as 0..9")
        given = [given]
    if not given:
        raise ValueError("it is empty, so that nothing would run: give at least one value")
    return list(chain.from_iterable(_written_out(value) for value in given))


def _written_out(value: Any) -> list[Any]:
    found = _range(value)
    if found is None:
        return [value]
    first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
    if last < first or step < 1 or (last - first) // step >= MOST:
        raise ValueError(f"the range {value} is empty or endless: write it as 0..9")
    return list(range(first, last + 1, step))


_AXIS_SCHEMA = {
    "anyOf": [{"type": "array", "minItems": 1}, {"type": "string", "pattern": "\\.\\."}]
}
Axis = Annotated[list[Any], BeforeValidator(_values), WithJsonSchema(_AXIS_SCHEMA)]
Seeds = Annotated[list[int], BeforeValidator(_values), WithJsonSchema(_AXIS_SCHEMA)]
Notebook = Annotated[  # other readers of YAML take 01 for a number
    str,
    BeforeValidator(lambda name: f"{name:02d}" if isinstance(name, int) else name),
    WithJsonSchema({"type": ["string", "integer"]}),
]
Values = dict[str, Any]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RunLimits(_Part):
    """What one run may take before it is ended."""

    minutes: float | None = Field(None, gt=0, description="a run that takes longer has failed")
    memory_gb: float | None = Field(
        None, gt=0, description="a run that takes more is ended, and tried once more, alone"
    )


class Plan(_Part):
    """Which notebooks run, with which values."""

    name: str | None = Field(None, pattern=r"^[\w][\w .-]*$", description="of its folder")
    notebooks: list[Notebook] = Field(min_length=1, description="numbers (01), names or paths")
    set: Values = Field({}, description="parameter: value, the same in every run")
    grid: dict[str, Axis] = Field({}, description="parameter: values; every combination runs")
    zip: dict[str, Axis] = Field({}, description="parameter: values, taken side by side")
    cases: list[Values] = Field(
        [], description="values that belong together; `notebook: 02` keeps a case to one notebook"
    )
    exclude: list[Values] = Field([], description="runs with all of these values are left out")
    seeds: Seeds | None = Field(None, description="every run with each of these seeds, e.g. 0..4")
    limits: RunLimits = Field(RunLimits(), description="of one run")  # type: ignore[call-arg]
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="dask's resources of one run, e.g. GPU: 1"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        lengths = {name: len(values) for name, values in self.zip.items()}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{name} has {n}" for name, n in lengths.items())
            raise ValueError(f"zip takes values side by side, and {said}: give equally many")
        named = [*self.grid, *self.zip, *dict.fromkeys(chain.from_iterable(self.cases))]
        named += ["seed"] if self.seeds is not None else []
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is varied in two places: keep one of them")
        if both := sorted(set(self.set) & {*self.grid, *self.zip}):
            raise ValueError(f"{', '.join(both)} is set and varied: keep one of them")
        return self

    def digest(self) -> str:
        """What tells two plans apart, as 16 hexadecimal digits; a name makes no difference."""
        said = self.model_dump(mode="json", exclude={"name"})
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    def text(self) -> str:
        """The plan as YAML that `read_plan` reads, with ranges written out."""
        said = self.model_dump(mode="json", exclude_defaults=True)
        return yaml.safe_dump(said, sort_keys=False, allow_unicode=True)

    @property
    def varied(self) -> list[str]:
        """The parameters that differ from run to run, the seed last."""
        names = [*self.grid, *self.zip, *dict.fromkeys(chain.from_iterable(self.cases))]
        names += ["seed"] if self.seeds is not None else []
        return [name for name in dict.fromkeys(names) if name != "notebook"]


def read_plan(path: str | Path) -> tuple[Plan, Lines]:
    """A plan from a YAML file, and where it says what.

    Raises:
        PlanError: there is no such file, it is no YAML, or says what no plan says.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        node = yaml.compose(text, Loader=PlainLoader)
        content = yaml.load(text, PlainLoader)
    except OSError as error:
        raise PlanError(f"{path} cannot be read ({error.strerror}): give a YAML file.") from None
    except (yaml.YAMLError, ValueError) as error:
        where, said = yaml_fault(error)
        raise PlanError(f"{path}{where} is no plain YAML: {said}.") from None
    if not isinstance(content, dict):
        raise PlanError(f"{path} holds no plan: write `notebooks: [01]` and what varies.")
    lines = Lines(str(path), node, content)
    return _checked(content, lines), lines


def _checked(content: Any, lines: Lines) -> Plan:
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        why = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            why = f"no plan says this; it says {', '.join(Plan.model_fields)}"
        lines.refuse(lines.of_place(first["loc"]), f"{place}: {why}" if place else why)


def plan_from_pairs(
    notebooks: Sequence[str], pairs: Mapping[str, str], accepts: Sequence[Any], **more: Any
) -> tuple[Plan, Lines]:
    """A grid from what was typed: `pairs` maps names to "0,1,2", "0..9" or "[200],[400, 600]".

    `accepts` are the classes of the notebooks' parameters, which say how a text is read.
    """
    grid = {}
    for name, text in pairs.items():
        owner = next((c for c in accepts if name in c.model_fields), accepts[0])
        parts = [part.strip() for part in split(text)]
        grid[name] = [part if _range(part) else typed(owner, name, part) for part in parts]
    lines = Lines("the command line")
    fixed = {name: x[0] for name, x in grid.items() if len(x) == 1 and not _range(x[0])}
    varied = {name: values for name, values in grid.items() if name not in fixed}
    said = {"notebooks": list(notebooks), "set": fixed, "grid": varied, **more}
    return _checked(said, lines), lines


def split(text: str) -> list[str]:
    """The parts of a text between its commas; what stands in brackets stays together."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign == "[") - (sign == "]")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return parts
