"""What all commands share: options for a device and for parameters, and how they end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer
from typer.core import TyperCommand

Device = Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")]


def stop(message: object, code: int = 2) -> NoReturn:
    """Print why to the error stream and end with an exit status; 2 means: nothing was started."""
    typer.echo(str(message), err=True)
    raise typer.Exit(code)


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


def pairs_of(typed: list[str] | None, meant: str) -> dict[str, str]:
    """Name -> what was typed for it; ends the command where that is nothing, asking for `meant`."""
    pairs = [text.partition("=") for text in typed or []]
    for name, sign, _ in pairs:
        if not sign:
            stop(f"Parameter {name!r} has no value: write -p {name} {meant}.")
    return {name: value for name, _, value in pairs}


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
