"""What a unit stands for, as a number: the best F1 of "unit active" for each attribute value.

Revelio looks at the images that drive a unit highest. Here every scene is known, so a unit's
meaning can be measured: it is a detector of, say, red things as far as it is active where red
things are, and nowhere else. Which unit stands for a value, and from which level on it counts as
active, is chosen on validation scenes; F1 is that of test scenes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from dsd_tutorial.features.places import VALUES, Places
from dsd_tutorial.matching.metrics import Interval


@dataclass(frozen=True)
class Detectors:
    """For each attribute value the unit that stands for it, and the level above which it does."""

    unit: Int64[Tensor, " values"]
    level: Float[Tensor, " values"]

    def fire(self, codes: Float[Tensor, "rows units"]) -> Bool[Tensor, "rows values"]:
        """Return where each value is said to be."""
        return codes[:, self.unit] > self.level


def choose_units(
    codes: Float[Tensor, "rows units"], labels: Bool[Tensor, "rows values"], levels: bool = False
) -> Detectors:
    """Return the unit with the best F1 for each value, on validation rows.

    Args:
        codes: What each unit says of each row; it counts as active above zero.
        labels: What is true.
        levels: Whether the level, too, is chosen: the best of all that tell two rows apart.
    """
    if not levels:
        unit = f1(codes > 0, labels).argmax(0)
        return Detectors(unit, torch.zeros(len(unit)))
    best, level = zip(*(_best_level(unit, labels) for unit in codes.T), strict=True)
    unit = torch.stack(best).argmax(0)
    return Detectors(unit, torch.stack(level)[unit, torch.arange(len(unit))])


def _best_level(
    code: Float[Tensor, " rows"], labels: Bool[Tensor, "rows values"]
) -> tuple[Tensor, Tensor]:
    """Return the best F1 of one unit for each value, and the level that gives it."""
    order = code.argsort(descending=True)
    ranked = code[order]
    both = labels[order].float().cumsum(0)  # (rows, values): with the r first rows active
    count = torch.arange(1, len(code) + 1)[:, None]
    score = 2 * both / (count + both[-1])
    after = torch.cat([ranked[1:], ranked[-1:] - 1])
    score[ranked == after] = -1.0  # equal codes are active together
    best, last = score.max(0)
    return best, (ranked[last] + after[last]) / 2


def f1(
    active: Bool[Tensor, "rows units"], labels: Bool[Tensor, "rows values"]
) -> Float[Tensor, "units values"]:
    """Return F1 = 2 |active and true| / (|active| + |true|) of every unit for every value."""
    both = active.float().T @ labels.float()
    total = active.float().sum(0)[:, None] + labels.float().sum(0)
    return 2 * both / total.clamp(min=1)


@dataclass(frozen=True)
class Found:
    """What detectors got on test scenes: counts by scene, from which every F1 follows."""

    detectors: Detectors
    both: Float[Tensor, "scenes values"]  # |active and true|
    total: Float[Tensor, "scenes values"]  # |active| + |true|

    def by_value(self) -> dict[tuple[str, str], float]:
        """Return F1 for each attribute value."""
        return dict(zip(VALUES, _f1_of(self.both.sum(0), self.total.sum(0)).tolist(), strict=True))

    def mean(self, attribute: str | None = None, draws: int = 2000, seed: int = 0) -> Interval:
        """Return the mean F1 over the values of an attribute, or over all, with its interval.

        Scenes are resampled, since positions of one scene are no independent witnesses.
        """
        means, spread = self._means(attribute, draws, seed)
        low, high = np.percentile(spread, [2.5, 97.5])
        return Interval(means, float(low), float(high), len(self.both))

    def above(
        self, other: Found, attribute: str | None = None, draws: int = 2000, seed: int = 0
    ) -> Interval:
        """Return by how much the mean F1 is above that of others on the same scenes."""
        if self.both.shape != other.both.shape:
            raise ValueError(
                f"{tuple(self.both.shape)} and {tuple(other.both.shape)} (scenes, values): a "
                "paired difference needs the same scenes"
            )
        (a, ours), (b, theirs) = (x._means(attribute, draws, seed) for x in (self, other))
        low, high = np.percentile(ours - theirs, [2.5, 97.5])
        return Interval(a - b, float(low), float(high), len(self.both))

    def _means(self, attribute: str | None, draws: int, seed: int) -> tuple[float, np.ndarray]:
        columns = [i for i, (name, _) in enumerate(VALUES) if attribute in (None, name)]
        both, total = self.both[:, columns].double(), self.total[:, columns].double()
        n = len(both)
        weight = np.random.default_rng(seed).multinomial(n, [1 / n] * n, size=draws)
        times = torch.from_numpy(weight).double()  # (draws, scenes)
        spread = _f1_of(times @ both, times @ total).mean(1).numpy()
        return float(_f1_of(both.sum(0), total.sum(0)).mean()), spread


def _f1_of(both: Tensor, total: Tensor) -> Tensor:
    return 2 * both / total.clamp(min=1)


def score_units(detectors: Detectors, codes: Float[Tensor, "rows units"], places: Places) -> Found:
    """Return what the detectors get on the positions of test scenes."""
    fires = detectors.fire(codes)
    _, scene = places.scene.unique(return_inverse=True)
    sums = torch.zeros(2, int(scene.max()) + 1, fires.shape[1])
    sums[0].index_add_(0, scene, (fires & places.labels).float())
    sums[1].index_add_(0, scene, fires.float() + places.labels.float())
    return Found(detectors, *sums)


def judge_units(
    encode: Callable[[Tensor], Tensor], validation: Places, test: Places, levels: bool = False
) -> Found:
    """Return what the units that stand for the attribute values get on test positions.

    Args:
        encode: (rows, width) -> (rows, units): what each unit says, such as an autoencoder's
            `encode`.
        validation: Positions on which each value's unit is chosen.
        test: Positions that are reported.
        levels: Whether a level is chosen for each unit; else it is active above zero.
    """
    chosen = choose_units(encode(validation.features), validation.labels, levels)
    return score_units(chosen, encode(test.features), test)
