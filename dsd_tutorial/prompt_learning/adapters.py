"""What every learned thing has in common: a set of numbers that can be made active on a model.

    with adapter.active(model):
        score(model, images, texts)          # and components, heat maps, model.sample: all adapted

Inside the block the model's own weights are what they were; hooks and processors do the rest, and
are gone when it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Adapter(nn.Module):
    """What is learned from a few examples; this base class learns nothing: zero-shot DSD.

    Class attributes: `kind` its name; `lr` a learning rate that suits it; `changes_text` whether
    the text states depend on it; `cached` whether it is fitted on cached components, without a
    U-Net pass per step; `reads_error` whether it needs the error term.
    """

    kind = "zero-shot"
    lr = 1e-2
    changes_text = False
    cached = False
    reads_error = False

    def config(self) -> dict[str, Any]:
        """Return the keyword arguments that build it anew, as plain values."""
        return {}

    @contextmanager
    def active(self, model: Any) -> Iterator[None]:
        """Yield; inside the block `model` works with the adapter. Restored after errors too."""
        yield

    def pool(self, parts: Tensor, errors: Tensor | None, scoring: Any) -> Tensor:
        """Return one score per pair, (pairs,), of parts (pairs, steps, layers, heads).

        errors (pairs, steps) or None. Here: the mean over heads, layers and steps, plus the error
        term by the weights of `scoring`, which is the zero-shot score of `matching`.
        """
        attention = parts.nanmean(-1).mean((-1, -2))
        return combined(attention, errors, scoring)

    def learned(self) -> list[nn.Parameter]:
        """Return the parameters that fitting changes."""
        return [p for p in self.parameters() if p.requires_grad]

    def optimiser(self, lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """Return what fits it: AdamW, as the released code does."""
        return torch.optim.AdamW(self.learned(), lr=lr, weight_decay=weight_decay)

    def project(self) -> None:
        """Bring the parameters back to where they may be, after a step of the optimiser."""

    @property
    def size(self) -> int:
        """Return how many numbers were learned, those of an adapter it stands on included."""
        return sum(p.numel() for p in self.parameters())


def combined(attention: Tensor, errors: Tensor | None, scoring: Any) -> Tensor:
    """Return attention_weight * attention (pairs,) + error_weight * mean of errors over steps."""
    total = scoring.attention_weight * attention
    if scoring.error_weight == 0:
        return total
    if errors is None:
        raise ValueError("error_weight needs the error term: compute the components with errors")
    return total + scoring.error_weight * errors.mean(-1)


def seeded(seed: int) -> torch.Generator:
    """Return a generator on the CPU, so that a start is the same on every machine."""
    return torch.Generator().manual_seed(seed)
