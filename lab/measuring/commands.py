"""The sub-commands of `python -m lab measure`: each measures one thing and writes one table.

A command is made from the plan of its module: fields with an `Option` are what can be given, with
the plan's defaults. The module, and torch with it, is loaded when its command is run.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup
from typer.models import OptionInfo

from dsd_tutorial.course.terminal import Device, explaining
from dsd_tutorial.saving import require_writable, require_writable_file

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

MEASURED = {  # command: what it measures, by the module of its name
    "model": "Measure how well a model draws what a caption says, judged by programme.",
    "few-shot": "Measure what a few labelled pairs bring, against baselines on the same items.",
    "lora-settings": "Measure what loss, rank, projections, layers and rate do to LoRA, on "
    "validation items.",
    "readings": "Measure where, when and by which reading attention tells captions apart.",
    "ranking": "Measure how few passes find the winner of full scoring, against fixed rounds.",
    "precision": "Measure whether half precision ranks as float32 does.",
    "grounding": "Measure which box a phrase finds: by prediction error, by attention, and by "
    "CLIP.",
    "information": "Measure what words say about images in nats, where, and how well it matches "
    "texts.",
    "features": "Measure what features know: probes, units of sparse autoencoders, steering.",
    "projection": "Measure what image prompts in closed form keep of an image, with bounds beside "
    "them.",
    "editing": "Measure edits of images by words: what was requested is changed, and the rest is "
    "kept.",
    "customization": "Measure what tuning on a reference, or on a domain, brings and costs.",
    "quality": "Measure how well attention to quality prompts ranks degraded images.",
    "retrieval": "Measure drawing, finding, and the score's choice between them.",
    "bridge": "Measure classes of a few images, compared in CLIP's image space and in its text "
    "space.",
}
Model = Annotated[str, typer.Option(help="Name, hub id or folder.")]
Results = Annotated[Path | None, typer.Option(help="The csv file (default: in results/).")]
Folder = Annotated[Path | None, typer.Option(help="For metrics.json (default: the model's).")]
PLACES = {"model": 0, "device": 2, "output": 3, "seed": 4}  # in the help; all others: 1


class Measurements(TyperGroup):
    """Commands that are made when they are run, so that the list of them comes at once."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, made(name) if name in MEASURED else command, rest


measure = typer.Typer(cls=Measurements, no_args_is_help=True, help="Measure a model or a method.")
for name, about in MEASURED.items():
    measure.command(name, help=about)(lambda: None)  # in its place `made` is run


@measure.command("sweep")
def evaluate_sweep(
    folder: Annotated[Path, typer.Argument(help="Of a sweep that has ended: sweeps/NAME.")],
    group: Annotated[str, typer.Option(help="First part of the figures' names.")] = "accuracy",
    output: Results = None,
) -> None:
    """Put the figures of a sweep into a table in results/."""
    from lab.measuring.sweeps import write_sweep

    with explaining():
        if output is not None:
            require_writable_file(output)
        path = write_sweep(folder, group, output)
    typer.echo(f"wrote {path}")


class Given(NamedTuple):
    """A field on the command line: its type there, its default, and the plan's value of it."""

    annotation: Any
    default: Any
    value: Callable[[Any], Any]


def given(field: FieldInfo) -> Given | None:
    """Return how a field is given on the command line; None where it has no `Option`."""
    option = next((x for x in field.metadata if isinstance(x, OptionInfo)), None)
    if option is None:
        return None
    kind, default = field.annotation, field.default
    if not isinstance(default, tuple):
        return Given(Annotated[kind, option], default, lambda value: value)
    if isinstance(default[0], int):  # seeds: how many
        return Given(Annotated[int, option], len(default), lambda n: tuple(range(n)))
    if option.default is ...:  # by the field's own name: all in one, with commas
        return Given(Annotated[str, option], ",".join(default), _words)
    return Given(Annotated[list[str] | None, option], None, lambda words: words)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def made(name: str) -> Any:
    """Return the command of one measurement."""
    stem = name.replace("-", "_")
    evaluate = getattr(import_module(f"lab.measuring.{stem}"), f"evaluate_{stem}")
    fields = {key: given(field) for key, field in evaluate.plan.model_fields.items()}
    fields = {key: one for key, one in fields.items() if one}

    def run(model: str, device: str, output: Path | None, **typed: Any) -> None:
        values = {key: fields[key].value(x) for key, x in typed.items() if x not in (None, [])}
        with explaining():
            if output is not None and name == "model":
                require_writable(output, make=False)
            elif output is not None:
                require_writable_file(output)
            found = evaluate(model, device=device, output=output, **values)
        report(found)

    options = {key: (one.annotation, one.default) for key, one in fields.items()}
    options |= {"model": (Model, "shapes-sd"), "device": (Device, "auto")}
    options["output"] = (Folder if name == "model" else Results), None
    run.__signature__ = Signature([  # pyright: ignore[reportFunctionMemberAccess]
        Parameter(key, Parameter.KEYWORD_ONLY, default=options[key][1], annotation=options[key][0])
        for key in sorted(options, key=lambda key: PLACES.get(key, 1))
    ])  # fmt: skip
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name, help=MEASURED[name])(run)
    return typer.main.get_command(app)


def report(found: Any) -> None:
    """Print what was measured: where it was written, its figures or its table."""
    if isinstance(found, Path):
        typer.echo(f"wrote {found}")
    elif isinstance(found, dict):
        for name, figure in found.items():
            if isinstance(figure, dict) and {"value", "low", "high", "n"} <= set(figure):
                figure = "{value:.3f}  [{low:.3f}, {high:.3f}]  n = {n}".format(**figure)
            typer.echo(f"{name:28} {figure}")
    else:
        if "kind" in found:  # edits: all kinds together, and what is reported of test references
            found = found[(found.kind == "all") & ~found.metric.str.startswith("validation_")]
        typer.echo(found.drop(columns="model_sha256").to_string(index=False))
