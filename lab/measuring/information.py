"""Measures information maps: `python -m lab measure information` -> results/information.csv.

Each row is a mean over test items with its 95 % interval. By `part`:

nats      what a caption, or one of its words, says; `known` is what it can say in this world
agree     i_s minus i_o on the same items, which an ideal denoiser makes zero in the mean
levels    the integrand at each log-SNR (`metric`)
below     i_s, i_o and their difference by the levels up to a log-SNR (`metric`) alone
tail      what lies outside the levels, by the integrand at their ends, and in pure noise alone
map       pointing game and IoU of maps against exact masks; `gap` rows are i_o minus attention
matching  accuracy on the four tasks with i_s, i_o and DSD's error term of the same passes

Which map is read (the word taken out or exchanged, which levels; which layers and time steps for
attention) is chosen on validation items.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from typer import Option

from dsd_tutorial.attention import area_iou, choose_layers, pointing_game
from dsd_tutorial.information import Information, information_scores, level_grid
from dsd_tutorial.matching import accuracy, paired_difference
from dsd_tutorial.matching.items import item_hits
from dsd_tutorial.matching.metrics import Interval
from dsd_tutorial.shapes import TASKS, make_task
from dsd_tutorial.stable_diffusion.noising import time_grid
from lab.measuring.information_words import (
    CLASSES,
    CONTRASTS,
    GROUPS,
    MORE,
    VERSION,
    WordData,
    word_items,
)
from lab.measuring.plans import Plan
from lab.measuring.runner import Item, Runner, measures
from lab.measuring.tables import Row

KEYS = ("part", "what", "method", "metric")
COLUMNS = (*KEYS, "value", "low", "high", "n", "known", "passes", "chosen")
KINDS = ("orthogonal", "standard")
GAP = "standard - orthogonal"
ALL, UNSAID = "caption, all", "unsaid, every shape"
PARTS = ("nats", "unsaid", "map", "matching")  # measured one after another
METRICS = {"pointing": pointing_game, "iou": area_iou}
STEPS = time_grid(6)  # of a score: those of the error term in the few-shot table


class InformationPlan(Plan):
    """How many items and levels."""

    n: Annotated[PositiveInt, Option(min=2, help="Test scenes of nats and maps.")] = 200
    validation: Annotated[PositiveInt, Option(min=2, help="Scenes on which maps are chosen.")] = 60
    levels: Annotated[PositiveInt, Option(min=3, help="Levels of log-SNR.")] = 10
    low: float = -9.0
    high: float = 7.0
    matching: Annotated[PositiveInt, Option(min=2, help="Test items of each task.")] = 300
    tasks: tuple[Literal[TASKS], ...] = Field(TASKS, exclude=True)
    parts: Annotated[
        tuple[Literal[PARTS], ...], Option("--part", help="nats, unsaid, map or matching.")
    ] = Field(PARTS, exclude=True)


@measures("information", InformationPlan, unit="passes")
def evaluate_information(runner: Runner, plan: InformationPlan) -> Path:
    """Return the path of information.csv after measuring what it lacks."""
    words = Words(runner, plan)
    each = plan.levels * (1 + len(CONTRASTS))  # the caption, and what it is held against
    more = each * plan.validation + words.test.passes * (plan.n + plan.validation)
    unsaid = plan.levels * (1 + len(MORE)) * plan.n
    items = {
        "nats": [Item(_key("nats", ALL, "orthogonal", "nats"), words.nats, each * plan.n)],
        "unsaid": [Item(_key("nats", UNSAID, "orthogonal", "nats"), words.unsaid, unsaid)],
        "map": [Item(_key("map", CLASSES[0], "orthogonal", "pointing"), words.maps, more)],
        "matching": [],
    }
    for task in plan.tasks:
        images, texts = make_task(task, 1).shape
        passes = len(STEPS) * images * (texts + 1) * plan.matching
        key = _key("matching", task, "orthogonal", "accuracy")
        found = partial(matching, runner.model, task, plan.matching)
        items["matching"].append(Item(key, found, passes))
    return runner.write([item for part in plan.parts for item in items[part]], COLUMNS, KEYS)


def _key(part: str, what: str, method: str, metric: str) -> Row:
    return {"part": part, "what": what, "method": method, "metric": metric}


def _row(key: Row, found: Interval, passes: int, known: float | str = "", chosen: str = "") -> Row:
    return key | found.as_dict() | {"known": known, "passes": passes, "chosen": chosen}


class Words:
    """What is measured on scenes whose words are taken out or exchanged."""

    def __init__(self, runner: Runner, plan: InformationPlan):
        self.model, self.plan = runner.model, plan
        self.grid = level_grid(runner.model, plan.levels, low=plan.low, high=plan.high)

        # other numbers of items begin with the same blocks, hence a cache of its own
        cache = runner.open_cache("words", version=VERSION)

        def data(n: int, split: str) -> WordData:
            items = word_items(n, split)
            return WordData(self.model, items, self.grid, cache, runner.options.progress)

        self.test, self.validation = data(plan.n, "test"), data(plan.validation, "validation")

    def nats(self) -> list[Row]:
        """Return the rows of totals, their agreement, levels and tails."""
        rows, data = self._totals(self.test.found), self.test
        for kind in KINDS:
            whole = data.found["caption", "all"].by_level(kind)
            for a, said in zip(self.grid.log_snr.tolist(), whole.T, strict=True):
                key = _key("levels", ALL, kind, f"{a:.2f}")
                rows.append(_row(key, _mean(said), data.passes))
        return rows + list(self._pure_noise())

    def unsaid(self) -> list[Row]:
        """Return the rows of totals where all colours, or all shapes, are left out together."""
        return self._totals(self.test.unsaid)

    def _totals(self, contrasts: dict[tuple[str, str], Information]) -> list[Row]:
        rows = []
        for (how, what), found in contrasts.items():
            name, passes = f"{how}, {what}", self.test.passes
            known = _known(self.test, what) if how in ("removed", "unsaid", "caption") else ""
            for kind in KINDS:
                key = _key("nats", name, kind, "nats")
                rows.append(_row(key, _mean(found.total(kind)), passes, known))
                for end, tail in zip(("below", "above"), found.tails(kind).T, strict=True):
                    rows.append(_row(_key("tail", name, kind, end), _mean(tail), passes))
            gap = paired_difference(found.total("standard"), found.total("orthogonal"))
            rows.append(_row(_key("agree", name, GAP, "nats"), gap, passes))
            for a in self.grid.log_snr.sort().values.tolist()[1:]:
                part = found.at(self.grid.between(high=a))
                nats = {kind: part.total(kind) for kind in KINDS}
                means = {kind: _mean(nats[kind]) for kind in KINDS}
                means[GAP] = paired_difference(nats["standard"], nats["orthogonal"])
                rows += [
                    _row(_key("below", name, method, f"{a:.2f}"), mean, passes)
                    for method, mean in means.items()
                ]
        return rows

    def _pure_noise(self) -> Iterator[Row]:
        """Yield what lies below the grid, read from the last step, where nothing of x is seen."""
        if self.model.prediction_type == "v_prediction":
            lost = pure_noise_tail(self.model, self.test, float(self.grid.log_snr.min()))
            key = _key("tail", ALL, "orthogonal", "below, from pure noise")
            yield _row(key, _mean(lost), 2)

    def maps(self) -> list[Row]:
        """Return how well maps find their masks, and how much better i_o is than attention."""
        rows = []
        for kind in CLASSES:
            hits = {}
            for method in (*KINDS, "attention"):
                ways = {"attention": self._attention}.get(method, partial(self._maps, method))
                ranked = {name: _scores(self.validation, kind, m)["iou"].mean()
                          for name, m in ways(self.validation, kind)}  # fmt: skip
                best = max(ranked, key=ranked.__getitem__)
                heat = dict(ways(self.test, kind))[best]
                hits[method] = _scores(self.test, kind, heat)
                for metric, got in hits[method].items():
                    found = accuracy(got, "wilson" if metric == "pointing" else "bootstrap")
                    key = _key("map", kind, method, metric)
                    rows.append(_row(key, found, self.test.passes, chosen=best))
            for metric in METRICS:
                gap = paired_difference(hits["orthogonal"][metric], hits["attention"][metric])
                key = _key("gap", kind, "orthogonal - attention", metric)
                rows.append(_row(key, gap, self.test.passes))
                blind = _mean(_blind(self.test, kind, metric))
                rows.append(_row(_key("map", kind, "blind", metric), blind, 0))
        return rows

    def _maps(self, method: str, data: WordData, kind: str) -> Iterator[tuple[str, Tensor]]:
        """Yield maps of every way: the word out or exchanged, all levels or a part of them."""
        third = torch.arange(len(self.grid)).chunk(3)
        parts = {"all": slice(None), "little noise": third[0], "middle": third[1], "much": third[2]}
        for how, (name, levels) in product(("removed", "exchanged"), parts.items()):
            by_level = getattr(data.found[how, kind], method)[:, levels].double()
            weights = self.grid.weights[levels]
            yield f"{how}, {name}", torch.einsum("nlhw,l->nhw", by_level, weights).float()

    def _attention(self, data: WordData, kind: str) -> Iterator[tuple[str, Tensor]]:
        """Yield heat maps of every way: some layers, all time steps or a third of them."""
        heat, names = data.heat[:, CLASSES.index(kind)], list(choose_layers(self.model, None))
        paths = {"all": names, **{n: [n] for n in names}, "up": [n for n in names if "up" in n]}
        groups = {"all": list(range(GROUPS)), "early": [0], "middle": [1], "late": [2]}
        for (path, layers), (when, group) in product(paths.items(), groups.items()):
            if layers:
                chosen = heat[:, group][:, :, [names.index(name) for name in layers]]
                yield f"{path}, {when}", chosen.mean((1, 2))


def _scores(data: WordData, kind: str, heat: Tensor) -> dict[str, Tensor]:
    """Return what each item's map gets by each metric."""
    masks = [item.mask(kind, m) for item, m in zip(data.items, data.masks, strict=True)]
    return {
        metric: torch.tensor([float(get(h, m)) for h, m in zip(heat, masks, strict=True)])
        for metric, get in METRICS.items()
    }


