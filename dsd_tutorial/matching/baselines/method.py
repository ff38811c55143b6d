"""One interface for every method that is compared: fit on a few items, score items, say the cost.

method = make_method("coop")
spent = method.fit(model, few_shot("comvg", 16), validation_set("comvg"), seed=1)
scores, cost = method.score(model, make_task("comvg", 300))
items.accuracy(scores.flatten())
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.matching.cost import Cost, measure
from dsd_tutorial.shapes.tasks import Task


class NotFittedError(RuntimeError):
    """A method that learns was to score items before it was fitted."""


class Method(ABC):
    """A way to score candidates. `needs` says what `fit` uses: nothing, validation, or both."""

    name: ClassVar[str]
    needs: ClassVar[str] = "nothing"

    def fit(
        self,
        model: Any,
        items: Task | None = None,
        validation: Task | None = None,
        *,
        seed: int = 0,
        progress: bool = True,
    ) -> Cost:
        """Return what fitting cost: labels are the items that were really looked at.

        Args:
            model: A `StableDiffusion`.
            items: The labelled few.
            validation: Items on which all choices are made.
            seed: Of whatever is drawn.
            progress: Whether a progress bar is shown.

        Raises:
            ValueError: items or validation that the method needs and did not get.
        """
        labels = 0
        for what, part, used in (
            ("items", items, self.needs == "both"),
            ("validation", validation, self.needs != "nothing"),
        ):
            if part is not None:
                labels += len(part.items) if used else 0
            elif used:
                raise ValueError(f"{self.name} needs {what}: pass a task, such as validation_set()")
        with measure(model) as meter:
            parameters = self._fit(model, items, validation, seed, progress)
        return meter.cost(parameters, labels)

    def score(
        self, model: Any, items: Task, *, seed: int = 0, progress: bool = True
    ) -> tuple[Float[Tensor, "items pairs"], Cost]:
        """Return the score of each pair, on the CPU, higher is better, and what it cost.

        What was spent on fitting is not in this cost: add the two.

        Args:
            model: A `StableDiffusion`.
            items: Pairs go item by item, as in `items.pairs()`.
            seed: Of the shared noise.
            progress: Whether a progress bar is shown.

        Raises:
            NotFittedError: the method must be fitted first.
        """
        with measure(model) as meter, torch.no_grad():
            scores = self._score(model, items, seed, progress)
        return scores.float().cpu().view(len(items.items), -1), meter.cost()

    def _fit(self, model: Any, items: Any, validation: Any, seed: int, progress: bool) -> int:
        """Learn; return the number of learned numbers."""
        return 0

    @abstractmethod
    def _score(self, model: Any, items: Task, seed: int, progress: bool) -> Tensor:
        """Return one score per row of `items.pairs()`, any shape."""


class Random(Method):
    """Scores that say nothing: a hash of (seed, image, text), so that a pair keeps its score.

    It stays the same in another batch, at another place in its item, on another machine.
    """

    name = "random"

    def _score(self, model: Any, items: Task, seed: int, progress: bool) -> Tensor:
        pairs = ((s, t) for item in items.items for s in item.images for t in item.texts)
        digests = (hashlib.sha256(f"{seed}|{s!r}|{t}".encode()).digest() for s, t in pairs)
        return torch.tensor([int.from_bytes(digest[:6], "big") / 2**48 for digest in digests])
