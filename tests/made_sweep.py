"""A sweep whose runs are made up: the rows and files of its folder, without a kernel."""

from pathlib import Path

from dsd_tutorial.course.sweeps import SweepFolder
from dsd_tutorial.course.sweeps.expanding import Run

SEEDS, STEPS = range(4), (5, 10, 20)


def value_of(steps: int, seed: int) -> float:
    """A figure with an effect of the steps and one of the seed."""
    return steps / 100 + seed / 10 + (0.001 if (steps, seed) == (10, 2) else 0)


def a_sweep(
    path: Path, change: float = 0.0, failing: tuple[int, int] | None = (20, 3)
) -> SweepFolder:
    """A folder with the rows of a sweep over steps and seeds, one of which failed."""
    folder = SweepFolder(path)
    runs = []
    with folder.held():
        folder.begin("notebooks: ['00']\ngrid: {steps: [5, 10, 20]}\nseeds: 0..3\n")
        for number, (steps, seed) in enumerate(((x, s) for x in STEPS for s in SEEDS), start=1):
            run = Run(number, "00_orientation", {"steps": steps, "seed": seed}, f"key-{number}")
            runs.append(run)
            figure = {"value": value_of(steps, seed) + change, "low": 0.0, "high": 1.0, "n": 9}
            bad = (steps, seed) == failing
            folder.add(
                {"key": run.key, "notebook": run.notebook, "status": "failed" if bad else "ok",
                 "seconds": 2.0, "peak_mb": 50.0, "tries": 1, "parameters": run.values,
                 "figures": {} if bad else {"accuracy/a/x": figure, "accuracy/b/x": figure},
                 "tables": {"t": [{"layer": "up", "share": 0.5}]},
                 "error": "cell 3: ValueError: <b>no</b>" if bad else None,
                 "error_class": "ValueError" if bad else None, "error_cell": 3 if bad else None,
                 "output": f"runs/{run.file}",
                 "provenance": {"torch": "2", "plan": str(path), "weights": "w", "commit": "c"}},
                b"{}",
            )  # fmt: skip
        folder.write_tables(runs)
    return folder