def _blind(data: WordData, kind: str, metric: str) -> Tensor:
    """Return what pointing, or choosing as many pixels, without looking gets in the mean."""
    masks = zip(data.items, data.masks, strict=True)
    share = torch.stack([item.mask(kind, m).float().mean() for item, m in masks])
    return share if metric == "pointing" else share / (2 - share)


def _mean(values: Tensor) -> Interval:
    """Return the mean of any numbers with its bootstrap interval."""
    return paired_difference(values, torch.zeros(len(values)))


def _known(data: WordData, what: str) -> float:
    """Return what the words of a class can say, the mean over the items."""
    return sum(item.known[what] for item in data.items) / len(data.items)


@torch.no_grad()
def pure_noise_tail(model: Any, data: WordData, low: float) -> Tensor:
    """Return the nats of i_o below `low`, by what the text changes where there is noise alone.

    A model that predicts v answers -x_hat there, and the integral of exp(a) / 2 |x_hat(y) -
    x_hat|^2 over all a below `low` is exp(low) / 2 |...|^2.
    """
    last = model.scheduler.config.num_train_timesteps - 1
    texts = [item.caption for item in data.items]
    noise = torch.randn(len(texts), *model.latent_shape, generator=torch.Generator().manual_seed(0))
    found = []
    for part in torch.arange(len(texts)).split(32):
        z = noise[part].to(model.device)
        context = model.encode_text([texts[i] for i in part] + [""] * len(part))
        v = model.unet(z.repeat(2, 1, 1, 1), last, context).sample.float()
        gap = (v[: len(part)] - v[len(part) :]).flatten(1).square().sum(1)
        found.append(gap.cpu() * float(torch.tensor(low).exp()) / 2)
    return torch.cat(found)


def matching(model: Any, task: str, n: int) -> list[Row]:
    """Return the accuracy of i_o, i_s and the error term of the same passes; nothing is chosen."""
    items, rows = make_task(task, n), []
    images, texts = items.shape
    scores = information_scores(model, items, levels=STEPS, progress=False)
    hits = {method: item_hits(items, got) for method, got in scores.items()}
    for method, hit in hits.items():
        passes = len(STEPS) * images * (texts + 1)
        rows.append(_row(_key("matching", task, method, "accuracy"), accuracy(hit), passes))
        if method != "error":
            gap = paired_difference(hit, hits["error"])
            rows.append(_row(_key("matching", task, f"{method} - error", "accuracy"), gap, passes))
    return rows
