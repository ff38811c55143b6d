"""Measures how few passes find the winner: `python -m lab measure ranking` -> results/ranking.csv.

Scores of every candidate at every time step are computed once and kept; each rule is then replayed
on them (a test holds the replay equal to `matching.rank`). Spreads, and the rounds of Diffusion
Classifier, are chosen on validation items, accuracies are those of test items.

all         every pass: `score`
rank        `matching.rank` at several risks
rounds      Diffusion Classifier's elimination (Li et al., arXiv 2303.16203): fixed numbers of
            candidates go after fixed numbers of time steps; of all schedules of two rounds that
            take no more passes than the rank row of the same risk, the one that agrees most with
            full scoring on validation items

Shares are of the passes of all candidates; the empty prompts that `score` runs for the error term
of one image, and `rank` does not, are left out of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from typer import Option

from dsd_tutorial.attention import choose_layers, cross_attention_layers
from dsd_tutorial.matching import Spreads, accuracy, learn_spreads, paired_difference
from dsd_tutorial.matching.baselines.diffusion_classifier import Rounds, spread_order
from dsd_tutorial.matching.items import correct_of, item_pairs
from dsd_tutorial.matching.passes import Passes
from dsd_tutorial.matching.ranking import Elimination
from dsd_tutorial.matching.tally import Tally
from dsd_tutorial.shapes import make_task, task_items
from dsd_tutorial.shapes.tasks import VALIDATION_SEED, Task
from dsd_tutorial.stable_diffusion.noising import time_grid
from lab.measuring.plans import Items, Plan
from lab.measuring.runner import Cache, Item, Runner, joined, measures
from lab.measuring.tables import Row, bounds

KEYS = ("task", "reads", "rule", "risk")
COLUMNS = (
    *KEYS, "schedule", "passes", "same_winner", "accuracy", "low", "high", "n", "loss", "loss_low",
    "loss_high",
)  # fmt: skip
READS = {"attention_error": (1.0, 1.0), "error": (0.0, 1.0)}  # attention and error weight
BLOCK = 10  # items computed and saved at a time
VERSION = 1  # one more when the tensors of the cache change


class RankingPlan(Plan):
    """How many items, time steps and images, and at which risks."""

    n_items: Items = 300
    validation: Annotated[PositiveInt, Option(min=2, help="Items that spreads come from.")] = (
        100  # and schedules
    )
    steps: Annotated[PositiveInt, Option(min=2, help="Time steps.")] = 10
    risks: tuple[PositiveFloat, ...] = (0.05, 0.02, 0.01, 0.005)
    images: PositiveInt = 100  # that compete for one text
    queries: PositiveInt = 40  # such texts; as many again, of other scenes, to learn from


@dataclass
class StepScores:
    """The scores of each item's candidates by time step, kept on disk block by block."""

    model: Any
    plan: RankingPlan
    cache: Cache
    _known: dict[Any, tuple[Mapping[str, Tensor], Tensor]] = field(default_factory=dict)

    def get(
        self, task: str, split: str, reads: str
    ) -> tuple[Tensor, Tensor]:  # (items, candidates, steps), (items,)
        """Return the scores, and which candidate is right."""
        if (task, split) not in self._known:
            make = self._retrieval if task == "retrieval" else partial(self._task, task)
            self._known[task, split] = make(split)
        parts, correct = self._known[task, split]
        attention, error = READS[reads]
        names = cross_attention_layers(self.model)
        last = [names.index(name) for name in choose_layers(self.model, "last")]
        scores = attention * parts["table"][:, :, last].mean(-1)
        scores = scores + error * (parts["base"] - parts["far"])
        return scores.view(len(correct), -1, scores.shape[-1]).double(), correct

    def _task(self, task: str, split: str) -> tuple[Mapping[str, Tensor], Tensor]:
        n = self.plan.n_items if split == "test" else self.plan.validation
        seed = {} if split == "test" else {"split": split, "seed": VALIDATION_SEED}
        items = make_task(task, n, **seed)
        blocks = []
        for start in range(0, n, BLOCK):
            part = Task(items.name, items.items[start : start + BLOCK])
            key = {"task": task, "split": split, "start": start, "n": len(part.items)}
            blocks.append(self.cache.tensors(key, partial(self._compute, part)))
        return joined(blocks), correct_of(items)

    def _retrieval(self, split: str) -> tuple[Mapping[str, Tensor], Tensor]:
        """Captions of the first of the images, each against all of them."""
        n, queries = self.plan.images, self.plan.queries
        seed = {} if split == "test" else {"split": split, "seed": VALIDATION_SEED}
        items = make_task("comvg", n, **seed).items[:n]
        images = tuple(item.images[item.correct] for item in items)
        blocks = []
        for query in range(queries):
            text = items[query].texts[0]
            part = Task("retrieval", (task_items.Item(images, (text,), query, "retrieval", 0),))
            key = {"task": "retrieval", "split": split, "query": query, "images": n}
            blocks.append(self.cache.tensors(key, partial(self._compute, part)))
        return joined(blocks), torch.arange(queries)

    @torch.no_grad()
    def _compute(self, items: Task) -> dict[str, Tensor]:
        passes = Passes(
            self.model, items.images(self.model.resolution), items.texts,
            item_pairs(items).flatten(0, 1), steps=self.plan.steps, token_masks=("all",),
            errors=True,
        )  # fmt: skip
        tally = Tally(passes)
        for batch in passes.run(passes.rows()):
            tally.add(*batch)
        place, (far, base) = passes.once.place, tally.distances()
        table = tally.components()[0][place].nanmean(-1)  # (pairs, steps, layers)
        return {"table": table.contiguous(), "far": far[place], "base": base[place]}


