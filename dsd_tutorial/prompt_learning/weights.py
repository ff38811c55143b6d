"""Weights over layers and heads: which of the many small scores to listen to.

The zero-shot score is a plain average of one number per (time step, layer, head). Here the average
is weighted, by weights that a few labelled items decide. Everything is linear in numbers that one
computation gives (`matching.components`), so that fitting takes seconds. The error term of a
diffusion classifier (Li et al., arXiv 2303.16203) can join as one more component, or one per time
step: that, and the weights themselves, are *ours*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dsd_tutorial.attention import choose_layers
from dsd_tutorial.prompt_learning.adapters import Adapter
from dsd_tutorial.prompt_learning.objectives import decisions, spread

AXES = ("step", "layer", "head")


class HeadWeights(Adapter):
    """One learned weight per group of components; `scoring` says which layers and steps there are.

    over   which axes have weights of their own, of "step", "layer", "head"
    kind   "signed": weight = plain average + theta, so that a head that prefers wrong candidates
           can be turned round; "softmax": positive weights that sum to one, which move by factors
           and so find the few that know among many that do not
    error  also learn the weight of the error term (signed, one per step where "step" is in `over`),
           beginning at `scoring.error_weight`
    on     another adapter, fitted before, whose components are weighted; it stays as it is

    theta counts in standardised units: `calibrate` measures each group's spread on the labelled
    items. At theta = 0 the score is the zero-shot score of `scoring` (on `on`).
    Raises ValueError for other words, and when scored with other layers or steps.
    """

    kind = "head weights"
    lr = 5e-2
    cached = True

    def __init__(
        self,
        model: Any,
        scoring: Any,
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
        self.layers = choose_layers(model, scoring.layers)
        self.heads = [attn.heads for attn in self.layers.values()]
        self.layers, self.steps = tuple(self.layers), scoring.grid(model)
        self.on = None if on is None else on.requires_grad_(False)
        sizes = (len(self.steps), len(self.layers), max(self.heads))
        shape = [n if axis in over else 1 for axis, n in zip(AXES, sizes, strict=True)]
        self.theta = nn.Parameter(torch.zeros(shape))
        self.register_buffer("unit", torch.ones(shape))
        steps = shape[0] if error else 0
        if error:
            self.theta_error = nn.Parameter(torch.zeros(steps))
        self.register_buffer("unit_error", torch.ones(steps))

    @property
    def changes_text(self) -> bool:
        return self.on is not None and self.on.changes_text

    def config(self) -> dict[str, Any]:
        return {"over": list(self.over), "kind": self.form, "error": self.reads_error}

    @contextmanager
    def active(self, model: Any) -> Iterator[None]:
        with (self.on or Adapter()).active(model):
            yield

    def optimiser(self, lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """Return gradient descent with momentum, not Adam.

        Adam moves all thetas equally far, those that know nothing as far as those that know; from
        16 items and 40 weights that is noise. The path of plain descent, stopped by validation,
        acts like a penalty on what the items hardly speak for.
        """
        return torch.optim.SGD(self.learned(), lr=lr, momentum=0.9, weight_decay=weight_decay)

    @property
    def average(self) -> Tensor:
        """Return the weights of the plain average, (layers, heads): heads first, then layers."""
        rows = [
            [1 / n] * n + [0.0] * (max(self.heads) - n)  # layers may differ in their heads
            for n in self.heads
        ]
        return torch.tensor(rows) / len(rows)

    def weights(self) -> Tensor:
        """Return the weight of every component, (steps, layers, heads); the plain average is 1 / n.

        As `matching.Components.score(weights)` takes them: summed over layers and heads, averaged
        over steps.
        """
        average = self.average.expand(len(self.steps), -1, -1)
        if self.form == "signed":
            return average * (1 + self.theta * self.unit)
        grown = average * self.theta.exp()
        return grown * len(self.steps) / grown.sum()

    def error_weights(self, scoring: Any) -> Tensor:
        """Return the weight of the error term at each time step, (steps,)."""
        learned = self.theta_error * self.unit_error if self.reads_error else torch.zeros(1)
        return (scoring.error_weight + learned).expand(len(self.steps))

    def pool(self, parts: Tensor, errors: Tensor | None, scoring: Any) -> Tensor:
        want = (len(self.steps), len(self.layers), max(self.heads))
        if parts.shape[1:] != want:
            raise ValueError(
                f"components of {tuple(parts.shape[1:])} steps, layers and heads; these weights "
                f"were made for {want}: time steps {self.steps} of {', '.join(self.layers)}"
            )
        weighted = parts.nan_to_num() * self.weights().to(parts.device)
        score = scoring.attention_weight * weighted.sum((-1, -2)).mean(-1)
        if not scoring.needs_error(self):
            return score
        if errors is None:
            raise ValueError("the error term has a weight: compute the components with errors=True")
        return score + (errors * self.error_weights(scoring).to(errors.device)).mean(-1)

    @torch.no_grad()
    def calibrate(self, parts: Tensor, errors: Tensor | None, items: Any, scoring: Any) -> None:
        """Set the unit of each theta: what moves the score by one zero-shot spread.

        parts (pairs, steps, layers, heads) and errors (pairs, steps) of the labelled `items`. Where
        the score is all error term, its spread is the unit. Changes nothing at theta = 0.
        """
        self.unit.fill_(1.0), self.unit_error.fill_(1.0)
        whole = _spread(self.pool(parts, errors, scoring), items)
        share = parts.nan_to_num() * self.average / len(self.steps) * scoring.attention_weight
        shape = self.theta.shape
        for index in np.ndindex(*shape):
            own = [
                slice(None) if n == 1 else slice(i, i + 1)
                for i, n in zip(index, shape, strict=True)
            ]
            self.unit[index] = whole / _spread(share[:, *own].sum((1, 2, 3)), items)
        for i in range(len(self.unit_error)):
            own = errors if len(self.unit_error) == 1 else errors[:, i : i + 1]
            self.unit_error[i] = whole / _spread(own.sum(1) / len(self.steps), items)


def _spread(scores: Tensor, items: Any) -> float:
    """Return the spread among candidates; 1e12, so that a unit vanishes, where there is none."""
    correct = [item.correct for item in items.items]
    rows, _ = decisions(scores.view(len(correct), -1), items.shape, correct)
    found = spread(rows)
    return found if found > 1e-9 else 1e12
