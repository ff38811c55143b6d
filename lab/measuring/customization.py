"""Measures customisation: `python -m lab measure customization` -> results/customization.csv.

"ct": one reference, tuned for up to a hundred steps from every start (`custom_references`).
"ft": a domain of a hundred pictures, before and after (`custom_domains`). A table that was
interrupted goes on where it stopped; customization_items.csv holds what each reference got.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsd_tutorial.course.records import recorded_alternative, results_folder
from dsd_tutorial.projection import calibrate, collect_pairs
from dsd_tutorial.projection.references import choose_inverses, reference_sets
from lab.measuring.custom_book import Book
from lab.measuring.custom_domains import DOMAINS, FT, RATES, USUAL
from lab.measuring.custom_references import CT, PACES, WAYS

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("ct", "ft")
TRIED_ON = 4  # validation references on which learning rates and alphas are chosen


def evaluate_customization(
    model: Any = "shapes-sd",
    n: int = 20,
    seeds: int = 3,
    *,
    parts: Sequence[str] = PARTS,
    ways: Sequence[str] | None = None,
    domains: Sequence[str] | None = None,
    images: int = 100,
    ft_steps: int = 300,
    batch_size: int = 4,
    sampling_steps: int = 10,
    guidance: float | None = None,
    device: str = "auto",
    output: Path | str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Return the table results/customization.csv after measuring what it lacks.

    One row per (method, metric, steps): value with its 95 % interval over references, seconds (of
    tuning until that step, of fitting), learned numbers. `n` references x `seeds` variations.

    ct   methods `ways` (None: all of `WAYS`). "fidelity" is the share of variations with number of
         objects, shape, colour, texture and background right; "edit_joint" of edits that change the
         colour as asked and keep the rest; "difference_to_..." are paired (`CT.compare`)
    ft   methods before_<domain>, ft_<domain>: "fidelity" on held-out pictures of the domain, and
         the paired "gain"; before, ft_<domain>: "old_by_image" and "old_by_caption" on 2 n scenes
         of the old world, and the paired "change_of_..."; ceiling_<domain>: the pictures themselves

    `domains` None: a shape, a colour and a texture. `images` a domain is learned from, `ft_steps`,
    `batch_size` of ct, `sampling_steps` per picture.
    Raises ValueError for unknown words or too few, ResultsError for a file with other settings.
    """
    from dsd_tutorial.stable_diffusion import load_model

    parts = [parts] if isinstance(parts, str) else list(parts)
    chosen_ways, chosen_domains = list(ways or WAYS), list(domains or USUAL)
    for asked, allowed in ((parts, PARTS), (chosen_ways, WAYS), (chosen_domains, DOMAINS)):
        if unknown := [name for name in asked if name not in allowed]:
            raise ValueError(f"unknown {unknown}; choose among {', '.join(allowed)}")
    if n < 4 or seeds < 1 or images < 1:
        raise ValueError(f"n={n}, seeds={seeds}, images={images}: need n >= 4, the others >= 1")
    loaded = load_model(model, device=device) if isinstance(model, str | Path) else model
    path = Path(output) if output is not None else results_folder() / "customization.csv"
    said = {"n": n, "seeds": seeds, "images": images, "ft": ft_steps, "batch": batch_size,
            "sampling": sampling_steps, "guidance": guidance, "seed": seed}  # fmt: skip
    book = Book(path, loaded.sha256, ", ".join(f"{k} {v}" for k, v in said.items()))
    known = calibrate(loaded, seed=seed, progress=progress)
    pairs = collect_pairs(loaded, n=1500 if n >= 10 else 100, seed=seed + 1, progress=progress)
    validation = reference_sets(loaded, max(n, TRIED_ON), "validation", seed + 2)["one"]
    inverses = choose_inverses(
        loaded, known, pairs, validation, alternative=recorded_alternative(loaded), seed=seed
    )
    sampling = {"steps": sampling_steps, "guidance": guidance}
    if "ct" in parts:
        test = reference_sets(loaded, n, "test", seed + 12)["one"].scenes
        tuning = CT(
            loaded, book, inverses, test, validation.scenes[:TRIED_ON], seeds, sampling, batch_size,
            seed, {name: WAYS[name] for name in chosen_ways},
        )  # fmt: skip
        _references(tuning, progress)
    if "ft" in parts:
        fitting = FT(
            loaded, book, inverses.truncated, chosen_domains, images, ft_steps, n, seeds, sampling,
            seed,
        )  # fmt: skip
        _domains(fitting, progress)
    return book.table.frame()


def _references(tuning: CT, progress: bool) -> None:
    from tqdm.auto import tqdm

    each = len(tuning.test) + len(PACES) * len(tuning.validation)
    with tqdm(total=each * len(tuning.ways), desc="references", disable=not progress) as bar:
        for name in tuning.ways:
            tuning.measure(name, bar)
    tuning.compare()


def _domains(fitting: FT, progress: bool) -> None:
    from tqdm.auto import tqdm

    total = len(fitting.domains) * len(RATES)
    with tqdm(total=total, desc="domains", disable=not progress) as bar:
        for name in fitting.domains:
            fitting.measure(name, bar)
