"""Customising one reference (SD-IPC-CT), measured: fidelity against steps, from every start.

All ways see the same images, time steps and noises, and their variations are drawn from the same
noise, so that they are compared reference by reference. Learning rates, and alpha for edits, are
chosen on references of the validation split. An edit takes off what CLIP says the reference shows,
and adds what is requested (`variation.edit_prompt`: source_prompt).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.customization import Tuned, customize, references, textual_inversion, words
from dsd_tutorial.projection.references import Chosen
from dsd_tutorial.shapes import Scene, render
from dsd_tutorial.shapes.judge import judge
from dsd_tutorial.variation import nearest_text
from dsd_tutorial.variation.edit_items import make_edits
from lab.measuring.custom_domains import drawn, merit, shares
from lab.measuring.runner import Item
from lab.measuring.tables import Row

STEPS = 30  # "about 30": where ways are compared
PACES = (1.0, 2.5)  # times the usual learning rate
RIVALS = ("closed_form", "random", "text")
ALPHAS = (0.5, 1.0, 1.5, 2.5)


@dataclass(frozen=True)
class Way:
    """One way to customise: from where, what is tuned, which steps are measured, edits or not."""

    start: str
    at: tuple[int, ...] = (0, 10, STEPS)
    what: str = "prompt"
    inverse: str = "truncated"
    edits: tuple[int, ...] = (STEPS,)

    @property
    def is_word(self) -> bool:
        """Return whether a token embedding is learned, as in Textual Inversion."""
        return self.start in ("word", "random_word")


WAYS = {
    "closed_form": Way("closed_form", (0, 10, STEPS, 100), edits=(0, STEPS)),
    "random": Way("random", (0, 10, STEPS, 100), edits=()),
    "text": Way("text", (0, 10, STEPS, 100), edits=()),
    "alternative": Way("closed_form", inverse="alternative"),
    "closed_form_kv": Way("closed_form", (10, STEPS), "prompt_kv"),
    "word": Way("word"),
    "random_word": Way("random_word", edits=()),
}


@dataclass(frozen=True, eq=False)
class ReferenceTuning:
    """References of the test split and of the validation split, and how they are drawn."""

    model: Any
    plan: Any  # a `CustomizationPlan`
    table: Any  # where what was chosen can be read again
    chosen: Chosen
    test: Sequence[Scene]
    validation: Sequence[Scene]

    def items(self, name: str) -> list[Item]:
        """Return the choices of one way, and its measurement; costs count references."""
        key = {"method": name, "metric": "lr_chosen", "steps": STEPS}
        last = {"method": name, "metric": "peak_memory_mib", "steps": max(WAYS[name].at)}
        return [
            Item(key, partial(self._choose, name), len(PACES) * len(self.validation)),
            Item(last, partial(self._measure, name), len(self.test)),
        ]

    def comparisons(self, name: str) -> Iterator[tuple[Row, tuple, tuple]]:
        """Yield paired differences, reference by reference; above 0 is better.

        difference_to_start, of fidelity: to the same way before tuning; _to_untuned: to the closed
        form itself; _to_closed_form, _to_random, _to_text: to these after as many steps.
        error_below_..., of the error on noises that tuning has not seen: how far below theirs.
        """
        start = "closed_form" if name == "closed_form_kv" else name
        for step in WAYS[name].at:
            rivals = {rival: (rival, step) for rival in RIVALS}
            if step > 0:
                rivals |= {"start": (start, 0), "untuned": ("closed_form", 0)}
            for word, (rival, at) in rivals.items():
                if (rival, at) != (name, step):
                    about = {"method": name, "steps": step}
                    ours, theirs = (name, "fidelity", step), (rival, "fidelity", at)
                    yield about | {"metric": f"difference_to_{word}"}, ours, theirs
                    ours, theirs = (name, "error", step), (rival, "error", at)
                    yield about | {"metric": f"error_below_{word}"}, theirs, ours

    def tune(
        self, way: Way, scenes: Sequence[Scene], lr: float, at: tuple[int, ...]
    ) -> list[Tuned]:
        """Return one `Tuned` per reference."""
        images = render(list(scenes), self.model.resolution)[0]
        how = {
            "steps": max(at), "lr": lr, "batch_size": self.plan.batch, "at": at,
            "check_every": max(1, max(at)), "progress": False,
        }  # fmt: skip
        found = []
        for i, (image, scene) in enumerate(zip(images, scenes, strict=True)):
            shape, seed = scene.things[0].shape, self.plan.seed + i
            if way.is_word:
                word = shape if way.start == "word" else None
                tuned = textual_inversion(self.model, image[None], word=word, seed=seed, **how)
            else:
                tuned = customize(
                    self.model, image[None], start=way.start, text=f"a {shape}", what=way.what,
                    inverse=getattr(self.chosen, way.inverse), seed=seed, **how,
                )  # fmt: skip
            found.append(tuned)
        return found

    def draw(self, tuned: Sequence[Tuned], prompts: Sequence[Tensor], seeds: int) -> Tensor:
        """Return images (references, seeds, 3, height, width) of one prompt for each reference."""
        first = self.plan.seed + 50_000
        if not any("lora" in one.module for one in tuned):
            return drawn(self.model, self.plan, torch.cat(list(prompts)), seeds, first)
        images = []  # a U-Net of its own for each reference
        for i, (one, prompt) in enumerate(zip(tuned, prompts, strict=True)):
            with one.applied(self.model):
                images.append(drawn(self.model, self.plan, prompt, seeds, first + i * seeds))
        return torch.cat(images)

    def varied(
        self, tuned: Sequence[Tuned], scenes: Sequence[Scene], seeds: int
    ) -> dict[str, list[float]]:
        """Return what variations keep, see `shares`."""
        with torch.no_grad():
            prompts = [one.prompt(self.model) for one in tuned]
        return shares(self.draw(tuned, prompts, seeds), list(scenes))

    def edited(
        self, tuned: Sequence[Tuned], scenes: Sequence[Scene], seeds: int, alpha: float
    ) -> Tensor:
        """Return (3, references): another colour is requested; changed, the rest kept, both."""
        edits = [edit for edit in make_edits(scenes, self.plan.seed) if edit.kind == "color"]
        images = render(list(scenes), self.model.resolution)[0]
        old = nearest_text(self.model, images, edits[0].values)  # every colour: the same for all
        with torch.no_grad():
            prompts = [
                one.prompt(self.model, edit.text, alpha=alpha, source_prompt=text)
                for one, edit, text in zip(tuned, edits, old, strict=True)
            ]
        verdicts = iter(judge(self.draw(tuned, prompts, seeds).flatten(0, 1)))
        rows = torch.tensor(
            [[edit.judged(next(verdicts)) for _ in range(seeds)] for edit in edits]
        ).double()  # (references, seeds, 2)
        both = rows.prod(-1)
        return torch.stack([rows[..., 0].mean(1), rows[..., 1].mean(1), both.mean(1)])

    def rates(self, way: Way) -> list[float]:
        """Return the learning rates that are tried, around the usual one."""
        if way.is_word:
            table = self.model.text_encoder.get_input_embeddings().weight
            usual = words.PACE * float(table.float().square().mean().sqrt())
        else:
            inverse = getattr(self.chosen, way.inverse)
            usual = references.PACE * inverse.length / inverse.matrix.shape[0] ** 0.5
        return [pace * usual for pace in PACES]

    def _choose(self, name: str) -> list[Row]:
        """Return the scores of all learning rates on validation, the best one, and each alpha."""
        way, rows, tried = WAYS[name], [], []
        about = {"method": name, "steps": STEPS}
        for pace, lr in zip(PACES, self.rates(way), strict=True):
            tuned = self.tune(way, self.validation, lr, tuple({0, STEPS}))
            found = merit(self.varied([t.at(STEPS) for t in tuned], self.validation, 2))
            rows.append(about | {"metric": f"validation_at_{pace:g}_of_lr", "value": found})
            tried.append((found, -pace, lr, tuned))
        _, _, lr, tuned = max(tried, key=lambda row: row[:2])
        for step in way.edits:
            states, grid = [t.at(step) for t in tuned], (0.0,) if way.is_word else ALPHAS
            joint = [float(self.edited(states, self.validation, 1, a)[2].mean()) for a in grid]
            alpha = grid[joint.index(max(joint))]
            rows.append({"method": name, "metric": "alpha_chosen", "steps": step, "value": alpha})
        return [*rows, about | {"metric": "lr_chosen", "value": lr}]

    def _measure(self, name: str) -> list[Row]:
        """Return the rows of one way on all test references, and what it cost."""
        way, rows = WAYS[name], []
        written = self.table.number(name, "lr_chosen", STEPS)  # to six digits
        lr = min(self.rates(way), key=lambda rate: abs(rate - written))
        tuned = self.tune(way, self.test, lr, tuple({0, *way.at, *way.edits}))
        size = tuned[0].parameters
        for step in way.at:
            seconds = sum(_row(one, step)["seconds"] for one in tuned) / len(tuned)
            found = self.varied([t.at(step) for t in tuned], self.test, self.plan.seeds)
            found["error"] = torch.tensor([_row(one, step)["checked"] for one in tuned]).tolist()
            about = {"method": name, "steps": step, "seconds": seconds, "parameters": size}
            rows += [about | {"metric": metric, "values": v} for metric, v in found.items()]
        for step in way.edits:
            alpha = self.table.number(name, "alpha_chosen", step)
            parts = self.edited([t.at(step) for t in tuned], self.test, self.plan.seeds, alpha)
            about = {"method": name, "steps": step, "parameters": size}
            for metric, values in zip(("changed", "kept", "joint"), parts, strict=True):
                rows.append(about | {"metric": f"edit_{metric}", "values": values.tolist()})
        peak = float(max(one.peak_memory for one in tuned) / 2**20)
        about = {"method": name, "steps": max(way.at), "parameters": size}
        return [*rows, about | {"metric": "peak_memory_mib", "value": peak}]


def _row(tuned: Tuned, step: int) -> dict[str, float]:
    """The row of the history of one step."""
    return next(row for row in tuned.tuning.rows if row["step"] == step)
