"""Measures closed-form projection: `python -m lab measure projection` -> results/projection.csv.

Inverses are fitted on scenes of the train split; the threshold is chosen on the validation split by
cosine, the alternative by images; all other rows are measured on the test split. All methods draw
from the same noise, so rows can be compared image by image.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property, partial
from timeit import timeit
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dsd_tutorial.course.records import recorded_alternative
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
from lab.measuring.plans import Plan, ReferenceCount, Seed, Seeds, Steps
from lab.measuring.runner import Item, Runner, measures
from lab.measuring.tables import Row

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("method", "metric", "value", "low", "high", "n", "milliseconds")
SINGLE = ("count", "shape", "color", "objects", "background", "size", "position")
# what is drawn: set of references -> (attributes that are judged, prefix of the metric)
JUDGED = {
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


class ProjectionPlan(Plan):
    """How many references, variations and denoising steps."""

    n: ReferenceCount = 100
    seeds: Seeds = 3
    steps: Steps = 20
    guidance: float | None = None
    seed: Seed = 0


@measures("projection", ProjectionPlan)
@torch.no_grad()
def evaluate_projection(runner: Runner, plan: ProjectionPlan) -> pd.DataFrame:
    """Return the table results/projection.csv after measuring what it lacks.

    One row per (method, metric): value with its 95 % interval over `n` references, milliseconds per
    image (of the conversion for cosine and retrieval, of sampling for the rest). `n` references
    of one object, n // 4 of two and of stripes, each varied from `seeds` noises (bounds that show
    nothing new with more: one).

    Raises ValueError for n < 4 or seeds < 1, PenultimateLayerError for SD 2.x.
    """
    n, seed = plan.n, plan.seed
    table = runner.table(COLUMNS, ("method", "metric"))
    known, chosen, validation = fit_inverses(runner, n, max(200, 15 * n), seed, "direct")
    chosen = replace(
        chosen, inverses={**chosen.inverses, ONE: centered_one(runner.model, seed=seed)}
    )
    sets = reference_sets(runner.model, n, "test", seed + 12)
    ours = Projection(runner.model, plan, known, chosen, sets)
    runner.run(ours.alternatives(References(validation.scenes[:SELECTED_ON], runner.model)), table)
    frame = table.frame()
    found = frame[frame.metric == VALIDATION].set_index("method").value
    best = max(ALTERNATIVES, key=lambda name: float(found[name]))
    ours = replace(ours, chosen=replace(chosen, alternative=chosen.inverses[best], name=best))
    table.add(ours.choices())
    runner.run([*ours.conversions(), *ours.variations()], table)
    return table.frame()


def fit_inverses(
    runner: Runner, n: int, pairs: int, seed: int, alternative: str | None = None
) -> tuple[Calibration, Chosen, References]:
    """Return what is fitted on train scenes and chosen on `n` validation references.

    `alternative` None is the one that results/projection.csv says was chosen by images.
    """
    model, progress = runner.model, runner.options.progress
    known = calibrate(model, seed=seed, progress=progress)
    trained = collect_pairs(model, n=pairs, seed=seed + 1, progress=progress)
    validation = reference_sets(model, n, "validation", seed + 2)["one"]
    alternative = alternative or recorded_alternative(model)
    chosen = choose_inverses(model, known, trained, validation, alternative=alternative, seed=seed)
    return known, chosen, validation


def rows_of(method: str, metric: str, values: Any, milliseconds: float) -> list[Row]:
    """Return one row: an `Interval`, or the mean over references with its interval.

    Wilson for shares, else bootstrap. Without a single number there is no row.
    """
    if isinstance(values, Tensor):
        values = values[~values.isnan()]
        if not len(values):
            return []
        share = bool(((values >= 0) & (values <= 1)).all()) and metric not in CONTINUOUS
        values = accuracy(values, "wilson" if share else "bootstrap")
    row = {"method": method, "metric": metric, "milliseconds": float(milliseconds)}
    return [row | values.as_dict()]


@dataclass
class Projection:
    """The model, what was fitted, and the references: makes the items of the table."""

    model: Any
    plan: ProjectionPlan
    known: Calibration
    chosen: Chosen
    sets: dict[str, References]

    def alternatives(self, validation: References) -> list[Item]:
        """Return what the alternative is chosen by: how often each keeps colour and shape.

        The cosine to the true EOS state does not tell (results/projection.csv has both). The last
        one is for comparison: it knows that one object is shown.
        """

        def measure(name: str) -> list[Row]:
            images, elapsed = self.draw(name, validation, 1)
            kept = fidelity(images, validation.scenes)["objects"]
            return rows_of(name, VALIDATION, kept, elapsed)

        count = len(validation.scenes)
        return [
            Item({"method": name, "metric": VALIDATION}, partial(measure, name), count)
            for name in (*ALTERNATIVES, ONE)
        ]

    def choices(self) -> list[Row]:
        """Return rows that say what was chosen: threshold, copies, and the alternative by a 1."""
        truncated, found = self.chosen.truncated, []
        for method, metric, value in (
            ("truncated", "threshold", float(truncated.settings["threshold"])),
            ("truncated", "copies", float(truncated.copies)),
            (self.chosen.name, "chosen", 1.0),
        ):
            same = Interval(value, value, value, len(self.sets["one"].scenes))
            found += rows_of(method, metric, same, 0.0)
        return found

    def conversions(self) -> list[Item]:
        """Return cosine to the true EOS state and retrieval, before inversion and after."""
        everything = self.sets["one"].scenes + self.sets["two"].scenes
        named = {full_description(s).text(): s for s in everything}  # every full caption once
        references = References(list(named.values()), self.model)
        weight = self.model.clip.text_projection.weight
        captions = F.normalize(eos_states(self.model, list(named)) @ weight.T, dim=-1)

        def retrieved(method: str, embeddings: Tensor, elapsed: float) -> list[Row]:
            table = F.normalize(embeddings, dim=-1) @ captions.T
            return rows_of(method, "retrieval_r1", recall_at_k(table), elapsed)

        def measure(method: str, inverse: Inverse) -> list[Row]:
            elapsed = conversion_time(inverse, references)
            rows = retrieved(method, inverse(references.clip_images) @ weight.T, elapsed)
            return rows + rows_of(method, "cosine", cosines(inverse, references), elapsed)

        before = Item(
            {"method": "clip", "metric": "retrieval_r1"},
            lambda: retrieved("clip", references.clip_images.embedding, 0.0), 0,
        )  # fmt: skip
        return [before] + [
            Item({"method": name, "metric": "cosine"}, partial(measure, name, inverse), 0)
            for name, inverse in self.inverses.items()
        ]

    def variations(self) -> list[Item]:
        """Return everything that is drawn and judged.

        Among references of one object the alternative has its rows under its own name as well.
        """
        items = []
        for name, (attributes, prefix) in JUDGED.items():
            for method in DRAWN if name == "one" else EVERY_SET:
                if name == "one" and method == self.chosen.name:
                    continue
                seeds = 1 if method in ONE_SEED else self.plan.seeds
                key = {"method": method, "metric": prefix + attributes[0]}
                cost = seeds * len(self.sets[name].scenes)
                items.append(Item(key, partial(self._varied, name, method, seeds), cost))
        return items

    def _varied(self, name: str, method: str, seeds: int) -> list[Row]:
        references, (attributes, prefix) = self.sets[name], JUDGED[name]
        images, elapsed = self.draw(method, references, seeds)
        found = fidelity(images, references.scenes)
        metrics = {prefix + attribute: found[attribute] for attribute in reversed(attributes)}
        if name == "one" and seeds > 1:
            metrics = {"diversity": diversity(images), **metrics}
        both = name == "one" and method == "alternative"
        titles = [method, self.chosen.name] if both else [method]
        return [
            row for title in titles for metric, values in metrics.items()
            for row in rows_of(title, metric, values, elapsed)
        ]  # fmt: skip

    def draw(self, method: str, references: References, seeds: int) -> tuple[Tensor, float]:
        """Return images (references, seeds, 3, height, width), and milliseconds for each."""
        prompts, start = self.prompts(method, references), time.perf_counter()
        drawn = [
            self.model.sample(
                embeddings=prompts, steps=self.plan.steps, guidance=self.plan.guidance,
                seed=self.plan.seed + 10_000 * number, progress=False,
            ).cpu()
            for number in range(seeds)
        ]  # fmt: skip
        elapsed = 1000 * (time.perf_counter() - start) / (len(prompts) * seeds)
        return torch.stack(drawn, 1), elapsed

    @cached_property
    def inverses(self) -> dict[str, Inverse]:
        """Return every inverse by the name of its rows."""
        return {
            **self.chosen.inverses,
            "no_threshold": fit_inverse(
                self.model, threshold=None, calibration=self.known, progress=False
            ),
            "untrained": fit_random(self.model, self.plan.seed, self.known),
            "truncated": self.chosen.truncated,
            "alternative": self.chosen.alternative,
        }

    def prompts(self, method: str, references: References) -> Tensor:
        """Return the prompts (references, tokens, states) of one method or bound."""
        usual, own = self.chosen.truncated, self.chosen.inverses
        if method == "caption":
            return self.model.encode_text(references.captions)
        if method == "true_eos":
            states = references.states
        elif method == "mean_text":
            mean = self.known.length * F.normalize(self.known.mean, dim=-1)
            states = mean.float()[None].expand(len(references.scenes), -1)
        else:
            states = self.inverses.get(method, usual)(references.clip_images)
        if method == "another_image":
            states = states.roll(1, 0)
        copies = "all" if method == "all_copies" else usual.copies
        if method in own and method != "truncated":
            copies = own[method].copies
        return states_to_prompt(self.model, states, copies=copies)


def conversion_time(inverse: Inverse, references: References) -> float:
    """Return milliseconds to turn CLIP's answer for one image into a text state."""
    rows = getattr(references.clip_images, inverse.reads)[:1]
    inverse(rows)
    return 1000 * timeit(lambda: inverse(rows), number=20) / 20
