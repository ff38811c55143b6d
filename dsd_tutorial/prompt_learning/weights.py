"""Weights over layers and heads: which of the many small scores to listen to.

The zero-shot score is a plain average of one number per (time step, layer, head). Here the average
is weighted, by weights that a few labelled items decide. Everything is linear in numbers that one
computation gives (`matching.components`), so that fitting takes seconds. The error term of a
diffusion classifier (Li et al., arXiv 2303.16203) can join as one more component, or one per time
step: that, and the weights themselves, are *ours*.

Without training, one gradient says which heads the labels speak for (`gradient_guided`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dsd_tutorial.attention import choose_layers
from dsd_tutorial.matching import Components
from dsd_tutorial.matching.items import correct_of, decisions
from dsd_tutorial.prompt_learning.adapters import Adapter, Scoring
from dsd_tutorial.prompt_learning.objectives import infonce, spread
from dsd_tutorial.prompt_learning.scoring import item_components
from dsd_tutorial.shapes.tasks import Task

AXES = ("step", "layer", "head")


class HeadWeights(Adapter):
    """One learned weight per group of components.

    theta counts in standardised units: `calibrate` measures each group's spread on the labelled
    items. At theta = 0 the score is the zero-shot score of `scoring` (on `on`).

    Args:
        model: A `StableDiffusion`.
        scoring: Says which layers and time steps there are.
        over: Which axes have weights of their own, of "step", "layer", "head".
        kind: "signed": weight = plain average + theta, so that a head that prefers wrong candidates
            can be turned round; "softmax": positive weights that sum to one, which move by factors
            and so find the few that know among many that do not.
        error: Also learn the weight of the error term (signed, one per step where "step" is in
            `over`), beginning at `scoring.error_weight`.
        on: Another adapter, fitted before, whose components are weighted; it stays as it is.

    Raises:
        ValueError: other words for `over` or `kind`.
    """

    kind = "head weights"
    lr = 5e-2
    cached = True
    steps = 300
    checks = 60
    unit: Tensor
    unit_error: Tensor

    def __init__(
        self,
        model: Any,
        scoring: Scoring,
        *,
        over: Sequence[str] = ("layer", "head"),
        kind: Literal["softmax", "signed"] = "signed",
        error: bool = False,
        on: Adapter | None = None,
    ):
        super().__init__()
        strange = sorted(set(over) - set(AXES))
        if strange or not over or kind not in ("softmax", "signed"):
            raise ValueError(
                f"over={over}, kind={kind!r}: weights go over some of {', '.join(AXES)}, "
                "kind is 'softmax' or 'signed'"
            )
        self.over, self.form, self.reads_error = tuple(over), kind, error
        chosen: dict[str, Any] = choose_layers(model, scoring.layers)
        self.heads: list[int] = [attn.heads for attn in chosen.values()]
        self.layers, self.grid = tuple(chosen), scoring.grid(model)
        self.on = None if on is None else on.requires_grad_(False)
        self.changes_text = on is not None and on.changes_text
        sizes = (len(self.grid), len(self.layers), max(self.heads))
        shape = [n if axis in over else 1 for axis, n in zip(AXES, sizes, strict=True)]
        self.theta = nn.Parameter(torch.zeros(shape))
        self.register_buffer("unit", torch.ones(shape))
        if error:
            self.theta_error = nn.Parameter(torch.zeros(shape[0]))
        self.register_buffer("unit_error", torch.ones(shape[0] if error else 0))

    def config(self) -> dict[str, Any]:
        """Return the keyword arguments that build it anew, but for `on`."""
        return {"over": list(self.over), "kind": self.form, "error": self.reads_error}

    @contextmanager
    def active(self, model: Any) -> Iterator[None]:
        """Yield; inside the block the adapter below is active."""
        with (self.on or Adapter()).active(model):
            yield

    def optimiser(self, lr: float) -> torch.optim.Optimizer:
        """Return gradient descent with momentum, not Adam.

        Adam moves all thetas equally far, those that know nothing as far as those that know; from
        16 items and 40 weights that is noise. The path of plain descent, stopped by validation,
        acts like a penalty on what the items hardly speak for.
        """
        return torch.optim.SGD(self.learned(), lr=lr, momentum=0.9, weight_decay=0.01)

    @property
    def average(self) -> Float[Tensor, "layers heads"]:
        """The weights of the plain average: over heads first, then over layers."""
        rows = [
            [1 / n] * n + [0.0] * (max(self.heads) - n)  # layers may differ in their heads
            for n in self.heads
        ]
        return torch.tensor(rows) / len(rows)

    def weights(self) -> Float[Tensor, "steps layers heads"]:
        """Return the weight of every component; the plain average is 1 / n.

        As `matching.Components.score(weights)` takes them: summed over layers and heads, averaged
        over steps.
        """
        average = self.average.expand(len(self.grid), -1, -1)
        if self.form == "signed":
            return average * (1 + self.theta * self.unit)
        grown = average * self.theta.exp()
        return grown * len(self.grid) / grown.sum()

    def error_weights(self, scoring: Scoring) -> Float[Tensor, " steps"]:
        """Return the weight of the error term at each time step."""
        learned = self.theta_error * self.unit_error if self.reads_error else torch.zeros(1)
        return (scoring.error_weight + learned).expand(len(self.grid))

    def pool(self, parts: Components, scoring: Scoring) -> Float[Tensor, " pairs"]:
        """Return the weighted mean of each pair's components, plus the error term.

        Raises:
            ValueError: components of other layers or time steps, or without what is read.
        """
        parts = parts.select(scoring.token_mask)
        if (parts.steps, parts.layers) != (self.grid, self.layers):
            raise ValueError(
                f"components of time steps {parts.steps} of {', '.join(parts.layers)}; these "
                f"weights were made for {self.grid} of {', '.join(self.layers)}"
            )
        weights = self.weights().to(parts.scores.device)
        score = parts.score(weights, attention_weight=scoring.attention_weight)
        if not self.needs_error(scoring):
            return score
        if parts.errors is None:
            raise ValueError("the error term has a weight: compute the components with errors=True")
        errors = parts.errors * self.error_weights(scoring).to(parts.errors.device)
        return score + errors.mean(-1)

    @torch.no_grad()
    def calibrate(self, parts: Components, items: Task, scoring: Scoring) -> None:
        """Set the unit of each theta: what moves the score by one zero-shot spread.

        `parts` are those of the labelled `items`. Where the score is all error term, its spread is
        the unit. Changes nothing at theta = 0.
        """
        self.unit.fill_(1.0)
        self.unit_error.fill_(1.0)
        whole = _spread(self.pool(parts, scoring), items)
        table = parts.select(scoring.token_mask).scores.nan_to_num()
        share = table * self.average / len(self.grid) * scoring.attention_weight
        shape = self.theta.shape
        for index in np.ndindex(*shape):
            own = [
                slice(None) if n == 1 else slice(i, i + 1)
                for i, n in zip(index, shape, strict=True)
            ]
            self.unit[index] = whole / _spread(share[:, *own].sum((1, 2, 3)), items)
        if self.reads_error and parts.errors is not None:
            for i, own in enumerate(parts.errors.chunk(len(self.unit_error), dim=1)):
                self.unit_error[i] = whole / _spread(own.sum(1) / len(self.grid), items)


def gradient_guided(
    model: Any,
    items: Task,
    scoring: Scoring | None = None,
    *,
    over: Sequence[str] = ("layer", "head"),
    error: bool = False,
    parts: Components | None = None,
    progress: bool = True,
) -> HeadWeights:
    """Return `HeadWeights` set by one gradient on the labelled `items`, nothing else.

    Weight of a head = positive part of (gradient x attention): how much the loss would fall if the
    head counted more, as He et al., arXiv 2305.10722, guide by gradients; the exact form is *ours*:
    each group of components is standardised; d loss / d component x component is summed over the
    candidates of a decision first, so that what candidates share cancels, then over decisions.
    Where no group speaks for the labels the plain average stays.

    Args:
        model: A `StableDiffusion`.
        items: Labelled.
        scoring: As in `HeadWeights`, and so `over` and `error`.
        over: Which axes have weights of their own.
        error: Whether the error term has weights too.
        parts: Components of `items` computed before.
        progress: Whether a progress bar is shown.
    """
    scoring = scoring or Scoring()
    adapter = HeadWeights(model, scoring, over=over, kind="signed", error=error)
    if parts is None:
        parts = item_components(model, items, adapter, scoring, progress=progress)
    adapter.calibrate(parts, items, scoring)
    scores = adapter.pool(parts, scoring).view(len(items.items), -1)
    rows, positive = decisions(scores, items.shape, correct_of(items))
    # the score is linear in the weights: d loss / d theta is gradient x component, summed
    gradients = torch.autograd.grad(
        infonce(rows / spread(rows.detach()), positive), adapter.learned()
    )
    gains = [(-g).clamp(min=0) for g in gradients]
    total = sum(float(g.sum()) for g in gains)
    if total > 0:
        with torch.no_grad():
            adapter.theta.copy_(gains[0] / total - 1 / adapter.unit)
            if error:
                fixed = scoring.error_weight / adapter.unit_error
                adapter.theta_error.copy_(gains[1] / total - fixed)
    return adapter


def _spread(scores: Float[Tensor, " pairs"], items: Task) -> float:
    """Return the spread among candidates; 1e12, so that a unit vanishes, where there is none."""
    rows, _ = decisions(scores.view(len(items.items), -1), items.shape, correct_of(items))
    found = spread(rows)
    return found if found > 1e-9 else 1e12
