"""The command `dsd-tutorial`: list, run, export, doctor, train, evaluate.

Thin: every sub-command reads its options, imports what does the work, and reports. Heavy
libraries are imported by the sub-command that needs them, so that `--help` and errors are quick.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand

from .evaluation.commands import evaluate
from .notebooks import NotebookNotFound, all_notebooks, find_notebook
from .saving import OutputError, require_writable
from .terminal import Device, explaining, stop

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Stable Diffusion as a few-shot vision-language learner: notebooks, models, training.",
)
app.add_typer(evaluate, name="evaluate")


ROOM = 50_000_000  # bytes that a trained part and its checkpoints may take


class Stage(StrEnum):
    """The parts of the embedded model, in the order in which they are trained."""

    tokenizer = "tokenizer"
    autoencoder = "autoencoder"
    clip = "clip"
    unet = "unet"


# What `train` does unless told otherwise: about what the shipped weights had.
SCHEDULES: dict[Stage, dict[str, float | str]] = {
    Stage.autoencoder: dict(steps=6_000, batch=32, lr=1.5e-3, ema=0.998, pool=24_000),
    Stage.clip: dict(
        steps=4_000,
        batch=192,
        lr=2.5e-3,
        ema=0.998,
        pool=60_000,
        weight_decay=0.05,
        optimizer="muon",
    ),
    Stage.unet: dict(
        steps=30_000, batch=48, lr=1e-3, ema=0.9995, pool=80_000, warmup=300, optimizer="muon"
    ),
}


class PairsCommand(TyperCommand):
    """A command that reads `-p name value` and `-p name=value` alike."""

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        """What typer parses, with every pair joined by an equals sign."""
        joined, waiting = [], list(args)
        while waiting:
            joined.append(waiting.pop(0))
            if joined[-1] in ("-p", "--parameter") and waiting:
                pair = waiting.pop(0)
                if "=" not in pair and waiting:
                    pair = f"{pair}={waiting.pop(0)}"
                joined.append(pair)
        return super().parse_args(ctx, joined)


@app.command("list")
def list_all() -> None:
    """Show notebooks (with minutes and memory as measured) and models (with where they are)."""
    from .registry import list_models

    try:
        notebooks = all_notebooks()
    except NotebookNotFound as error:
        notebooks = []
        typer.echo(str(error), err=True)
    typer.echo("Notebooks")
    for notebook in notebooks:
        cost = "not measured yet"
        if notebook.seconds is not None:
            cost = f"{notebook.seconds / 60:.1f} min, {notebook.peak_mb / 1000:.1f} GB"
        typer.echo(f"  {notebook.name:28} {cost:20} {notebook.title}")
    typer.echo("Models")
    for entry in list_models():
        typer.echo(f"  {entry.name:14} {_availability(entry):26} {entry.licence:26} {entry.notes}")


def _availability(entry) -> str:
    """Where a registered model's files are, in two words; nothing is downloaded."""
    from .registry import EMBEDDED_FOLDER, MissingModelError
    from .stable_diffusion.files import hub_folder, require_complete

    try:
        if entry.kind == "embedded":
            require_complete(EMBEDDED_FOLDER, entry)
            return "ships with the package"
        hub_folder(entry, download=False)
        return "in the local cache"
    except MissingModelError:
        return "weights absent" if entry.kind == "embedded" else "not downloaded"


@app.command("run", cls=PairsCommand)
def run(
    notebook: Annotated[str, typer.Argument(help="Name, number (01) or path.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME VALUE", help="Repeat for several."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the notebook and its HTML.")] = Path(
        "build"
    ),
    html: Annotated[bool, typer.Option(help="Also write an HTML page.")] = True,
) -> None:
    """Execute one notebook with papermill; parameters are checked before a kernel starts."""
    from .parameters import check_overrides
    from .running import make_way, prepare_output
    from .saving import Written

    pairs = [text.partition("=") for text in parameter or []]
    for name, sign, _ in pairs:
        if not sign:
            stop(f"Parameter {name!r} has no value: write -p {name} VALUE.")
    try:
        path = find_notebook(notebook)
        values = check_overrides(path, {name: value for name, _, value in pairs})
        folder = prepare_output([path], output)
    except (NotebookNotFound, ValueError) as error:
        stop(error)
    from .execution import run_notebook
    from .running import describe, write_html

    written, target = Written(folder), folder / path.name
    make_way(written, [path])
    outcome = run_notebook(path, target, values)
    made = [target] if outcome.saved and target.is_file() else []
    try:
        if html and made:
            made.append(write_html(target))
            typer.echo(f"wrote {made[-1]}")
        written.add(*made)
    except OutputError as error:  # the notebook itself is there
        typer.echo(f"{describe(outcome)}\n{error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(describe(outcome))
    if outcome.status != "ok":
        raise typer.Exit(1)


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(help="Where to write them.")],
    notebook: Annotated[list[str] | None, typer.Argument(help="Some only (default: all).")] = None,
    overwrite: Annotated[bool, typer.Option(help="Also over files that are there.")] = False,
) -> None:
    """Write the notebooks without solutions, to hand out; exercises, hints and checks stay."""
    from .notebooks import export as write

    try:
        chosen = [find_notebook(name) for name in notebook or ()]
        chosen = chosen or [found.path for found in all_notebooks()]
        for path in write(chosen, folder, overwrite):
            typer.echo(f"wrote {path}")
    except (NotebookNotFound, FileExistsError, ValueError) as error:
        stop(error)


