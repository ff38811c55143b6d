"""Customising one reference (SD-IPC-CT), measured: fidelity against steps, from every start.

All ways see the same pictures, time steps and noises, and their variations are drawn from the same
noise, so that they are compared reference by reference. Learning rates, and alpha for edits, are
chosen on references of the validation split. An edit takes off what CLIP says the reference shows,
and adds what is asked for (`variation.edit_prompt`: gone).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.customization import Tuned, customize, references, textual_inversion, words
from dsd_tutorial.projection.references import Chosen
from dsd_tutorial.shapes import Scene, render
from dsd_tutorial.shapes.judge import judge
from dsd_tutorial.variation import nearest_text
from dsd_tutorial.variation.edit_items import make_edits
from lab.measuring.custom_book import Book, merit, shares

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
class CT:
    """References of the test split and of the validation split, and how they are drawn."""

    model: Any
    book: Book
    chosen: Chosen
    test: Sequence[Scene]
    validation: Sequence[Scene]
    seeds: int
    sampling: dict[str, Any]
    batch_size: int
    seed: int
    ways: dict[str, Way] = field(default_factory=lambda: WAYS)

    def tune(
        self, way: Way, scenes: Sequence[Scene], lr: float, at: tuple[int, ...]
    ) -> list[Tuned]:
        """Return one `Tuned` per reference."""
        images = render(list(scenes), self.model.resolution)[0]
        how = {
            "steps": max(at), "lr": lr, "batch_size": self.batch_size, "at": at,
            "check_every": max(1, max(at)), "progress": False,
        }  # fmt: skip
        found = []
        for i, (image, scene) in enumerate(zip(images, scenes, strict=True)):
            shape, seed = scene.things[0].shape, self.seed + i
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

    @torch.no_grad()
    def draw(
        self,
        tuned: Sequence[Tuned],
        seeds: int,
        edits: Sequence[tuple[str, str]] | None = None,
        alpha: float = 0,
    ) -> Tensor:
        """Return variations (references, seeds, 3, height, width), or edits.

        An edit is what to say and what to take off: ("a blue object", "a red object").
        """
        if edits is None:
            prompts = [one.prompt(self.model) for one in tuned]
        else:
            prompts = [
                one.edit_prompt(self.model, text, alpha, gone=gone)
                for one, (text, gone) in zip(tuned, edits, strict=True)
            ]
        first, how = self.seed + 50_000, {**self.sampling, "n": seeds, "progress": False}
        if any("lora" in one.module for one in tuned):  # a U-Net of its own for each reference
            drawn = []
            for i, (one, prompt) in enumerate(zip(tuned, prompts, strict=True)):
                with one.applied(self.model):
                    drawn.append(
                        self.model.sample(embeddings=prompt, seed=first + i * seeds, **how)
                    )
            return torch.stack(drawn)
        images = self.model.sample(embeddings=torch.cat(prompts), seed=first, **how)
        return images.unflatten(0, (len(tuned), seeds))

    def usual_rate(self, way: Way) -> float:
        """Return the learning rate that `customize` or `textual_inversion` takes by itself."""
        if way.is_word:
            table = self.model.text_encoder.get_input_embeddings().weight
            return words.PACE * float(table.float().square().mean().sqrt())
        inverse = getattr(self.chosen, way.inverse)
        return references.PACE * inverse.length / inverse.matrix.shape[0] ** 0.5

    def choose(self, name: str, way: Way, bar: Any) -> float:
        """Return the learning rate that does best on validation, and write it and each alpha."""
        known = self.book.number(name, "lr_chosen", STEPS)
        if known is not None:
            return known
        tried = []
        for pace in PACES:
            lr = pace * self.usual_rate(way)
            tuned = self.tune(way, self.validation, lr, tuple({0, STEPS}))
            found = shares(self.draw([t.at(STEPS) for t in tuned], 2), list(self.validation))
            self.book.add(name, f"validation_at_{pace:g}_of_lr", STEPS, merit(found))
            tried.append((merit(found), -pace, lr, tuned))
            bar.update(len(self.validation))
        _, _, lr, tuned = max(tried, key=lambda row: row[:2])
        for step in way.edits:
            self._choose_alpha(name, step, [t.at(step) for t in tuned])
        self.book.add(name, "lr_chosen", STEPS, lr)
        return lr

    def _choose_alpha(self, name: str, step: int, tuned: Sequence[Tuned]) -> None:
        grid = (0.0,) if self.ways[name].is_word else ALPHAS  # a word has no alpha
        best = max(grid, key=lambda a: float(self._edited(tuned, self.validation, 1, a)[2].mean()))
        self.book.add(name, "alpha_chosen", step, best)

    def _edited(
        self, tuned: Sequence[Tuned], scenes: Sequence[Scene], seeds: int, alpha: float
    ) -> Tensor:
        """Return (3, references): another colour is asked; changed, the rest kept, both."""
        edits = [edit for edit in make_edits(scenes, self.seed) if edit.kind == "color"]
        pictures = render(list(scenes), self.model.resolution)[0]
        gone = nearest_text(self.model, pictures, edits[0].values)  # every colour: the same for all
        texts = [(edit.text, old) for edit, old in zip(edits, gone, strict=True)]
        images = self.draw(tuned, seeds, texts, alpha)
        verdicts = iter(judge(images.flatten(0, 1)))
        rows = torch.tensor(
            [[edit.judged(next(verdicts)) for _ in range(seeds)] for edit in edits]
        ).double()  # (references, seeds, 2)
        both = rows.prod(-1)
        return torch.stack([rows[..., 0].mean(1), rows[..., 1].mean(1), both.mean(1)])

    def measure(self, name: str, bar: Any) -> None:
        """Tune and measure one way on all test references, unless it is done."""
        way = self.ways[name]
        if self.book.number(name, "peak_memory_mib", max(way.at)) is not None:  # the last row
            return
        bar.set_postfix_str(f"{name}, learning rate")
        lr = self.choose(name, way, bar)
        bar.set_postfix_str(name)
        tuned = self.tune(way, self.test, lr, tuple({0, *way.at, *way.edits}))
        bar.update(len(self.test))
        size = tuned[0].parameters
        for step in way.at:
            seconds = sum(_row(one, step)["seconds"] for one in tuned) / len(tuned)
            found = shares(self.draw([t.at(step) for t in tuned], self.seeds), list(self.test))
            found["error"] = torch.tensor([_row(one, step)["checked"] for one in tuned])
            for metric, values in found.items():
                self.book.note(name, metric, step, values, seconds, size)
        for step in way.edits:
            alpha = self.book.number(name, "alpha_chosen", step)
            parts = self._edited([t.at(step) for t in tuned], self.test, self.seeds, alpha)
            for metric, values in zip(("changed", "kept", "joint"), parts, strict=True):
                self.book.note(name, f"edit_{metric}", step, values, 0.0, size)
        peak = max(one.peak_memory for one in tuned) / 2**20
        self.book.add(name, "peak_memory_mib", max(way.at), peak, parameters=size)

    def compare(self) -> None:
        """Write paired differences, reference by reference; above 0 is better.

        difference_to_start, of fidelity: to the same way before tuning; _to_untuned: to the closed
        form itself; _to_closed_form, _to_random, _to_text: to these after as many steps.
        error_below_..., of the error on noises that tuning has not seen: how far below theirs.
        """
        for name, way in self.ways.items():
            start = "closed_form" if name == "closed_form_kv" else name
            for step in way.at:
                rivals = {rival: (rival, step) for rival in RIVALS}
                if step > 0:
                    rivals |= {"start": (start, 0), "untuned": ("closed_form", 0)}
                for word, (rival, at) in rivals.items():
                    if (rival, at) != (name, step):
                        self._pair(word, (name, step), (rival, at))

    def _pair(self, word: str, ours: tuple[str, int], rival: tuple[str, int]) -> None:
        """Both differences of two measured states; rows carry the name and steps of `ours`."""
        (name, step), (other, at) = ours, rival
        fidelity = (name, "fidelity", step), (other, "fidelity", at)
        self.book.compare(f"difference_to_{word}", *fidelity, name, step)
        error = (other, "error", at), (name, "error", step)
        self.book.compare(f"error_below_{word}", *error, name, step)


def _row(tuned: Tuned, step: int) -> dict[str, float]:
    """The row of the history of one step."""
    return next(row for row in tuned.tuning.rows if row["step"] == step)
