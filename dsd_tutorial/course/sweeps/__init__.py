"""Many runs of notebooks: a plan, dask that carries it out, one folder, one report.

    plan, lines = read_plan(path)          # plans.py: what is asked for
    chosen = Runs(plan, lines)             # expanding.py: every run, checked before anything starts
    folder = SweepFolder(path)             # folder.py: what is kept of it
    sweep(chosen, folder, ...)             # scheduling.py: carried out on a dask cluster,
                                           #   each run by `jobs.carry_out`
    write_report(folder)                   # report.py: one page

The commands `dsd-tutorial sweep`, `report` and `repeat` are all of it together.
"""

# What is imported for type checkers is what `lazily` offers; "as" tells them that it is offered.
from typing import TYPE_CHECKING

from dsd_tutorial.lazy import lazily

if TYPE_CHECKING:
    from dsd_tutorial.course.sweeps.costs import Costs as Costs
    from dsd_tutorial.course.sweeps.expanding import Run as Run
    from dsd_tutorial.course.sweeps.expanding import Runs as Runs
    from dsd_tutorial.course.sweeps.folder import SweepFolder as SweepFolder
    from dsd_tutorial.course.sweeps.folder import SweepInUse as SweepInUse
    from dsd_tutorial.course.sweeps.lines import PlanError as PlanError
    from dsd_tutorial.course.sweeps.plans import Plan as Plan
    from dsd_tutorial.course.sweeps.plans import plan_from_pairs as plan_from_pairs
    from dsd_tutorial.course.sweeps.plans import read_plan as read_plan
    from dsd_tutorial.course.sweeps.report import write_report as write_report
    from dsd_tutorial.course.sweeps.results import Results as Results
    from dsd_tutorial.course.sweeps.results import SweepError as SweepError
    from dsd_tutorial.course.sweeps.results import read_sweep as read_sweep
    from dsd_tutorial.course.sweeps.results import show_effect as show_effect
    from dsd_tutorial.course.sweeps.scheduling import sweep as sweep

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
