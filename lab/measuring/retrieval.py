"""Generation beside retrieval: `python -m lab measure retrieval` -> results/retrieval.csv.

For each text some images are drawn and the best of a gallery is found; the matching score decides
between the two, and the judge says which are right. Half of the texts have a right image in the
gallery. The offset of the decision is learned on validation texts.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from pydantic import PositiveInt
from torch import Tensor
from typer import Option

from dsd_tutorial.matching import (
    Spreads,
    accuracy,
    components,
    item_scores,
    learn_spreads,
    paired_difference,
)
from dsd_tutorial.retrieval import Gallery, best_offset, draw_and_find, make_gallery, right_images
from dsd_tutorial.retrieval.deciding import SCORE
from lab.measuring.plans import Plan, Seed
from lab.measuring.runner import Item, Runner, joined, measures
from lab.measuring.tables import Row, bounds

KEYS = ("answer", "texts")
COLUMNS = (
    *KEYS, "value", "low", "high", "n", "gain", "gain_low", "gain_high", "drawn_share", "offset",
    "passes",
)  # fmt: skip
WAYS = ("first", "drawn", "found", "decided_plain", "decided", "either")
PART = 25  # texts that are answered, and kept on disk, at once
RIVALS = {"validation": 16, "candidates": 40}  # texts and candidates that spreads come from


class RetrievalPlan(Plan):
    """How many texts, and what is drawn and found for each."""

    n: Annotated[PositiveInt, Option(min=2, help="Test texts.")] = 100  # `texts` to a gallery
    validation: Annotated[PositiveInt, Option(min=2, help="Texts the offset comes from.")] = 50
    texts: PositiveInt = 100  # a multiple of 25
    gallery: PositiveInt = 200
    images: PositiveInt = 3  # drawn for each text
    sampling_steps: PositiveInt = 12
    steps: PositiveInt = 4  # time steps of the score
    seed: Seed = 0


class Data:
    """What was drawn and found, a few texts at a time, kept on disk."""

    def __init__(self, runner: Runner, plan: RetrievalPlan):
        self.model, self.plan, self.part = runner.model, plan, min(PART, plan.texts)
        how = plan.model_dump(exclude={"n", "validation"})  # more texts go on with the same
        self.cache = runner.open_cache("drawn_and_found", version=1, **how)

    def spreads(self) -> Spreads:
        """Return what `rank` needs to know, from validation texts and some of their gallery."""
        texts = min(RIVALS["validation"], self.plan.texts)
        gallery = self.gallery("validation", 0)
        few = torch.arange(min(RIVALS["candidates"], len(gallery.scenes)))
        pairs = torch.cartesian_prod(torch.arange(texts), few).flip(1)

        def compute() -> dict[str, Tensor]:
            parts = components(
                self.model, gallery.images(self.model.resolution), gallery.texts, pairs,
                steps=self.plan.steps, errors=True, progress=False,
            )  # fmt: skip
            return {
                "scores": item_scores(parts, len(few), **SCORE).contiguous(),
                "steps": torch.tensor(parts.steps),
            }

        kept = self.cache.tensors({"what": "spreads"}, compute)
        return learn_spreads(kept["scores"], tuple(kept["steps"].tolist()))

    def gallery(self, split: str, number: int) -> Gallery:
        """Return one gallery with its texts."""
        return make_gallery(self.plan.texts, self.plan.gallery, split, self.plan.seed + number)

    def answers(self, split: str, count: int) -> dict[str, Tensor]:
        """Return for `count` texts what is right, the leads, whether answered, and the passes."""
        parts = []
        for first in range(0, count, self.part):
            number, start = divmod(first, self.plan.texts)
            key = {"split": split, "gallery": number, "start": start, "part": self.part}
            parts.append(self.cache.tensors(key, partial(self._compute, split, number, start)))
        found = joined(parts)
        passes = found.pop("passes").view(-1, 3).sum(0)
        passes = passes / len(found["lead"])  # of a text: draw, judge, find
        return {name: x[:count] for name, x in found.items()} | {"passes": passes}

    def _compute(self, split: str, number: int, start: int) -> dict[str, Tensor]:
        gallery = self.gallery(split, number)
        rows = slice(start, start + self.part)
        texts, images = gallery.texts[rows], gallery.images(self.model.resolution)
        plan = self.plan
        found = draw_and_find(
            self.model, texts, images, n=plan.images, sampling_steps=plan.sampling_steps,
            steps=plan.steps, spreads=self.spreads(), seed=1000 * number + start, progress=False,
        )  # fmt: skip
        return {
            "first": right_images(found.first, texts),
            "drawn": right_images(found.drawn, texts),
            "found": right_images(images[found.found], texts),
            "lead": found.lead,
            "answered": torch.tensor(gallery.answered[rows]),
            "passes": torch.tensor([found.passes[x] for x in ("draw", "judge", "find")]).float(),
        }


@measures("retrieval", RetrievalPlan, unit="texts")
def evaluate_retrieval(runner: Runner, plan: RetrievalPlan) -> Path:
    """Return the path of retrieval.csv after measuring what it lacks."""
    data, count = Data(runner, plan), plan.n + plan.validation
    key = {"answer": WAYS[0], "texts": "all"}
    return runner.write([Item(key, partial(measured, data, plan), count)], COLUMNS, KEYS)


def measured(data: Data, plan: RetrievalPlan) -> list[Row]:
    """Return all rows: each way to answer, for all texts, and with and without a right image."""
    known, test = data.answers("validation", plan.validation), data.answers("test", plan.n)
    offset = best_offset(known["lead"], known["drawn"], known["found"])
    takes = {"decided_plain": test["lead"] > 0, "decided": test["lead"] > offset}
    right = {name: test[name] for name in ("first", "drawn", "found")}
    right |= {name: torch.where(x, test["drawn"], test["found"]) for name, x in takes.items()}
    right["either"] = test["drawn"] | test["found"]  # who always chose rightly would reach this
    draw, judge, find = test["passes"].tolist()
    passes = {"first": draw / plan.images, "drawn": draw + judge, "found": find}
    parts = {"all": torch.ones_like(test["answered"]), "in_gallery": test["answered"],
             "not_in_gallery": ~test["answered"]}  # fmt: skip
    rows = []
    for name in WAYS:
        for part, which in parts.items():
            gain = paired_difference(right[name][which].float(), right["drawn"][which].float())
            share = takes.get(name, torch.full_like(which, name in ("first", "drawn")))
            rows.append({
                "answer": name, "texts": part, **bounds("gain", gain),
                **accuracy(right[name][which].float()).as_dict(),
                "drawn_share": None if name == "either" else float(share[which].float().mean()),
                "offset": {"decided": offset, "decided_plain": 0.0}.get(name),
                "passes": passes.get(name, draw + judge + find),
            })  # fmt: skip
    return rows