@measures("ranking", RankingPlan, unit="rules")
def evaluate_ranking(runner: Runner, plan: RankingPlan) -> Path:
    """Return the path of ranking.csv after measuring what it lacks."""
    cache = runner.open_cache("step_scores", version=VERSION, steps=plan.steps)
    data = StepScores(runner.model, plan, cache)
    items = [
        Item(
            {"task": t, "reads": reads, "rule": "all", "risk": 0.0},
            partial(compared, data, t, reads),
        )
        for t, reads in (*product(("refcoco", "vqa"), READS), ("retrieval", "attention_error"))
    ]
    return runner.write(items, COLUMNS, KEYS)


def compared(data: StepScores, task: str, reads: str) -> list[Row]:
    """Return the rows of one task: scoring all, `rank` and rounds at each risk."""
    known, _ = data.get(task, "validation", reads)
    scores, correct = data.get(task, "test", reads)
    steps = time_grid(data.plan.steps, data.model.scheduler.config.num_train_timesteps)
    spreads = learn_spreads(known, steps)
    full = scores.mean(-1).argmax(1)
    right = (full == correct).numpy()

    def row(rule: str, risk: float, winner: Tensor, share: float, schedule: str = "") -> Row:
        hits = (winner == correct).numpy()
        reached = accuracy(hits)
        return {
            "task": task, "reads": reads, "rule": rule, "risk": risk, "schedule": schedule,
            "passes": share, "same_winner": float((winner == full).double().mean()),
            "accuracy": reached.value, "low": reached.low, "high": reached.high, "n": reached.n,
            **bounds("loss", paired_difference(right, hits)),
        }  # fmt: skip

    rows = [row("all", 0.0, full, 1.0)]
    for risk in data.plan.risks:
        winner, share = replay(scores, spreads, risk)
        keep = best_schedule(known, share)
        said = ", ".join(f"{k} after {s}" for s, k in keep.items())
        rows.append(row("rank", risk, winner, share))
        rows.append(row("rounds", risk, *rounds(scores, keep), said))
    return rows


def replay(scores: Tensor, spreads: Spreads, risk: float) -> tuple[Tensor, float]:
    """Return the winners of `rank` on known scores, and its share of the passes."""
    field, order, spent = Elimination(scores.shape[:2], risk), spreads.order(), 0
    for r in range(1, len(order) + 1):
        if not bool((who := field.open()).any()):
            break
        spent += int(who.sum())
        field.judge(scores, order[:r], spreads, who)
    return field.order()[:, 0], spent / scores.numel()


def rounds(scores: Tensor, keep: Mapping[int, int]) -> tuple[Tensor, float]:
    """Return the winners of Diffusion Classifier's elimination, and its share of the passes."""
    race, spent = Rounds(scores.shape[:2], keep), 0
    for place in spread_order(scores.shape[2]):
        going = race.alive.sum(1, keepdim=True) > 1
        spent += int((race.alive & going).sum())
        race.add(torch.where(race.alive, scores[..., place], 0.0))
    return race.scores().argmax(1), spent / scores.numel()


def best_schedule(scores: Tensor, share: float) -> dict[int, int]:
    """Return the rounds of at most this share that agree most often with scoring all."""
    _, candidates, steps = scores.shape
    few = sorted({k for k in (1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 50) if k < candidates})
    schedules = [{s: k} for s, k in product(range(1, steps), few)]
    schedules += [
        {s: k, t: j} for s, k, t, j in product(range(1, steps), few, range(2, steps), few)
        if s < t and j < k
    ]  # fmt: skip
    full, tried = scores.mean(-1).argmax(1), []
    for keep in schedules:
        winner, cost = rounds(scores, keep)
        if cost <= share + 1e-9:
            tried.append((float((winner == full).double().mean()), -cost, keep))
    return max(tried, key=lambda one: one[:2])[2]
