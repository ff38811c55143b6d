"""What is to be measured, and how: plans and options, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, NonNegativeInt, PositiveInt
from typer import Option

from lab.checked import Checked

CACHE = Path("build") / "measured"

# fields that several plans have; an `Option` makes a field one of the command line (`commands`)
SEVERAL = "Repeat for several."
DRAWS = Option(min=1, help="Noises, or draws of the labelled items.")
Seed = Annotated[NonNegativeInt, Option(min=0)]
Seeds = Annotated[PositiveInt, DRAWS]
SeedNumbers = Annotated[tuple[NonNegativeInt, ...], DRAWS]  # on the command line: how many
ReferenceCount = Annotated[int, Field(ge=4), Option(min=4, help="Reference images.")]
Steps = Annotated[PositiveInt, Option(min=1, help="Denoising steps of every image.")]
Items = Annotated[PositiveInt, Option("--n", min=2, help="Test items of each task.")]


class Plan(Checked):
    """What is to be measured, checked; subclasses name the fields.

    Fields determine the rows, beside weights and code, and make the text `settings`. Those with
    `Field(exclude=True)` do not: a later run may have other values and go on with the same table.
    """

    @property
    def settings(self) -> str:
        """Return, for example, "n 24, seeds 3, steps 12"."""
        return ", ".join(f"{name} {value}" for name, value in self.model_dump().items())


PlanType = TypeVar("PlanType", bound=Plan)


@dataclass(frozen=True)
class Options:
    """How to measure: nothing of it determines a row.

    device    where a model that is not loaded yet goes
    output    the csv file (None: in results/); of `evaluate_model` a folder (None: the model's)
    cache     the folder of what was computed
    progress  whether the plan and a bar are shown
    """

    device: str = "auto"
    output: Path | str | None = None
    cache: Path | str = CACHE
    progress: bool = True

    @classmethod
    def split(cls, plan: type[PlanType], values: dict[str, Any]) -> tuple[PlanType, Options]:
        """Return the plan that these values make, and the options among them."""
        names = {field.name for field in fields(cls)}
        rest = {name: value for name, value in values.items() if name not in names}
        return plan(**rest), cls(**{k: v for k, v in values.items() if k in names})
