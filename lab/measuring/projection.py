"""Measures closed-form projection: `python -m lab measure projection` -> results/projection.csv.

Inverses are fitted on scenes of the train split; the threshold is chosen on the validation split by
cosine, the alternative by pictures; all other rows are measured on the test split. All methods draw
from the same noise, so rows can be compared picture by picture. A table that was interrupted goes
on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dsd_tutorial.course.records import Table, results_folder
from dsd_tutorial.matching.metrics import Interval, accuracy, recall_at_k
from dsd_tutorial.projection import (
    Inverse,
    calibrate,
    collect_pairs,
    eos_states,
    fit_inverse,
    fit_random,
)
from dsd_tutorial.projection.calibration import Calibration
from dsd_tutorial.projection.references import (
    ALTERNATIVES,
    ONE,
    Chosen,
    References,
    centered_one,
    choose_inverses,
    cosines,
    reference_sets,
)
from dsd_tutorial.shapes.captions import full_description
from dsd_tutorial.variation import states_to_prompt
from dsd_tutorial.variation.fidelity import diversity, fidelity

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("method", "metric", "value", "low", "high", "n", "milliseconds", "model_sha256")
SINGLE = ("count", "shape", "color", "objects", "background", "size", "position")
# what is drawn: set of references -> (attributes asked, prefix of the metric)
ASKED = {
    "one": (SINGLE, ""),
    "two": (("count", "objects", "background", "relation"), "two_"),
    "striped": (("texture", "shape", "color"), "striped_"),
}
EVERY_SET = ("caption", "another_image", "truncated", "alternative")
ONE_SEED = ("mean_text", "untrained", "no_threshold", "all_copies")
CONTINUOUS = ("cosine", "diversity")  # may lie in [0, 1] without being shares
RIVALS = ("mean_shift", "centered", ONE, "direct")  # drawn whether chosen or not
DRAWN = (*EVERY_SET, "true_eos", *RIVALS, *ONE_SEED)
SELECTED_ON = 60  # validation references
VALIDATION = "validation_objects"  # what the alternative is chosen by


@dataclass
class _Run:
    """One evaluation: the model, what was fitted, and where rows go."""

    model: Any
    table: Table
    known: Calibration
    chosen: Chosen
    sets: dict[str, References]
    seeds: int
    steps: int
    guidance: float | None
    seed: int

    def add(self, method: str, metric: str, values: Any, milliseconds: float) -> None:
        """One row: mean over references with its interval (Wilson for shares, else bootstrap)."""
        if self.table.has(method=method, metric=metric):
            return
        found = values
        if isinstance(values, Tensor):
            values = values[~values.isnan()]
            if not len(values):
                return
            share = bool(((values >= 0) & (values <= 1)).all()) and metric not in CONTINUOUS
            found = accuracy(values, "wilson" if share else "bootstrap")
        row = found.as_dict()
        self.table.add(method=method, metric=metric, milliseconds=float(milliseconds), **row)

    def prompts(self, method: str, references: References) -> Tensor:
        """The prompts (references, L, d) of one method or bound."""
        model, chosen = self.model, self.chosen
        if method in chosen.inverses and method != "truncated":
            return states_to_prompt(
                model,
                chosen.inverses[method](references.clip_images),
                copies=chosen.inverses[method].copies,
            )
        if method == "caption":
            return model.encode_text(references.captions)
        recipes: dict[str, Callable[[], Tensor]] = {
            "true_eos": lambda: references.states,
            "mean_text": lambda: self._mean().expand(len(references.scenes), -1),
            "untrained": lambda: fit_random(model, self.seed, self.known)(references.clip_images),
            "no_threshold": lambda: self._uncut()(references.clip_images),
            "alternative": lambda: chosen.alternative(references.clip_images),
            "another_image": lambda: chosen.truncated(references.clip_images).roll(1, 0),
        }
        states = recipes.get(method, lambda: chosen.truncated(references.clip_images))()
        copies = "all" if method == "all_copies" else chosen.truncated.copies
        return states_to_prompt(model, states, copies=copies)

    def _mean(self) -> Tensor:
        return (self.known.length * F.normalize(self.known.mean, dim=-1)).float()[None]

    def _uncut(self) -> Inverse:
        return fit_inverse(self.model, threshold=None, calibration=self.known, progress=False)

    def draw(
        self, method: str, references: References, bar: Any, seeds: int
    ) -> tuple[Tensor, float]:
        """Pictures (references, seeds, 3, height, width), and milliseconds for each."""
        prompts, count = self.prompts(method, references), len(references.scenes)
        start, drawn = time.perf_counter(), []
        for number in range(seeds):
            first = self.seed + 10_000 * number
            images = self.model.sample(
                embeddings=prompts,
                steps=self.steps,
                guidance=self.guidance,
                seed=first,
                progress=False,
                callback=lambda i, t, latents, output: bar.update(len(latents)),
            )
            drawn.append(images.cpu())
        elapsed = 1000 * (time.perf_counter() - start) / (count * len(drawn))
        return torch.stack(drawn, 1), elapsed

    def select(self, validation: References, progress: bool) -> None:
        """Draws validation pictures with every alternative, and takes the best from then on.

        Best is which most often keeps colour and shape: the cosine to the true end state does not
        tell (results/projection.csv has both).
        """
        from tqdm.auto import tqdm

        tried = (*ALTERNATIVES, ONE)  # the last for comparison: it knows that one object is shown
        todo = [name for name in tried if not self.table.has(method=name, metric=VALIDATION)]
        total = len(todo) * len(validation.scenes) * self.steps
        with tqdm(total=total, desc="alternatives", disable=not progress) as bar:
            for name in todo:
                bar.set_postfix_str(name)
                images, elapsed = self.draw(name, validation, bar, 1)
                self.add(name, VALIDATION, fidelity(images, validation.scenes)["objects"], elapsed)
        frame = self.table.frame()
        found = frame[frame.metric == VALIDATION].set_index("method").value
        best = max(ALTERNATIVES, key=lambda name: float(found[name]))
        self.chosen = replace(self.chosen, alternative=self.chosen.inverses[best], name=best)

    def jobs(self) -> Iterator[tuple[str, str]]:
        """(set, method) of everything that is drawn and not yet in the table."""
        for name, (asked, prefix) in ASKED.items():
            for method in DRAWN if name == "one" else EVERY_SET:
                if not self.table.has(method=method, metric=prefix + asked[0]):
                    yield name, method

    def pictures(self, progress: bool) -> None:
        """Draws and judges every job, and writes its rows."""
        from tqdm.auto import tqdm

        jobs = list(self.jobs())
        total = sum(
            len(self.sets[name].scenes) * (1 if method in ONE_SEED else self.seeds)
            for name, method in jobs
        )
        with tqdm(total=total * self.steps, desc="variations", disable=not progress) as bar:
            for name, method in jobs:
                bar.set_postfix_str(f"{method}, {name}")
                if self.table.has(method=method, metric=ASKED[name][1] + ASKED[name][0][0]):
                    continue  # the alternative, under its own name
                seeds = 1 if method in ONE_SEED else self.seeds
                images, elapsed = self.draw(method, self.sets[name], bar, seeds)
                asked, prefix = ASKED[name]
                found = fidelity(images, self.sets[name].scenes)
                same = [method, self.chosen.name] if method == "alternative" else [method]
                for title in same if name == "one" else [method]:
                    if name == "one" and images.shape[1] > 1:
                        self.add(title, "diversity", diversity(images), elapsed)
                    for attribute in reversed(asked):  # the first last: it marks the job as done
                        self.add(title, prefix + attribute, found[attribute], elapsed)

    def closed_form(self) -> None:
        """Cosine to the true end state and retrieval, before inversion and after, for all."""
        everything = self.sets["one"].scenes + self.sets["two"].scenes
        named = {full_description(s).text(): s for s in everything}  # every full caption once
        references = References(list(named.values()), self.model)
        weight = self.model.clip.text_projection.weight
        captions = F.normalize(eos_states(self.model, list(named)) @ weight.T, dim=-1)
        before = F.normalize(references.clip_images.embedding, dim=-1) @ captions.T
        self.add("clip", "retrieval_r1", recall_at_k(before), 0.0)
        inverses = {**self.chosen.inverses, "no_threshold": self._uncut()}
        inverses["untrained"] = fit_random(self.model, self.seed, self.known)
        inverses |= {"truncated": self.chosen.truncated, "alternative": self.chosen.alternative}
        for method, inverse in inverses.items():
            elapsed = conversion_time(inverse, references)
            after = F.normalize(inverse(references.clip_images) @ weight.T, dim=-1) @ captions.T
            self.add(method, "retrieval_r1", recall_at_k(after), elapsed)
            self.add(method, "cosine", cosines(inverse, references), elapsed)


def conversion_time(inverse: Inverse, references: References, repeats: int = 20) -> float:
    """Return milliseconds to turn CLIP's answer for one picture into a text state."""
    rows = getattr(references.clip_images, inverse.reads)[:1]
    inverse(rows)
    start = time.perf_counter()
    for _ in range(repeats):
        inverse(rows)
    return 1000 * (time.perf_counter() - start) / repeats


