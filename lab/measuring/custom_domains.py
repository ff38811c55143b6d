"""Learning a domain (SD-IPC-FT), measured: what is won on it, and what of the old world is lost.

Domains hold what no training image of the model holds: stripes, a shape, a colour. A hundred
images are of the train split, those that are measured of the test split; each domain's learning
rate is chosen on its validation split. Each has a ceiling: what autoencoder and judge
leave of its images; an autoencoder that never saw stripes hardly keeps them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.customization import Domain, fit_domain
from dsd_tutorial.projection import Inverse
from dsd_tutorial.shapes import Scene, render
from dsd_tutorial.shapes.captions import full_description
from dsd_tutorial.shapes.scene import DOMAINS, domain_scenes
from dsd_tutorial.variation import fidelity
from lab.measuring.runner import Item
from lab.measuring.tables import Row

USUAL = ("diamond", "brown", "striped")  # a shape, a colour, a texture
RATES = (1e-3, 3e-3, 8e-3)
TRIED_ON = 24  # validation scenes of the domain, and as many of the old world
OLD = ("old_by_image", "old_by_caption")
ATTRIBUTES = ("shape", "color", "texture", "background")


def shares(images: Tensor, scenes: list[Scene]) -> dict[str, list[float]]:
    """Return metric -> (references,): the share of a reference's images that keep it.

    images (references, seeds, 3, height, width). "fidelity": number of objects, shape, colour,
    texture and background, all in one image; then each of these attributes alone.
    """
    found = fidelity(images, scenes)
    return {"fidelity": found["faithful"].tolist()} | {a: found[a].tolist() for a in ATTRIBUTES}


def merit(found: dict[str, list[float]]) -> float:
    """Return the mean of the single attributes: what choices are made by, finer than fidelity."""
    return fmean(float(torch.tensor(found[name]).mean()) for name in ATTRIBUTES)


@torch.no_grad()
def drawn(model: Any, plan: Any, prompts: Tensor, n: int, seed: int) -> Tensor:
    """Return images (prompts, n, 3, height, width), from the noises of `seed` on."""
    images = model.sample(
        embeddings=prompts, n=n, steps=plan.sampling, guidance=plan.guidance, seed=seed,
        progress=False,
    )  # fmt: skip
    return images.unflatten(0, (len(prompts), n))


@dataclass(eq=False)
class DomainTuning:
    """How many images, and how domains are learned and drawn."""

    model: Any
    plan: Any  # a `CustomizationPlan`
    table: Any  # where what was chosen can be read again
    inverse: Inverse
    _fitted: dict[tuple[str, float], Domain] = field(default_factory=dict)  # the last choice

    def items(self, name: str) -> list[Item]:
        """Return the choice of the learning rate, the old world before, the domain after."""
        after = {"method": f"ft_{name}", "steps": self.plan.ft}
        return [
            Item(after | {"metric": "lr_chosen"}, partial(self._choose, name), len(RATES)),
            Item({"method": "before", "metric": OLD[-1], "steps": 0}, self._before, 0),
            Item(after | {"metric": "best_step"}, partial(self._measure, name)),
        ]

    def comparisons(self, name: str) -> Iterator[tuple[Row, tuple, tuple]]:
        """Yield what is won on the domain, and what changes in the old world."""
        after = f"ft_{name}"
        pairs = [("gain", "fidelity", f"before_{name}")]
        pairs += [(f"change_of_{metric}", metric, "before") for metric in OLD]
        for title, metric, before in pairs:
            key = {"method": after, "metric": title, "steps": self.plan.ft}
            yield key, (after, metric, self.plan.ft), (before, metric, 0)

    def fit(self, name: str, lr: float) -> Domain:
        """Return the `Domain` learned from images of the train split."""
        scenes = domain_scenes(name, self.plan.images, self.plan.seed + 30, "train")
        return fit_domain(
            self.model, render(scenes, self.model.resolution)[0], text=DOMAINS[name][1],
            inverse=self.inverse, steps=self.plan.ft, lr=lr, seed=self.plan.seed, progress=False,
        )  # fmt: skip

    def untouched(self) -> Domain:
        """Return a `Domain` that has learned nothing: no prompts in the tower, zero additions."""
        image = render(domain_scenes("old", 1, 0, "train"), self.model.resolution)[0]
        return fit_domain(
            self.model, image, text="", inverse=self.inverse, tokens=0, steps=0, keep_weight=0.0,
            progress=False,
        )  # fmt: skip

    def draw(self, prompts: Tensor, seeds: int) -> Tensor:
        """Return images (prompts, seeds, 3, height, width), always from the same noise."""
        return drawn(self.model, self.plan, prompts, seeds, self.plan.seed + 60_000)

    def varied(self, domain: Domain, scenes: list[Scene], seeds: int) -> dict[str, list[float]]:
        """Return what variations of these scenes' images keep, by image prompt."""
        images = render(scenes, self.model.resolution)[0]
        with domain.applied(self.model):
            return shares(self.draw(domain.to_prompt(self.model, images), seeds), scenes)

    def captioned(self, domain: Domain, scenes: list[Scene]) -> dict[str, list[float]]:
        """Return what images show of captions that say shape, colour and background."""
        texts = [full_description(scene, details=False).text() for scene in scenes]
        with domain.applied(self.model):
            return shares(self.draw(self.model.encode_text(texts), 1), scenes)

    def _choose(self, name: str) -> list[Row]:
        """Return the scores of all learning rates on validation, and the best one."""
        self._fitted.clear()
        found, about = {}, {"method": f"ft_{name}", "steps": self.plan.ft}
        for lr in RATES:
            self._fitted[name, lr] = domain = self.fit(name, lr)
            found[lr] = self.score(domain, name)
        best = max(found, key=found.get)
        self._fitted = {(name, best): self._fitted[name, best]}
        rows = [about | {"metric": f"validation_at_lr_{lr:g}", "value": found[lr]} for lr in RATES]
        return [*rows, about | {"metric": "lr_chosen", "value": best}]

    def score(self, domain: Domain, name: str) -> float:
        """Return what a learning rate is chosen by: the domain and the old world, half each."""
        new, old = (
            domain_scenes(s, TRIED_ON, self.plan.seed + 40, "validation") for s in (name, "old")
        )
        world = (merit(self.varied(domain, old, 1)) + merit(self.captioned(domain, old))) / 2
        return (merit(self.varied(domain, new, 1)) + world) / 2

    def _before(self) -> list[Row]:
        return self._old_world(self.untouched(), {"method": "before", "steps": 0})

    def _measure(self, name: str) -> list[Row]:
        """Return the rows of one domain, before and after, and what it cost."""
        lr = self.table.number(f"ft_{name}", "lr_chosen", self.plan.ft)
        domain = self._fitted.get((name, lr)) or self.fit(name, lr)
        scenes = domain_scenes(name, self.plan.n, self.plan.seed + 50, "test")
        before = {"method": f"before_{name}", "steps": 0}
        after = {"method": f"ft_{name}", "steps": self.plan.ft}
        after |= {"seconds": float(domain.seconds), "parameters": domain.parameters}
        rows = [self._ceiling(name, scenes)]
        for state, about in ((self.untouched(), before), (domain, after)):
            found = self.varied(state, scenes, self.plan.seeds)
            rows += [about | {"metric": metric, "values": v} for metric, v in found.items()]
        rows += self._old_world(domain, {"method": f"ft_{name}", "steps": self.plan.ft})
        peak = domain.peak_memory / 2**20
        rows.append(after | {"metric": "peak_memory_mib", "value": float(peak)})
        return [*rows, after | {"metric": "best_step", "value": float(domain.tuning.best_step)}]

    def _ceiling(self, name: str, scenes: list[Scene]) -> Row:
        """Return what autoencoder and judge leave of the images themselves."""
        images = render(scenes, self.model.resolution)[0]
        with torch.no_grad():
            again = self.model.decode_latents(self.model.encode_image(images))
        found = shares(again[:, None], scenes)["fidelity"]
        return {"method": f"ceiling_{name}", "metric": "fidelity", "steps": 0, "values": found}

    def _old_world(self, domain: Domain, about: Row) -> list[Row]:
        """Return the rows of the old world, by image prompt and by caption."""
        scenes = domain_scenes("old", 2 * self.plan.n, self.plan.seed + 51, "test")
        found = self.varied(domain, scenes, 1), self.captioned(domain, scenes)
        return [
            about | {"metric": metric, "values": each["fidelity"]}
            for metric, each in zip(OLD, found, strict=True)
        ]
