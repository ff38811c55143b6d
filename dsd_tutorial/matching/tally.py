"""What U-Net passes said, gathered by pair and time step, in whatever order it comes in."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsd_tutorial.matching.parts import Components
from dsd_tutorial.matching.passes import NAN, PAIR, STEP, Passes


class Tally:
    """Means over the noises of what `Passes` yields, by pair and time step; NaN where unknown.

    Of distances, their `power` is averaged.
    """

    def __init__(self, passes: Passes, power: int = 1):
        self.passes, self.power, self.count = passes, power, len(passes.once.pairs)
        self.shape = len(passes.image), len(passes.grid)
        cells, each = math.prod(self.shape), (len(passes.layers), passes.heads)
        self.found, self.far = torch.zeros(len(passes.names), cells, *each), torch.zeros(cells)
        self.seen = torch.zeros(cells, dtype=torch.int64)

    def add(self, rows: Tensor, components: Tensor, far: Tensor | None) -> None:
        """Take in one batch."""
        at = rows[:, PAIR] * len(self.passes.grid) + rows[:, STEP]
        self.found.index_add_(1, at, components / self.passes.noises)
        if far is not None:
            self.far.index_add_(0, at, far**self.power / self.passes.noises)
        self.seen.index_add_(0, at, torch.ones_like(at))

    def components(self) -> Float[Tensor, "readings pairs steps layers heads"]:
        """Return the components of the pairs."""
        found = self.found.unflatten(1, self.shape)
        return found.masked_fill(self._unknown()[:, :, None, None], NAN)[:, : self.count]

    def distances(self) -> tuple[Float[Tensor, "pairs steps"], Float[Tensor, "pairs steps"]]:
        """Return ||e - eps|| of the pairs, and of each pair's image with the empty prompt, or 0."""
        far = self.far.view(self.shape).masked_fill(self._unknown(), NAN)
        base = far[self.count :][self.passes.once.pairs[:, 0]]
        return far[: self.count], base if self.passes.base else torch.zeros_like(base)

    def lacking(self, rows: Int[Tensor, "rows 3"]) -> Int[Tensor, "new 3"]:
        """Return the rows that are not in yet."""
        at = rows[:, PAIR] * len(self.passes.grid) + rows[:, STEP]
        return rows[self.seen[at] < self.passes.noises]

    def parts(self) -> Components:
        """Return the components of the pairs as they were given."""
        passes, place = self.passes, self.passes.once.place
        found, (far, base) = self.components(), self.distances()
        return Components(
            {name: found[m][place] for m, name in enumerate(passes.names)},
            (base - far)[place] if passes.errors else None, tuple(passes.layers), passes.grid,
            passes.given,
        )  # fmt: skip

    def _unknown(self) -> Tensor:
        return (self.seen < self.passes.noises).view(self.shape)
