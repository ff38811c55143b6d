"""Runs the cases, keeps their rows in results/benchmark.csv, and says them in the README."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from dsd_tutorial.course.records import results_folder
from dsd_tutorial.saving import replacing, require_writable_file
from dsd_tutorial.stable_diffusion.precision import bfloat16_pays
from lab.bench import sweeping
from lab.bench.cases import ALL, COLUMNS, QUICK, Bench
from lab.bench.timing import FULL, Row
from lab.upkeep.blocks import ROOT, write_blocks

CHART = ROOT / "docs" / "benchmark.png"
REPEATS = 5


def run_cases(
    *, quick: bool = False, full_size: bool = False, only: Sequence[str] | None = None,
    output: Path | None = None,
) -> Path:  # fmt: skip
    """Return the csv file after timing the cases; rows of others in it stay.

    Raises:
        ValueError: a case that there is none of.
    """
    unknown = sorted(set(only or ()) - set(ALL) - {FULL})
    if unknown:
        raise ValueError(f"unknown case {unknown[0]!r}; choose from {', '.join([*ALL, FULL])}")
    chosen = [name for name in only or (QUICK if quick else ALL) if name != FULL]
    path = output or results_folder() / "benchmark.csv"
    require_writable_file(path)
    if full_size or FULL in (only or ()):
        for dtype in ("float32", "bfloat16"):
            if found := full_size_rows(dtype):  # first: threads that have worked here would spin
                _keep(path, found)
    bench = Bench(_models(), repeats=REPEATS)
    with tqdm(chosen, desc="benchmark", unit="case") as bar:
        for name in bar:
            bar.set_postfix_str(name)
            _keep(path, ALL[name](bench))
    if not only:
        draw_growth(path)
    return path


def _models() -> dict[str, Any]:
    """In the precisions that this processor multiplies; what it emulates takes twenty times."""
    from dsd_tutorial.stable_diffusion import load_model

    dtypes = ["float32"]
    if bfloat16_pays():
        dtypes.append("bfloat16")
    else:
        print("this processor does not gain by bfloat16: float32 alone is timed", file=sys.stderr)
    return {dtype: load_model("shapes-sd", dtype=dtype) for dtype in dtypes}


def _keep(path: Path, rows: Sequence[Row]) -> None:
    """Put rows in the place of those of the same case and way; others stay."""
    new = pd.DataFrame([{c: _short(row[c]) for c in COLUMNS} for row in rows], dtype=object)
    if path.exists():
        old = pd.read_csv(path, dtype=str, keep_default_na=False)
        new = pd.concat([old, new]).drop_duplicates(["case", "way"], keep="last")
    with replacing(path) as partial:
        new.to_csv(partial, index=False, lineterminator="\n")


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def full_size_rows(dtype: str) -> list[Row]:
    """Return the rows of `full_size.py`, a process of its own; none for emulated precision."""
    done = subprocess.run(
        [sys.executable, "-m", "lab.bench.full_size", dtype],
        check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if lines else []


def draw_growth(path: Path) -> None:
    """Draw how `score` grows with candidates, time steps and the image's side, log-log."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = pd.read_csv(path)
    rows = rows[rows["case"].str.startswith("growth")]
    if rows.empty:
        return
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharey=True, layout="constrained")
    for place, (axis, what) in enumerate(
        zip(axes, ("candidates", "time steps", "image side"), strict=True)
    ):
        some = rows[rows["case"] == f"growth: {what}"]
        sizes = some["way"].str.split(" x ", expand=True).astype(int)[place]
        axis.loglog(sizes, some["seconds_min"], "o-", label="measured")
        grows = 2 if what == "image side" else 1
        last, at = some["seconds_min"].iloc[-1], sizes.iloc[-1]
        axis.loglog(sizes, last * (sizes / at) ** grows, ":", label=f"slope {grows}")
        axis.set(xlabel=what, title=f"score, {what}")
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.minorticks_off()
        axis.legend()
    axes[0].set_ylabel("seconds")
    with replacing(CHART) as partial:
        figure.savefig(partial, dpi=110, format="png")
    plt.close(figure)


