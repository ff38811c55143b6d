"""`python -m lab train STAGE`: one part of the embedded model, from scratch or from another."""

from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from dsd_tutorial.course.terminal import Device, explaining, stop
from dsd_tutorial.saving import require_writable

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
        steps=4_000, batch=192, lr=2.5e-3, ema=0.998, pool=60_000, weight_decay=0.05,
        optimizer="muon",
    ),
    Stage.unet: dict(
        steps=30_000, batch=48, lr=1e-3, ema=0.9995, pool=80_000, warmup=300, optimizer="muon",
    ),
}  # fmt: skip


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
    pool: Annotated[int | None, typer.Option(min=1, help="Images to draw from.")] = None,
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
        from lab.training.tokenizer import train_tokenizer

        train_tokenizer(output, seed=seed)
        typer.echo(f"wrote {output / 'tokenizer'}")
        return
    from lab.training.loop import Options

    chosen = {"steps": steps, "batch": batch, "lr": lr, "ema": ema, "pool": pool,
              "optimizer": optimizer}  # fmt: skip
    given = {name: value for name, value in chosen.items() if value is not None}
    with explaining():
        require_writable(work, ROOM, make=False)
        options = Options(
            **(SCHEDULES[stage] | given),
            output=output, seed=seed, device=device, resume=resume, init=init, minutes=minutes,
            compile=compile, work=work,
        )  # fmt: skip
        training = getattr(import_module(f"lab.training.{stage}"), f"train_{stage}")
        ways = {"hard_negatives": hard_negatives, "image_side": image_side}
        figures = training(options, **(ways if stage is Stage.clip else {}))
    typer.echo(f"wrote {output}: " + ", ".join(f"{name} {figures[name]}" for name in figures))
