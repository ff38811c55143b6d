"""Two sweeps side by side: which runs they share, whether these agree, what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsd_tutorial.course.sweeps.pages import Part, Section, table, write_page
from dsd_tutorial.course.sweeps.results import SEED, Results, estimate, read_sweep

NOT_INPUT = ("provenance.plan",)  # of provenance: what says nothing about figures


def compare(one: Results, other: Results) -> tuple[Any, Any]:
    """Return (figures of both with paired differences, values of shared runs that are not equal).

    Runs are paired by the parameters that both sweeps have. A run is shared where its key, and so
    everything that it depends on, is the same.
    """
    import pandas as pd

    names = [p for p in one.parameters if p in other.parameters]
    figures = [f for f in one.figures if f in other.figures]
    pairs = one.finished.merge(other.finished, on=["notebook", *names], suffixes=(" a", " b"))
    rows = []
    for figure in figures:
        a, b = pairs[f"{figure} a"], pairs[f"{figure} b"]
        gaps = (b - a).dropna()
        many = SEED in names and pairs[SEED].nunique() > 1
        units = gaps.groupby(pairs[SEED]).mean() if many else gaps
        found = estimate([float(x) for x in units]) if len(gaps) else None
        rows.append({
            "figure": figure, "mean, first": one.finished[figure].mean(),
            "mean, second": other.finished[figure].mean(), "pairs": len(gaps),
            "difference": found and found.value, "low": found and found.low,
            "high": found and found.high,
        })  # fmt: skip
    shared = one.finished.merge(other.finished, on="key", suffixes=(" a", " b"))
    unequal = []
    for row in shared.to_dict("records"):
        for figure in figures:
            a, b = row[f"{figure} a"], row[f"{figure} b"]
            if a != b and not (a != a and b != b):
                same = all(
                    row.get(f"{c} a") == row.get(f"{c} b")
                    for c in one.runs
                    if c.startswith("provenance.") and c not in NOT_INPUT
                )
                unequal.append({"run, first": row["run a"], "run, second": row["run b"],
                                "figure": figure, "first": a, "second": b,
                                "provenance": "equal" if same else "differs"})  # fmt: skip
    return pd.DataFrame(rows), pd.DataFrame(unequal)


def write_comparison(first: str | Path, second: str | Path) -> Path:
    """The page `compared-with-NAME.html` in the folder of the first sweep."""
    one, other = read_sweep(first), read_sweep(second)
    figures, unequal = compare(one, other)
    shared = len(set(one.finished.key) & set(other.finished.key))
    said = f"{shared} runs have the same inputs in both; "
    said += f"{len(unequal)} of their values differ." if len(unequal) else "all their values agree."
    parts = [Part(table=table(unequal, "Values that differ", True))] if len(unequal) else []
    sections = [
        Section("Runs with the same inputs", [said], parts=parts),
        Section(
            "Figures",
            ["Runs that share all parameters are pairs; the difference is second minus first, "
             "with its 95 % interval over seeds, or over pairs where there is one seed."],
            parts=[Part(table=table(figures, "Figures of both", True))],
        ),
        Section("The first plan", code=one.plan),
        Section("The second plan", code=other.plan),
    ]  # fmt: skip
    numbers: dict[str, Any] = {
        f"runs of {one.name}": len(one.finished), f"runs of {other.name}": len(other.finished),
        "with the same inputs": shared,
    }  # fmt: skip
    page = one.path / f"compared-with-{other.name}.html"
    lead = f"First: {one.name}. Second: {other.name}."
    return write_page(page, f"{one.name} and {other.name}", lead, numbers, sections)
