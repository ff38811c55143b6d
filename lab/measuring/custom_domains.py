"""Learning a domain (SD-IPC-FT), measured: what is won on it, and what of the old world is lost.

Domains hold what no training picture of the model holds: stripes, a shape, a colour. A hundred
pictures are of the train split, those that are measured of the test split; each domain's learning
rate is chosen on its validation split. Each has a ceiling: what autoencoder and judge
leave of its pictures; an autoencoder that never saw stripes hardly keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.customization import Domain, fit_domain
from dsd_tutorial.projection import Inverse
from dsd_tutorial.shapes import (
    Scene,
    render,
)
from dsd_tutorial.shapes.captions import full_description
from dsd_tutorial.shapes.domains import DOMAINS, domain_scenes
from lab.measuring.custom_book import Book, merit, shares

USUAL = ("diamond", "brown", "striped")  # a shape, a colour, a texture
RATES = (1e-3, 3e-3, 8e-3)
TRIED_ON = 24  # validation scenes of the domain, and as many of the old world
OLD = ("old_by_image", "old_by_caption")


@dataclass(frozen=True, eq=False)
class FT:
    """Which domains, how many pictures, and how they are learned and drawn."""

    model: Any
    book: Book
    inverse: Inverse
    domains: Sequence[str]
    images: int
    steps: int
    n: int
    seeds: int
    sampling: dict[str, Any]
    seed: int

    def fit(self, name: str, lr: float) -> Domain:
        """Return the `Domain` learned from pictures of the train split."""
        scenes = domain_scenes(name, self.images, self.seed + 30, "train")
        return fit_domain(
            self.model, render(scenes, self.model.resolution)[0], text=DOMAINS[name][1],
            inverse=self.inverse, steps=self.steps, lr=lr, seed=self.seed, progress=False,
        )  # fmt: skip

    @torch.no_grad()
    def draw(self, prompts: Tensor, seeds: int) -> Tensor:
        """Return pictures (prompts, seeds, 3, height, width), always from the same noise."""
        images = self.model.sample(
            embeddings=prompts, n=seeds, seed=self.seed + 60_000, progress=False, **self.sampling
        )
        return images.unflatten(0, (len(prompts), seeds))

    def varied(self, domain: Domain, scenes: list[Scene], seeds: int) -> dict[str, Tensor]:
        """Return what variations of these pictures keep, by image prompt."""
        images = render(scenes, self.model.resolution)[0]
        with domain.applied(self.model):
            return shares(self.draw(domain.to_prompt(self.model, images), seeds), scenes)

    def captioned(self, domain: Domain, scenes: list[Scene]) -> dict[str, Tensor]:
        """Return what pictures show of captions that say shape, colour and background."""
        texts = [full_description(scene, details=False).text() for scene in scenes]
        with domain.applied(self.model):
            return shares(self.draw(self.model.encode_text(texts), 1), scenes)

    def score(self, domain: Domain, name: str) -> float:
        """Return what a learning rate is chosen by: the domain and the old world, half each."""
        new, old = (domain_scenes(s, TRIED_ON, self.seed + 40, "validation") for s in (name, "old"))
        world = (merit(self.varied(domain, old, 1)) + merit(self.captioned(domain, old))) / 2
        return (merit(self.varied(domain, new, 1)) + world) / 2

    def measure(self, name: str, bar: Any) -> None:
        """Fit and measure one domain, before and after, unless it is done."""
        book, after = self.book, f"ft_{name}"
        if book.number(after, "best_step", self.steps) is not None:  # the last row
            return
        bar.set_postfix_str(f"domain {name}")
        domain = self._fitted(name, bar)
        cost = (domain.seconds, domain.parameters)
        new = domain_scenes(name, self.n, self.seed + 50, "test")
        before = self._untouched()
        self._ceiling(name, new)
        for state, at, method in ((before, 0, f"before_{name}"), (domain, self.steps, after)):
            for metric, values in self.varied(state, new, self.seeds).items():
                book.note(method, metric, at, values, *(cost if at else ()))
        self._old_world("before", before, 0)
        self._old_world(after, domain, self.steps)
        book.compare("gain", (after, "fidelity", self.steps), (f"before_{name}", "fidelity", 0))
        for metric in OLD:
            ours, was = (after, metric, self.steps), ("before", metric, 0)
            book.compare(f"change_of_{metric}", ours, was)
        book.add(after, "peak_memory_mib", self.steps, domain.peak_memory / 2**20, *cost)
        book.add(after, "best_step", self.steps, domain.tuning.best_step, *cost)

    def _ceiling(self, name: str, scenes: list[Scene]) -> None:
        """Row of what autoencoder and judge leave of the pictures themselves."""
        images = render(scenes, self.model.resolution)[0]
        with torch.no_grad():
            again = self.model.decode_latents(self.model.encode_image(images))
        found = shares(again[:, None], scenes)["fidelity"]
        self.book.note(f"ceiling_{name}", "fidelity", 0, found)

    def _old_world(self, method: str, domain: Domain, steps: int) -> None:
        """Rows of the old world, by caption and by image prompt, unless they are there."""
        if self.book.values(method, OLD[-1], steps) is not None:
            return
        scenes = domain_scenes("old", 2 * self.n, self.seed + 51, "test")
        for metric, found in (
            ("old_by_image", self.varied(domain, scenes, 1)),
            ("old_by_caption", self.captioned(domain, scenes)),
        ):
            self.book.note(method, metric, steps, found["fidelity"])

    def _untouched(self) -> Domain:
        """Return a `Domain` that has learned nothing: no prompts in the tower, zero additions."""
        picture = render(domain_scenes("old", 1, 0, "train"), self.model.resolution)[0]
        return fit_domain(
            self.model, picture, text="", inverse=self.inverse, tokens=0, steps=0, keep_weight=0.0,
            progress=False,
        )  # fmt: skip

    def _fitted(self, name: str, bar: Any) -> Domain:
        """Return the fit at the learning rate that validation prefers."""
        method = f"ft_{name}"
        known = self.book.number(method, "lr_chosen", self.steps)
        if known is not None:
            bar.update(len(RATES))
            return self.fit(name, known)
        tried = []
        for lr in RATES:
            domain = self.fit(name, lr)
            tried.append((self.score(domain, name), lr, domain))
            self.book.add(method, f"validation_at_lr_{lr:g}", self.steps, tried[-1][0])
            bar.update()
        _, lr, domain = max(tried, key=lambda row: row[0])
        self.book.add(method, "lr_chosen", self.steps, lr)
        return domain