@app.command("doctor")
def doctor(
    deep: Annotated[bool, typer.Option(help="Also start a kernel and sample a picture.")] = False,
) -> None:
    """Check the environment: one line per point, OK, WARN or FAIL, with the remedy."""
    from .doctor import examine

    failed = False
    for finding in examine(deep):
        typer.echo(str(finding))
        failed = failed or finding.status == "FAIL"
    if failed:
        raise typer.Exit(1)


@app.command("train")
def train(
    stage: Annotated[Stage, typer.Argument(help="Tokenizer first, U-Net last.")],
    output: Annotated[Path, typer.Option(help="The model folder to write.")] = Path(
        "build/shapes-sd"
    ),
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Samples per step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint.")] = True,
    init: Annotated[
        Path | None,
        typer.Option(
            help="A model folder whose U-Net, decoder (autoencoder) or image tower (clip) goes on."
        ),
    ] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of the weights' average.")] = None,
    pool: Annotated[int | None, typer.Option(min=1, help="Pictures to draw from.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop well after so many.")] = None,
    work: Annotated[Path, typer.Option(help="Folder of checkpoints and logs.")] = Path(
        "build/training"
    ),
    optimizer: Annotated[str | None, typer.Option(help="adamw or muon.")] = None,
    compile: Annotated[bool, typer.Option(help="torch.compile the model.")] = False,
    hard_negatives: Annotated[bool, typer.Option(help="An ablation of clip only.")] = False,
    image_side: Annotated[
        bool, typer.Option(help="clip: leave the text side, and so the U-Net, as it is.")
    ] = False,
) -> None:
    """Train one part of the embedded model from scratch."""
    if hard_negatives and stage is not Stage.clip:
        stop(f"--hard-negatives is an ablation of clip; {stage} has none.")
    if image_side and stage is not Stage.clip:
        stop(f"--image-side is for clip; {stage} has none.")
    if init is not None and stage is Stage.tokenizer:
        stop("--init continues a U-Net, a decoder or CLIP's image side; a tokenizer starts anew.")
    with explaining():
        require_writable(output, ROOM, make=False)
    if stage is Stage.tokenizer:
        from .training.tokenizer import train_tokenizer

        train_tokenizer(output, seed=seed)
        typer.echo(f"wrote {output / 'tokenizer'}")
        return
    from .training.loop import Options

    chosen = {"steps": steps, "batch": batch, "lr": lr, "ema": ema, "pool": pool}
    chosen["optimizer"] = optimizer
    given = {name: value for name, value in chosen.items() if value is not None}
    with explaining():
        require_writable(work, ROOM, make=False)
        options = Options(
            **(SCHEDULES[stage] | given),
            output=output, seed=seed, device=device, resume=resume, init=init, minutes=minutes,
            compile=compile, work=work,
        )  # fmt: skip
        figures = _trainer(stage, hard_negatives, image_side)(options)
    typer.echo(f"wrote {output}: " + ", ".join(f"{name} {figures[name]}" for name in figures))


def _trainer(stage: Stage, hard_negatives: bool, image_side: bool):
    """The function that trains a stage from its options."""
    from functools import partial

    if stage is Stage.autoencoder:
        from .training.autoencoder import train_autoencoder

        return train_autoencoder
    if stage is Stage.clip:
        from .training.clip import train_clip

        return partial(train_clip, hard_negatives=hard_negatives, image_side=image_side)
    from .training.unet import train_unet

    return train_unet


if __name__ == "__main__":
    app()
