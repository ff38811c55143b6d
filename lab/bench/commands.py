"""`python -m lab bench`: time the companion, write results/benchmark.csv and what quotes it."""

from pathlib import Path
from typing import Annotated

import typer


def bench(
    quick: Annotated[bool, typer.Option(help="Three minutes: fewer cases and turns.")] = False,
    full_size: Annotated[
        bool, typer.Option(help="Also Stable Diffusion 1.5 at full size (8 GB, some minutes).")
    ] = False,
    case: Annotated[list[str] | None, typer.Option(help="Some only; repeat for several.")] = None,
    output: Annotated[Path | None, typer.Option(help="The csv (default: in results/).")] = None,
) -> None:
    """Time the released way, `score`, `rank` and the rest in turn, on this machine."""
    from dsd_tutorial.course.terminal import explaining
    from lab.bench.report import run_cases, write_pages

    with explaining():
        path = run_cases(quick=quick, full_size=full_size, only=case, output=output)
        if output is None:
            write_pages()
    typer.echo(f"wrote {path}")