@torch.no_grad()
def evaluate_projection(
    model: Any = "shapes-sd",
    n: int = 100,
    *,
    seeds: int = 3,
    steps: int = 20,
    guidance: float | None = None,
    device: str = "auto",
    output: Path | str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Return the table results/projection.csv after measuring what it lacks.

    One row per (method, metric): value with its 95 % interval over `n` references, milliseconds per
    picture (of the conversion for cosine and retrieval, of sampling for the rest). `n` references
    of one object, n // 4 of two and of stripes, each varied from `seeds` noises (bounds that show
    nothing new with more: one). `model` is a name or a loaded model; `output` another csv file.

    Raises ValueError for n < 4 or seeds < 1, PenultimateLayerError for SD 2.x.
    """
    from dsd_tutorial.stable_diffusion import load_model

    if n < 4 or seeds < 1:
        raise ValueError(f"n={n}, seeds={seeds}: need n >= 4 and seeds >= 1")
    loaded = load_model(model, device=device) if isinstance(model, str | Path) else model
    known = calibrate(loaded, seed=seed, progress=progress)
    pairs = collect_pairs(loaded, n=max(200, 15 * n), seed=seed + 1, progress=progress)
    path = Path(output) if output is not None else results_folder() / "projection.csv"
    table = Table(path, COLUMNS, ("method", "metric"), loaded.sha256)
    validation = reference_sets(loaded, n, "validation", seed + 2)["one"]
    chosen = choose_inverses(loaded, known, pairs, validation, alternative="direct", seed=seed)
    one = {ONE: centered_one(loaded, seed=seed)}
    chosen = replace(chosen, inverses={**chosen.inverses, **one})
    sets = reference_sets(loaded, n, "test", seed + 12)
    run = _Run(loaded, table, known, chosen, sets, seeds, steps, guidance, seed)
    run.select(References(validation.scenes[:SELECTED_ON], loaded), progress)
    _record_choices(run)
    run.closed_form()
    run.pictures(progress)
    return table.frame()


def _record_choices(run: _Run) -> None:
    """Rows that say what was chosen: threshold, copies, and the alternative by its number."""
    best = run.chosen.name
    for method, metric, value in (
        ("truncated", "threshold", float(run.chosen.truncated.settings["threshold"])),
        ("truncated", "copies", float(run.chosen.truncated.copies)),
        (best, "chosen", 1.0),
    ):
        run.add(method, metric, Interval(value, value, value, len(run.sets["one"].scenes)), 0.0)
