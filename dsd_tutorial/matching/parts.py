"""The parts of the attention score, before any averaging, for all pairs at once.

What `matching.score` averages, kept apart by token mask, time step, layer and head, so that one
computation answers many questions (which layer, which step) and weights can be fitted to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Components:
    """The parts of the score of each pair, before they are averaged.

    Attributes:
        by_reading: By token mask (the log-sum-exp over these tokens) or name of a reading, float32
            on the CPU, mean over the noises; NaN where a layer has fewer heads than another.
        errors: ||e - eps(z_t, empty)|| - ||e - eps(z_t, text)||, or None if not computed.
        layers: The names of the layers.
        steps: The time steps.
        pairs: Image and text index of each pair.
    """

    by_reading: dict[str, Float[Tensor, "pairs steps layers heads"]]
    errors: Float[Tensor, "pairs steps"] | None
    layers: tuple[str, ...]
    steps: tuple[int, ...]
    pairs: Int[Tensor, "pairs 2"]

    @property
    def scores(self) -> Float[Tensor, "pairs steps layers heads"]:
        """The components of the first token mask or reading."""
        return next(iter(self.by_reading.values()))

    def select(
        self,
        reading: str | None = None,
        layers: Sequence[str] | None = None,
        steps: Sequence[int] | None = None,
    ) -> Components:
        """Return one reading, some layers and some time steps alone; None keeps them all.

        Raises:
            ValueError: a reading, layer or time step that was not computed.
        """
        names = tuple(self.by_reading) if reading is None else (reading,)
        layers = self.layers if layers is None else tuple(layers)
        steps = self.steps if steps is None else tuple(steps)
        for wanted, have in ((names, self.by_reading), (layers, self.layers), (steps, self.steps)):
            missing = [x for x in wanted if x not in have]
            if missing:
                raise ValueError(f"components of {', '.join(map(str, have))}, not {missing[0]!r}")
        by_reading, errors = {name: self.by_reading[name] for name in names}, self.errors
        if steps != self.steps or layers != self.layers:
            columns = [self.layers.index(name) for name in layers]
            rows = [self.steps.index(t) for t in steps]
            by_reading = {name: table[:, rows][:, :, columns] for name, table in by_reading.items()}
            errors = None if errors is None else errors[:, rows]
        return replace(self, by_reading=by_reading, errors=errors, layers=layers, steps=steps)

    def score(
        self,
        weights: Float[Tensor, "*axes"] | None = None,
        *,
        attention_weight: float = 1.0,
        error_weight: float = 0.0,
    ) -> Float[Tensor, " pairs"]:
        """Return one score per pair, from the first reading and the error term.

        Args:
            weights: Broadcastable to (steps, layers, heads), multiply the components, which are
                then summed over layers and heads and averaged over steps; None is the mean over
                heads, then layers, then steps.
            attention_weight: Of the attention score.
            error_weight: Of the error term (beta).

        Raises:
            ValueError: the error term has a weight and was not computed.
        """
        how = {"attention_weight": attention_weight, "error_weight": error_weight}
        return self.by_step(weights, **how).mean(-1)

    def by_step(
        self,
        weights: Float[Tensor, "*axes"] | None = None,
        *,
        attention_weight: float = 1.0,
        error_weight: float = 0.0,
    ) -> Float[Tensor, "pairs steps"]:
        """Return what each time step says; `score` is the mean, and explains the arguments."""
        if error_weight != 0 and self.errors is None:
            raise ValueError("error_weight needs the error term: components(..., errors=True)")
        errors = 0.0 if self.errors is None or error_weight == 0 else error_weight * self.errors
        if attention_weight == 0 and isinstance(errors, Tensor):
            return errors
        if weights is None:
            attention = self.scores.nanmean(-1).mean(-1)
        else:
            known = self.scores.isfinite().any(-1).all(-1)  # some heads of a layer may be missing
            attention = (self.scores.nan_to_num() * weights).sum((-1, -2))
            attention = attention.masked_fill(~known, float("nan"))
        return attention_weight * attention + errors
