"""The sub-commands of `python -m lab measure`: each measures one thing and writes one table."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from dsd_tutorial.course.terminal import Device, explaining
from dsd_tutorial.saving import require_writable, require_writable_file

measure = typer.Typer(no_args_is_help=True, help="Measure a model or a method.")
Model = Annotated[str, typer.Option(help="Name, hub id or folder.")]
Results = Annotated[Path | None, typer.Option(help="The csv file (default: in results/).")]
Folder = Annotated[Path | None, typer.Option(help="For metrics.json (default: the model's).")]
Several = Annotated[list[str] | None, typer.Option(help="Repeat for several.")]
Seed = Annotated[int, typer.Option(min=0)]
References = Annotated[int, typer.Option(min=4, help="Reference images.")]
Seeds = Annotated[int, typer.Option(min=1, help="Noises, or draws of the labelled items.")]
Steps = Annotated[int, typer.Option(min=1, help="Denoising steps of every image.")]


def _measured(evaluate: Callable[..., Any], output: Path | None, *args: Any, **options: Any) -> Any:
    """Return what `evaluate` does, after trying the file that was named; errors become a line."""
    with explaining():
        if output is not None:
            require_writable_file(output)
        return evaluate(*args, output=output, **options)


def _given(**chosen: list[str] | None) -> dict[str, Any]:
    """Return what was named on the command line; all else is left to the plan."""
    return {name: values for name, values in chosen.items() if values}


@measure.command("model")
def evaluate_model(
    model: Model = "shapes-sd",
    n: Annotated[int, typer.Option(min=10, help="Prompts of each kind.")] = 500,
    device: Device = "auto",
    output: Folder = None,
    seed: Seed = 0,
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
    model: Model = "shapes-sd",
    task: Several = None,
    method: Several = None,
    shots: Annotated[int, typer.Option(min=1, help="Labelled items.")] = 16,
    seeds: Seeds = 3,
    n: Annotated[int, typer.Option(min=2, help="Test items of each task.")] = 300,
    curve: Annotated[bool, typer.Option(help="Also other numbers of shots.")] = True,
    device: Device = "auto",
    output: Results = None,
) -> None:
    """Measure what a few labelled pairs bring, against baselines on the same items."""
    from lab.measuring.few_shot import evaluate_few_shot as measured

    chosen = _given(tasks=task, methods=method) | ({} if curve else {"curve_task": None})
    seeds = tuple(range(seeds))
    path = _measured(
        measured, output, model, shots=shots, seeds=seeds, n_items=n, device=device, **chosen
    )
    typer.echo(f"wrote {path}")


@measure.command("lora-settings")
def evaluate_lora_settings(
    model: Model = "shapes-sd",
    task: Several = None,
    setting: Several = None,
    seeds: Seeds = 1,
    device: Device = "auto",
    output: Results = None,
) -> None:
    """Measure what loss, rank, projections, layers and rate do to LoRA, on validation items."""
    from lab.measuring.lora_settings import evaluate_lora_settings as measured

    chosen = _given(tasks=task, of=setting)
    path = _measured(measured, output, model, seeds=tuple(range(seeds)), device=device, **chosen)
    typer.echo(f"wrote {path}")


@measure.command("readings")
def evaluate_readings(
    model: Model = "shapes-sd",
    validation: Annotated[int, typer.Option(min=2, help="Validation items of each task.")] = 256,
    device: Device = "auto",
    output: Results = None,
) -> None:
    """Measure where, when and by which reading attention tells captions apart."""
    from lab.measuring.readings import evaluate_readings as measured

    path = _measured(measured, output, model, validation=validation, device=device)
    typer.echo(f"wrote {path}")


@measure.command("ranking")
def evaluate_ranking(
    model: Model = "shapes-sd",
    n: Annotated[int, typer.Option(min=2, help="Test items of each task.")] = 300,
    validation: Annotated[int, typer.Option(min=2, help="Items that spreads come from.")] = 100,
    steps: Annotated[int, typer.Option(min=2, help="Time steps.")] = 10,
    device: Device = "auto",
    output: Results = None,
) -> None:
    """Measure how few passes find the winner of full scoring, against fixed rounds."""
    from lab.measuring.ranking import evaluate_ranking as measured

    path = _measured(
        measured, output, model, n_items=n, validation=validation, steps=steps, device=device
    )
    typer.echo(f"wrote {path}")


@measure.command("precision")
def evaluate_precision(
    model: Model = "shapes-sd",
    n: Annotated[int, typer.Option(min=2, help="Test items of each task.")] = 300,
    dtype: Annotated[str, typer.Option(help="Beside float32.")] = "bfloat16",
    device: Device = "auto",
    output: Results = None,
) -> None:
    """Measure whether half precision ranks as float32 does."""
    from lab.measuring.precision import evaluate_precision as measured

    path = _measured(measured, output, model, n_items=n, dtype=dtype, device=device)
    typer.echo(f"wrote {path}")


@measure.command("grounding")
def evaluate_grounding(
    model: Model = "shapes-sd",
    n: Annotated[int, typer.Option(min=3, help="Test expressions, three kinds in turn.")] = 300,
    steps: Annotated[int, typer.Option(min=2, help="Time steps of the errors.")] = 6,
    device: Device = "auto",
    output: Results = None,
) -> None:
    """Measure which box a phrase finds: by prediction error, by attention, and by CLIP."""
    from lab.measuring.grounding import evaluate_grounding as measured

    path = _measured(measured, output, model, n_items=n, steps=steps, device=device)
    typer.echo(f"wrote {path}")


@measure.command("information")
def evaluate_information(
    model: Model = "shapes-sd",
    n: Annotated[int, typer.Option(min=2, help="Test scenes of nats and maps.")] = 200,
    validation: Annotated[int, typer.Option(min=2, help="Scenes on which maps are chosen.")] = 60,
    levels: Annotated[int, typer.Option(min=3, help="Levels of log-SNR.")] = 10,
    matching: Annotated[int, typer.Option(min=2, help="Test items of each task.")] = 300,
    part: Annotated[list[str] | None, typer.Option(help="nats, unsaid, map or matching.")] = None,
    device: Device = "auto",
    output: Results = None,
) -> None:
    """Measure what words say about images in nats, where, and how well it matches texts."""
    from lab.measuring.information import evaluate_information as measured

    path = _measured(
        measured, output, model, n=n, validation=validation, levels=levels, matching=matching,
        device=device, **_given(parts=part),
    )  # fmt: skip
    typer.echo(f"wrote {path}")


@measure.command("features")
def evaluate_features(
    model: Model = "shapes-sd",
    train: Annotated[int, typer.Option(min=50, help="Scenes that are learned from.")] = 600,
    n: Annotated[int, typer.Option(min=10, help="Validation scenes, and test scenes.")] = 300,
    images: Annotated[int, typer.Option(min=16, help="Drawn under each condition.")] = 160,
    device: Device = "auto",
    output: Results = None,
) -> None:
    """Measure what features know: probes, units of sparse autoencoders, steering."""
    from lab.measuring.features import evaluate_features as measured

    path = _measured(measured, output, model, train=train, n=n, images=images, device=device)
    typer.echo(f"wrote {path}")


@measure.command("projection")
def evaluate_projection(
    model: Model = "shapes-sd",
    n: References = 100,
    seeds: Seeds = 3,
    steps: Steps = 20,
    device: Device = "auto",
    output: Results = None,
    seed: Seed = 0,
) -> None:
    """Measure what image prompts in closed form keep of an image, with bounds beside them."""
    from lab.measuring.projection import evaluate_projection as measured

    table = _measured(
        measured, output, model, n=n, seeds=seeds, steps=steps, device=device, seed=seed
    )
    typer.echo(table.drop(columns="model_sha256").to_string(index=False))


@measure.command("editing")
def evaluate_editing(
    model: Model = "shapes-sd",
    n: References = 24,
    seeds: Seeds = 3,
    steps: Annotated[int, typer.Option(min=2, help="Denoising steps of every image.")] = 20,
    method: Several = None,
    device: Device = "auto",
    output: Results = None,
    seed: Seed = 0,
) -> None:
    """Measure edits of images by words: what was requested is changed, and the rest is kept."""
    from lab.measuring.editing import evaluate_editing as measured

    table = _measured(
        measured, output, model, n=n, seeds=seeds, steps=steps, device=device, seed=seed,
        **_given(methods=method),
    )  # fmt: skip
    reported = table[(table.kind == "all") & ~table.metric.str.startswith("validation_")]
    typer.echo(reported.drop(columns="model_sha256").to_string(index=False))


@measure.command("customization")
def evaluate_customization(
    model: Model = "shapes-sd",
    n: References = 20,
    seeds: Seeds = 3,
    parts: Annotated[str, typer.Option(help="ct: a reference; ft: a domain.")] = "ct,ft",
    domain: Annotated[list[str] | None, typer.Option(help="Of ft; repeat for several.")] = None,
    ft_steps: Annotated[int, typer.Option(min=1, help="Steps that a domain is learned for.")] = 300,
    steps: Steps = 10,
    device: Device = "auto",
    output: Results = None,
    seed: Seed = 0,
) -> None:
    """Measure what tuning on a reference, or on a domain, brings and costs."""
    from lab.measuring.customization import evaluate_customization as measured

    table = _measured(
        measured, output, model, n=n, seeds=seeds, ft=ft_steps, sampling=steps, device=device,
        seed=seed, parts=[part.strip() for part in parts.split(",")], **_given(domains=domain),
    )  # fmt: skip
    typer.echo(table.drop(columns="model_sha256").to_string(index=False))


@measure.command("quality")
def evaluate_quality(
    model: Model = "shapes-sd",
    n: Annotated[int, typer.Option(min=12, help="Test images.")] = 300,
    train: Annotated[int, typer.Option(min=12, help="Images that are fitted.")] = 240,
    seeds: Seeds = 3,
    device: Device = "auto",
    output: Results = None,
) -> None:
    """Measure how well attention to quality prompts ranks degraded images."""
    from lab.measuring.quality import evaluate_quality as measured

    path = _measured(measured, output, model, n=n, train=train, seeds=seeds, device=device)
    typer.echo(f"wrote {path}")


@measure.command("retrieval")
def evaluate_retrieval(
    model: Model = "shapes-sd",
    n: Annotated[int, typer.Option(min=2, help="Test texts.")] = 100,
    validation: Annotated[int, typer.Option(min=2, help="Texts the offset comes from.")] = 50,
    device: Device = "auto",
    output: Results = None,
    seed: Seed = 0,
) -> None:
    """Measure drawing, finding, and the score's choice between them."""
    from lab.measuring.retrieval import evaluate_retrieval as measured

    path = _measured(measured, output, model, n=n, validation=validation, device=device, seed=seed)
    typer.echo(f"wrote {path}")


@measure.command("bridge")
def evaluate_bridge(
    model: Model = "shapes-sd",
    n: Annotated[int, typer.Option(min=10, help="Test images.")] = 300,
    draws: Annotated[int, typer.Option(min=2, help="Of the few labelled images.")] = 5,
    device: Device = "auto",
    output: Results = None,
    seed: Seed = 0,
) -> None:
    """Measure classes of a few images, compared in CLIP's image space and in its text space."""
    from lab.measuring.bridge import evaluate_bridge as measured

    path = _measured(measured, output, model, n=n, draws=draws, device=device, seed=seed)
    typer.echo(f"wrote {path}")


@measure.command("sweep")
def evaluate_sweep(
    folder: Annotated[Path, typer.Argument(help="Of a sweep that has ended: sweeps/NAME.")],
    group: Annotated[str, typer.Option(help="First part of the figures' names.")] = "accuracy",
    output: Results = None,
) -> None:
    """Put the figures of a sweep into a table in results/."""
    from lab.measuring.sweeps import write_sweep

    typer.echo(f"wrote {_measured(write_sweep, output, folder, group)}")
