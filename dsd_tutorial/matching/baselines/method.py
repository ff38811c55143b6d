"""One interface for every method that is compared: fit on a few items, score items, say the cost.

method = make_method("coop")
spent = method.fit(model, few_shot("comvg", 16), validation_set("comvg"), seed=1)
scores, cost = method.score(model, make_task("comvg", 300))
items.accuracy(scores.flatten())
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from dsd_tutorial.matching.cost import Cost
from dsd_tutorial.shapes.tasks import Task

PORTION = 2**30  # bytes of pictures and text states held at once


class NotFittedError(RuntimeError):
    """A method that learns was asked for scores before it saw any item."""


class Meter:
    """Counts the items that go through a model's U-Net, and the seconds, inside a `with` block."""

    def __init__(self, model: Any):
        self.model, self.passes, self.seconds = model, 0, 0.0

    def __enter__(self) -> Meter:
        self._start = time.perf_counter()
        self._handle = self.model.unet.register_forward_pre_hook(self._count, with_kwargs=True)
        return self

    def _count(self, unet: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        self.passes += len(args[0] if args else kwargs["sample"])

    def __exit__(self, *error: Any) -> None:
        self._handle.remove()
        self.seconds = time.perf_counter() - self._start

    def cost(self, parameters: int = 0, labels: int = 0) -> Cost:
        """Return what was counted, with what the caller knows."""
        return Cost(self.passes, parameters, labels, self.seconds)


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

        items        the labelled few; validation  items on which all choices are made
        Nothing happens where the method needs nothing. Raises ValueError for a part that it needs
        and did not get.
        """
        labels = 0
        for what, part, used in (
            ("items", items, self.needs == "both"),
            ("validation", validation, self.needs != "nothing"),
        ):
            if used and part is None:
                raise ValueError(f"{self.name} needs {what}: pass a task, such as validation_set()")
            labels += len(part.items) if used else 0
        with Meter(model) as meter:
            parameters = self._fit(model, items, validation, seed, progress)
        return meter.cost(parameters, labels)

    def score(
        self, model: Any, items: Task, *, seed: int = 0, progress: bool = True
    ) -> tuple[Tensor, Cost]:
        """Return scores (items, images * texts) on the CPU, higher is better, and what they cost.

        One score for each row of `items.pairs()`: per candidate where one text or one image is
        given, image by image for two and two. `seed` is that of the shared noise. What was spent
        on fitting is not in this cost: add the two.
        Raises NotFittedError for a method that must be fitted first.
        """
        with Meter(model) as meter, torch.no_grad():
            parts = [
                self._score(model, part, seed, progress).float().cpu().view(len(part.items), -1)
                for part in portions(model, items)
            ]
        return torch.cat(parts), meter.cost()

    def _fit(self, model: Any, items: Task, validation: Task, seed: int, progress: bool) -> int:
        """Learn; return the number of learned numbers."""
        return 0

    @abstractmethod
    def _score(self, model: Any, items: Task, seed: int, progress: bool) -> Tensor:
        """Return one score per row of `items.pairs()`, any shape."""


def portions(model: Any, items: Task, limit: int = PORTION) -> Iterator[Task]:
    """Yield `items` in parts whose pictures and text states take at most `limit` bytes.

    An item's score does not depend on its part; pairs that occur in two parts are computed twice.
    """
    images, texts = items.shape
    state = model.context_length * model.unet.config.cross_attention_dim
    per_item = 4 * (images * 3 * model.resolution**2 + texts * state)
    number = max(1, limit // per_item)
    for i in range(0, len(items.items), number):
        yield replace(items, items=items.items[i : i + number])
