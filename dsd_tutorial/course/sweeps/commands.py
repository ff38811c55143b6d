"""The commands `dsd-tutorial sweep`, `report` and `repeat`; each imports what it needs."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from dsd_tutorial.course.terminal import explaining, pairs_of, stop

Pairs = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME VALUES", help="0,1,2 or 0..9; repeatable."),
]
SWEEPS = Path("sweeps")


def sweep(
    what: Annotated[list[str], typer.Argument(help="Notebooks (01 02), or one plan (.yaml).")],
    parameter: Pairs = None,
    name: Annotated[str | None, typer.Option(help="Of the folder (default: the plan's).")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the sweep's folder.")] = SWEEPS,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would run; start nothing.")
    ] = False,
    workers: Annotated[str, typer.Option(help="Runs side by side: a number, or auto.")] = "auto",
    scheduler: Annotated[
        str | None, typer.Option(help="A dask scheduler, e.g. tcp://10.0.0.1:8786.")
    ] = None,
    retry: Annotated[
        str | None, typer.Option(metavar="failed", help="Try failed runs again.")
    ] = None,
) -> None:
    """Run notebooks many times, over a grid of values or by a plan; given again, it goes on."""
    from dsd_tutorial.course.sweeps.folder import SweepFolder
    from dsd_tutorial.course.sweeps.scheduling import sweep as carry_out

    _needs_extra()
    if retry not in (None, "failed"):
        stop(f"--retry {retry} is unknown: write --retry failed.")
    count = _workers(workers)
    again = "dsd-tutorial " + shlex.join(sys.argv[1:])
    with explaining():
        runs, name = _runs(what, pairs_of(parameter, "VALUES"), name)
        total = runs.check()
        folder = SweepFolder(output / name)
        typer.echo(_told(runs, total, folder, count, bool(scheduler)))
        if plan:
            return
        with folder.held():
            folder.begin(runs.plan.text())
            try:
                ended = carry_out(runs, folder, total, scheduler, count, bool(retry))
            except KeyboardInterrupt:  # the second one
                stop(f"Ended at once. To go on: {again}", code=130)
    typer.echo(f"{ended.ok} of {total} runs are done, {ended.failed} failed, {ended.to_do} to do; "
               f"see {folder.path / 'runs.csv'}")  # fmt: skip
    if ended.to_do:
        typer.echo(f"To go on: {again}")
        raise typer.Exit(130 if ended.stopped else 1)
    if ended.failed:
        typer.echo(f"To try failed runs again: {again}{'' if retry else ' --retry failed'}")
        raise typer.Exit(1)


def _needs_extra() -> None:
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        stop(f"{error.name} is missing: pip install 'dsd-tutorial[runs]' (in a clone: -e .[runs]).")


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        stop(f"--workers {text} is refused: give a whole number from 1, or auto.")
    return int(text)


def _runs(what: list[str], pairs: dict[str, str], name: str | None):
    """The runs that are asked for, and the name of their folder."""
    from dsd_tutorial.course.sweeps.expanding import Runs, source_of
    from dsd_tutorial.course.sweeps.lines import PlanError
    from dsd_tutorial.course.sweeps.plans import plan_from_pairs, read_plan

    if len(what) == 1 and Path(what[0]).suffix in (".yaml", ".yml"):
        if pairs:
            raise PlanError("-p goes with notebooks: what varies in a plan stands in its file.")
        plan, lines = read_plan(what[0])
        name = name or plan.name or Path(what[0]).stem
    else:
        accepts = [source_of(notebook).accepts for notebook in what]
        plan, lines = plan_from_pairs(what, pairs, accepts, name=name)
        name = name or "-".join([*(Path(x).stem for x in what), plan.digest()[:6]])
    if Path(name).name != name:
        raise PlanError(f"--name {name} is a path: give a name, and the folder with --output.")
    return Runs(plan, lines), name


def _told(runs, total: int, folder, workers: int | None, elsewhere: bool) -> str:
    """What would run, and for how long: numbers, hours, memory."""
    from dsd_tutorial.course.sweeps.costs import Costs, counted, workers_that_fit

    costs = Costs(row for _, row in folder.lines())
    done = {key for key, (status, _) in folder.statuses().items() if status == "ok"}
    wanted = counted(runs, done)
    to_go = sum(wanted.values())
    same = f" ({runs.repeated} more are the same as these)" if runs.repeated else ""
    lines = [f"{total} runs{same}, {total - to_go} are done, {to_go} to go, in {folder.path}"]
    hours, peak = 0.0, 0.0
    for notebook, count in wanted.items():
        cost = costs.of(notebook)
        hours, peak = hours + count * cost.seconds / 3600, max(peak, cost.peak_mb)
        lines.append(f"  {count:6} x {notebook}: {cost.seconds / 60:.1f} min, "
                     f"{cost.peak_mb / 1000:.1f} GB each, by {cost.known_from}")  # fmt: skip
    if to_go and elsewhere:
        lines.append(f"about {_span(hours)} of one worker")
    elif to_go:
        side = workers or workers_that_fit(peak, to_go)
        lines.append(f"about {_span(hours / side)} with {side} workers, "
                     f"which take {side * peak / 1000:.1f} GB together")  # fmt: skip
    return "\n".join(lines)


def _span(hours: float) -> str:
    """Hours in words; less than one in minutes."""
    if hours >= 0.95:
        return f"{hours:.1f} hours"
    minutes = max(1, round(60 * hours))
    return f"{minutes} minute{'' if minutes == 1 else 's'}"


def report(
    folder: Annotated[list[Path], typer.Argument(help="Of a sweep: sweeps/NAME.")],
    compare: Annotated[bool, typer.Option("--compare", help="Two sweeps side by side.")] = False,
    notebook: Annotated[bool, typer.Option("--notebook", help="Also report.ipynb.")] = False,
) -> None:
    """Write one HTML page about a sweep: figures, differences, failures, cost, all runs."""
    _needs_extra()
    if len(folder) != (2 if compare else 1):
        stop("give one folder, or two with --compare: report --compare sweeps/a sweeps/b")
    with explaining():
        from dsd_tutorial.course.sweeps.comparing import write_comparison
        from dsd_tutorial.course.sweeps.report import write_notebook, write_report

        pages = [write_comparison(*folder) if compare else write_report(folder[0])]
        if notebook:
            pages.append(write_notebook(folder[0]))
    for page in pages:
        typer.echo(f"wrote {page}")


def repeat(
    run: Annotated[str, typer.Argument(help="sweeps/NAME/runs.csv:17, or sweeps/NAME:17.")],
) -> None:
    """Do one run of a sweep again, exactly, and say whether every recorded value is the same."""
    from dsd_tutorial.course.sweeps.repeating import repeat as again

    _needs_extra()
    place, _, number = run.rpartition(":")
    if not place or not number.isdecimal():
        stop(f"{run} names no run: write sweeps/NAME/runs.csv:17.")
    folder = Path(place).parent if Path(place).name == "runs.csv" else Path(place)
    with explaining():
        said = again(folder, int(number))
    for name, (then, now) in said["provenance"].items():
        typer.echo(f"provenance of another kind: {name} was {then}, is {now}")
    for name, (then, now) in said["differing"].items():
        was, is_now = ((figure or {}).get("value") for figure in (then, now))
        typer.echo(f"not the same: {name} was {was}, is {is_now}")
    if said["status"] != "ok":
        stop(said["error"], code=1)
    if said["differing"]:
        raise typer.Exit(1)
    typer.echo(f"run {number}: every recorded value is the same")
