"""The command `dsd-tutorial`: start, list, run, sweep, report, repeat, export, grade, doctor.

Thin: every sub-command reads its options, imports what does the work, and reports. Heavy
libraries are imported by the sub-command that needs them, so that `--help` and errors are quick.
"""

from pathlib import Path
from typing import Annotated

import typer

from dsd_tutorial.course.notebooks import NotebookNotFound, all_notebooks, find_notebook
from dsd_tutorial.course.sweeps import commands as many
from dsd_tutorial.course.terminal import PairsCommand, explaining, pairs_of, stop

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Stable Diffusion as a few-shot vision-language learner: notebooks, models.",
)


@app.command("list")
def list_all() -> None:
    """Show notebooks (with minutes and memory as measured) and models (with where they are)."""
    from dsd_tutorial.stable_diffusion.registry import list_models

    try:
        notebooks = all_notebooks()
    except NotebookNotFound as error:
        notebooks = []
        typer.echo(str(error), err=True)
    typer.echo("Notebooks")
    for notebook in notebooks:
        cost = "not measured yet"
        if notebook.seconds is not None and notebook.peak_mb is not None:
            cost = f"{notebook.seconds / 60:.1f} min, {notebook.peak_mb / 1000:.1f} GB"
        typer.echo(f"  {notebook.name:28} {cost:20} {notebook.title}")
    typer.echo("Models")
    for entry in list_models():
        typer.echo(f"  {entry.name:14} {_availability(entry):26} {entry.licence:26} {entry.notes}")


def _availability(entry) -> str:
    """Where a registered model's files are, in two words; nothing is downloaded."""
    from dsd_tutorial.stable_diffusion.files import hub_folder, require_complete
    from dsd_tutorial.stable_diffusion.registry import EMBEDDED_FOLDER, MissingModelError

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
    quick: Annotated[bool, typer.Option(help="Small values first: ends within a minute.")] = False,
    plan: Annotated[bool, typer.Option(help="Say passes, memory, files; start nothing.")] = False,
) -> None:
    """Execute one notebook with papermill; parameters are checked before a kernel starts."""
    from dsd_tutorial.course.parameters import check_overrides, quick_values
    from dsd_tutorial.course.running import run_all

    given = pairs_of(parameter, "VALUE")
    with explaining():
        path = find_notebook(notebook)
        model = {"model": given.pop("model")} if plan and "model" in given else {}
        values = check_overrides(path, given)
        small = quick_values(path.stem) if quick else {}
        if plan:  # for which the model's files need not be there
            from dsd_tutorial.course.planning import plan_of

            typer.echo("\n".join(plan_of(path, {**small, **values, **model})))
            return
        (outcome,) = run_all([path], output, {path.stem: {**small, **values}}, html)
    if outcome.status != "ok":
        raise typer.Exit(1)
    typer.echo(f"wrote {Path(outcome.output).with_suffix('.html' if html else '.ipynb')}")


@app.command("start", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def start(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Where the course is put.")] = Path("dsd-course"),
    lab: Annotated[bool, typer.Option(help="Open JupyterLab there.")] = True,
) -> None:
    """Put the course into a folder and open JupyterLab; what you changed there stays.

    Further options go to JupyterLab: `dsd-tutorial start course --no-browser --port 9999`.
    """
    from dsd_tutorial.course.start import lay_out, open_lab

    with explaining():
        if str(folder).startswith("-"):
            stop(f"{folder} is an option of JupyterLab: name the folder first.")
        for found in lay_out(folder):
            typer.echo(str(found))
        typer.echo(f"The course is in {folder}.")
        status = open_lab(folder, context.args) if lab else 0
    raise typer.Exit(status)


app.command("sweep", cls=PairsCommand)(many.sweep)
app.command("report")(many.report)
app.command("repeat")(many.repeat)


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(help="Where to write them.")],
    notebook: Annotated[list[str] | None, typer.Argument(help="Some only (default: all).")] = None,
    overwrite: Annotated[bool, typer.Option(help="Also over files that are there.")] = False,
    nbgrader: Annotated[
        bool, typer.Option("--nbgrader", help="As assignments, into a course folder of nbgrader.")
    ] = False,
) -> None:
    """Write the notebooks without solutions, to hand out; exercises, hints and checks stay."""
    from dsd_tutorial.course.grading import write_assignments
    from dsd_tutorial.course.grading.handins import lessons
    from dsd_tutorial.course.notebooks import export as write

    with explaining():
        chosen = [find_notebook(name) for name in notebook or ()]
        every = [lesson.path for lesson in lessons()] if nbgrader else []
        chosen = chosen or every or [found.path for found in all_notebooks()]
        paths = write_assignments(chosen, folder) if nbgrader else write(chosen, folder, overwrite)
        for path in paths:
            typer.echo(f"wrote {path}")


@app.command("grade")
def grade(
    folder: Annotated[Path, typer.Argument(help="Hand-ins: a folder for each person, or files.")],
    output: Annotated[Path, typer.Option(help="The table; pages go into a folder beside it.")] = (
        Path("grades.csv")
    ),
    jobs: Annotated[int | None, typer.Option(min=1, help="Side by side (default: cores).")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="For one exercise.")] = 30.0,
    memory: Annotated[int, typer.Option(min=500, help="MB for one hand-in.")] = 3000,
) -> None:
    """Judge hand-ins, each in a process of its own, by the package's checks; resumable."""
    from dsd_tutorial.course.grading import Limits
    from dsd_tutorial.course.grading import grade as judge

    with explaining():
        judge(folder, output, Limits(seconds, memory), jobs, typer.echo)
    typer.echo(f"wrote {output} and {output.with_suffix('')}/summary.html")


@app.command("doctor")
def doctor(
    deep: Annotated[bool, typer.Option(help="Also start a kernel and sample an image.")] = False,
    workshop: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Also: is it fit for a class of N people?"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, at the end.")] = False,
) -> None:
    """Check the environment: one line per point, OK, WARN or FAIL, with the remedy."""
    import json
    from dataclasses import asdict
    from itertools import chain

    from dsd_tutorial.doctor import examine, examine_room

    found = []
    for finding in chain(examine(deep), examine_room(workshop) if workshop else ()):
        found.append(finding)
        if not as_json:
            typer.echo(str(finding))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found], indent=2))
    if any(finding.status == "FAIL" for finding in found):
        raise typer.Exit(1)


def _moved(old: str, new: str):
    """A command that only says where it has gone, in one line."""

    def say(arguments: Annotated[list[str] | None, typer.Argument()] = None) -> None:
        stop(f"`dsd-tutorial {old}` is now `python -m lab {new}`, in a clone of the repository.")

    say.__doc__ = f"Moved: `python -m lab {new}`, in a clone."
    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    app.command(old, hidden=True, context_settings=anything, add_help_option=False)(say)


_moved("train", "train")
_moved("evaluate", "measure")


if __name__ == "__main__":
    app(prog_name="dsd-tutorial")
