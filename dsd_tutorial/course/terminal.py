"""What all commands share: the option for a device, and how they end when something is wrong."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

Device = Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")]


def stop(message: object, code: int = 2) -> NoReturn:
    """Print why to the error stream and end with an exit status; 2 means: nothing was started."""
    typer.echo(str(message), err=True)
    raise typer.Exit(code)


@contextmanager
def explaining() -> Iterator[None]:
    """End the command with one clear line where a block raises an error that is meant for people.

    Status 2 for what was typed (values, names, files, folders), 1 for what went wrong on the way.
    """
    try:
        yield
    except typer.Exit:  # a RuntimeError, and said already
        raise
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        stop(error)
    except RuntimeError as error:
        stop(error, code=1)
