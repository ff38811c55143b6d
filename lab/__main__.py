"""The laboratory's command: `python -m lab train | measure | bench ...`."""

import typer

from lab.bench.commands import bench
from lab.measuring.commands import measure
from lab.training.commands import train

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How the embedded weights and the tables in results/ came about.",
)
app.command("train")(train)
app.add_typer(measure, name="measure")
app.command("bench")(bench)

if __name__ == "__main__":
    app(prog_name="python -m lab")