def lines(rows: pd.DataFrame) -> str:
    """Return the README's block: five lines, and the machine."""
    one = rows[rows["case"] == "1x10x10"].astype({"seconds_min": float, "ratio": float})
    found = ["| 1 image, 10 texts, 10 time steps | seconds | times as fast | U-Net passes |",
             "| --- | ---: | ---: | ---: |"]  # fmt: skip
    names = {"released": "the released way", "score": "`score`", "rank": "`rank`"}
    for way, said in names.items():
        some = one[one["way"].str.startswith(way)]
        if some.empty:
            continue
        best = some.loc[some["seconds_min"].idxmin()]
        found.append(
            f"| {said}, {best['dtype']} | {best['seconds_min']:.2f} | {best['ratio']:.1f} "
            f"| {best['passes']} |"
        )
    cores, versions = one[["cores", "versions"]].iloc[0] if len(one) else ("?", "?")
    found += ["", f"Measured by `make bench` on {cores} CPU cores, no GPU ({platform.system()}, "
                  f"{platform.machine()}, {versions.split(', ')[-1]}); all of it in "
                  "[results/benchmark.csv](results/benchmark.csv)."]  # fmt: skip
    return "\n".join(found)


def one_pass(rows: pd.DataFrame) -> str:
    """Return the table of what makes one pass faster: a row per way, a column per precision."""
    rows = rows[rows["case"] == "one pass"].copy()
    rows["way"] = [row.way.replace(f" {row.dtype}", "") for row in rows.itertuples()]
    seconds = rows.astype({"seconds_min": float}).pivot(
        index="way", columns="dtype", values="seconds_min"
    )
    dtypes = [name for name in ("float32", "bfloat16") if name in seconds]
    found = [f"| one pass of 32 rows, seconds | {' | '.join(dtypes)} |",
             f"| --- |{' ---: |' * len(dtypes)}"]  # fmt: skip
    for way in dict.fromkeys(rows["way"]):
        found.append(f"| {way} | {' | '.join(f'{seconds.loc[way, d]:.3g}' for d in dtypes)} |")
    return "\n".join(found)


def full_size(rows: pd.DataFrame) -> str:
    """Return what was measured at full size, a line for each precision."""
    found = []
    for case, some in rows[rows["case"].str.startswith(FULL)].groupby("case", sort=False):
        at = some.set_index("way")
        plain, seen = (float(at.loc[way, "seconds_min"]) for way in ("plain", "observe"))
        found.append(
            f"* {str(case).split(', ')[1]}: one pass {plain:.1f} s, observed {seen:.1f} s "
            f"({100 * (seen / plain - 1):+.1f} %); `score` of 1 image x 2 texts x 2 steps "
            f"{float(some[some['way'].str.startswith('score')].seconds_min.iloc[0]):.0f} s, at its "
            f"peak {float(at.loc['weights', 'ratio']):.2f} times the weights"
        )
    return "\n".join(found)


def precision(rows: pd.DataFrame) -> str:
    """Return the table of what half precision changed: a row per task, columns per reading."""
    reads = list(dict.fromkeys(rows["reads"]))
    said = {"attention_error": "attention + error"}
    found = ["| same winner (change of accuracy) | n | "
             + " | ".join(said.get(name, name) for name in reads) + " |",
             "| --- | ---: |" + " ---: |" * len(reads)]  # fmt: skip
    for task, some in rows.groupby("task", sort=False):
        at = some.set_index("reads")
        cells = [f"{at.loc[x, 'same_winner']:.3f} ({at.loc[x, 'change']:+.3f})" for x in reads]
        found.append(f"| {task} | {at['n'].iloc[0]} | " + " | ".join(cells) + " |")
    return "\n".join(found)


def sweeps(rows: pd.DataFrame) -> str:
    """Return what a sweep costs, and what a large one would be like."""
    rows = rows[rows["case"].str.startswith("sweep")]
    return sweeping.page({(row["case"], row["way"]): row for _, row in rows.iterrows()})


def blocks() -> dict[str, dict[str, str]]:
    """Return, by page and by name, the blocks of all that quotes the tables."""
    rows = pd.read_csv(results_folder() / "benchmark.csv", keep_default_na=False)
    halved = pd.read_csv(results_folder() / "precision.csv")
    return {
        "README.md": {"benchmark": lines(rows)},
        "docs/real-checkpoints.md": {
            "one pass": one_pass(rows),
            "precision": precision(halved),
            "full size": full_size(rows),
        },
        "docs/many-runs.md": {"sweeps": sweeps(rows)},
    }


def write_pages() -> None:
    """Write the blocks into README.md and the pages in docs/."""
    for page, found in blocks().items():
        write_blocks(page, "make bench", found)
