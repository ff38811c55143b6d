"""The sub-commands of `python -m lab measure`: each measures one thing and writes one table."""

from pathlib import Path
from typing import Annotated

import typer

from dsd_tutorial.course.terminal import Device, explaining
from dsd_tutorial.saving import require_writable, require_writable_file

measure = typer.Typer(no_args_is_help=True, help="Measure a model or a method.")
Results = Annotated[Path | None, typer.Option(help="The csv file (default: in results/).")]


def _try_output(path: Path | None) -> None:
    """Raise OutputError, before anything is measured, where a file that was named cannot be."""
    if path is not None:
        require_writable_file(path)


@measure.command("model")
def evaluate_model(
    model: Annotated[str, typer.Option(help="Name, hub id or folder.")] = "shapes-sd",
    n: Annotated[int, typer.Option(min=10, help="Prompts of each kind.")] = 500,
    device: Device = "auto",
    output: Annotated[
        Path | None, typer.Option(help="Folder for metrics.json (default: the model's).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Measure how well a model draws what a caption says, judged by programme."""
    from lab.measuring.model import evaluate_model as measured

    with explaining():
        if output is not None:
            require_writable(output, make=False)
        figures = measured(model, n=n, device=device, output=output, seed=seed)
    for name, figure in figures.items():
        if isinstance(figure, dict) and {"value", "low", "high", "n"} <= set(figure):
            figure = "{value:.3f}  [{low:.3f}, {high:.3f}]  n = {n}".format(**figure)
        typer.echo(f"{name:28} {figure}")


@measure.command("few-shot")
def evaluate_few_shot(
    model: Annotated[str, typer.Option(help="Name, hub id or folder.")] = "shapes-sd",
    task: Annotated[list[str] | None, typer.Option(help="Repeat for several.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Repeat for several.")] = None,
    shots: Annotated[int, typer.Option(min=1, help="Labelled items.")] = 16,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of the labelled items.")] = 3,
    n: Annotated[int, typer.Option(min=2, help="Test items of each task.")] = 300,
    curve: Annotated[bool, typer.Option(help="Also other numbers of shots, on one task.")] = True,
    device: Device = "auto",
    output: Results = None,
) -> None:
    """Measure what a few labelled pairs bring, against baselines on the same items."""
    from lab.measuring.few_shot import evaluate_few_shot as measured

    chosen = {name: tuple(v) for name, v in (("tasks", task), ("methods", method)) if v}
    if not curve:
        chosen["curve_task"] = None
    with explaining():
        _try_output(output)
        path = measured(
            model, shots=shots, seeds=range(seeds), n_items=n, device=device, output=output,
            **chosen,
        )  # fmt: skip
    typer.echo(f"wrote {path}")


@measure.command("projection")
def evaluate_projection(
    model: Annotated[str, typer.Option(help="Name, hub id or folder.")] = "shapes-sd",
    n: Annotated[int, typer.Option(min=4, help="Reference images.")] = 100,
    seeds: Annotated[int, typer.Option(min=1, help="Variations of each.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 20,
    device: Device = "auto",
    output: Results = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Measure what image prompts in closed form keep of an image, with bounds beside them."""
    from lab.measuring.projection import evaluate_projection as measured

    with explaining():
        _try_output(output)
        table = measured(
            model, n, seeds=seeds, steps=steps, device=device, output=output, seed=seed
        )
    typer.echo(table.drop(columns="model_sha256").to_string(index=False))


@measure.command("editing")
def evaluate_editing(
    model: Annotated[str, typer.Option(help="Name, hub id or folder.")] = "shapes-sd",
    n: Annotated[int, typer.Option(min=4, help="Reference images, four edits of each.")] = 24,
    seeds: Annotated[int, typer.Option(min=1, help="Noises of each edit.")] = 3,
    steps: Annotated[int, typer.Option(min=2, help="Denoising steps.")] = 20,
    method: Annotated[list[str] | None, typer.Option(help="Repeat for several.")] = None,
    device: Device = "auto",
    output: Results = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Measure edits of images by words: what was requested is changed, and the rest is kept."""
    from lab.measuring.editing import evaluate_editing as measured

    with explaining():
        _try_output(output)
        table = measured(
            model, n, seeds=seeds, steps=steps, methods=method or None, device=device,
            output=output, seed=seed,
        )  # fmt: skip
    reported = table[(table.kind == "all") & ~table.metric.str.startswith("validation_")]
    typer.echo(reported.drop(columns="model_sha256").to_string(index=False))


@measure.command("customization")
def evaluate_customization(
    model: Annotated[str, typer.Option(help="Name, hub id or folder.")] = "shapes-sd",
    n: Annotated[int, typer.Option(min=4, help="Reference images.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, help="Variations of each.")] = 3,
    parts: Annotated[str, typer.Option(help="ct: a reference; ft: a domain.")] = "ct,ft",
    domain: Annotated[list[str] | None, typer.Option(help="Of ft; repeat for several.")] = None,
    ft_steps: Annotated[int, typer.Option(min=1, help="Steps that a domain is learned for.")] = 300,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps of every image.")] = 10,
    device: Device = "auto",
    output: Results = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Measure what tuning on a reference, or on a domain, brings and costs."""
    from lab.measuring.customization import evaluate_customization as measured

    with explaining():
        _try_output(output)
        table = measured(
            model, n, seeds, parts=[part.strip() for part in parts.split(",")],
            domains=domain or None, ft_steps=ft_steps, sampling_steps=steps, device=device,
            output=output, seed=seed,
        )  # fmt: skip
    typer.echo(table.drop(columns="model_sha256").to_string(index=False))
