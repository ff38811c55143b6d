"""What all commands share: the option for a device, and how they end when something is wrong."""

from typing import Annotated, NoReturn

import typer

Device = Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")]


def stop(message: object, code: int = 2) -> NoReturn:
    """Print why to the error stream and end with an exit status; 2 means: nothing was started."""
    typer.echo(str(message), err=True)
    raise typer.Exit(code)
