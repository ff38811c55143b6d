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
    """For each attribute value the units that stand for it, and the levels above which they do.

    Row 0 has the best unit of each value, row 1 the one that helps it most, and so on.
    """

    unit: Int64[Tensor, "count values"]
    level: Float[Tensor, "count values"]

    def fire(self, codes: Float[Tensor, "rows units"]) -> Bool[Tensor, "rows values"]:
        """Return where any of a value's units is active."""
        return (codes[:, self.unit] > self.level).any(1)


def choose_units(
    codes: Float[Tensor, "rows units"],
    labels: Bool[Tensor, "rows values"],
    levels: bool = False,
    count: int = 1,
) -> Detectors:
    """Return the unit with the best F1 for each value, on validation rows; or the best few.

    Args:
        codes: What each unit says of each row; it counts as active above zero.
        labels: What is true.
        levels: Whether the level, too, is chosen: the best of all that tell two rows apart.
        count: How many units may stand for a value, chosen one after the other; one that does not
            help gets a level that nothing is above.

    Raises:
        ValueError: Several units without levels of their own.
    """
    if not levels:
        if count > 1:
            raise ValueError(f"count={count} without levels: several units need levels=True")
        unit = f1(codes > 0, labels).argmax(0)
        return Detectors(unit[None], torch.zeros(1, len(unit)))
    sorted_codes = codes.sort(dim=0, descending=True)
    columns = [_greedy(codes, sorted_codes, labels[:, i], count) for i in range(labels.shape[1])]
    unit, level = zip(*columns, strict=True)
    return Detectors(torch.tensor(unit).T, torch.tensor(level).T)


def _greedy(
    codes: Float[Tensor, "rows units"],
    sorted_codes: tuple[Tensor, Tensor],
    label: Bool[Tensor, " rows"],
    count: int,
) -> tuple[list[int], list[float]]:
    """Return units and levels for one value: each the best beside those before it."""
    covered, reached = torch.zeros(len(codes), dtype=torch.bool), 0.0
    units, levels = [0] * count, [torch.inf] * count
    for i in range(count):
        if i > 0:  # what is covered is active anyway
            shown = codes.masked_fill(covered[:, None], torch.inf)
            sorted_codes = shown.sort(dim=0, descending=True)
        best, level = _best_levels(*sorted_codes, label)
        unit = int(best.argmax())
        if float(best[unit]) <= reached:
            break
        units[i], levels[i], reached = unit, float(level[unit]), float(best[unit])
        covered = covered | (codes[:, unit] > level[unit])
    return units, levels


def _best_levels(
    ranked: Float[Tensor, "rows units"],
    order: Int64[Tensor, "rows units"],
    label: Bool[Tensor, " rows"],
) -> tuple[Float[Tensor, " units"], Float[Tensor, " units"]]:
    """Return the best F1 of each unit for one value, and the level that gives it.

    Codes come from the highest to the lowest, with the rows that they are of.
    """
    both = label.float()[order].cumsum(0)  # (rows, units): with the r first rows active
    active = torch.arange(1, len(ranked) + 1)[:, None]
    score = _f1_of(both, active + both[-1])
    after = torch.cat([ranked[1:], ranked[-1:] - 1])
    score = score.masked_fill(ranked == after, -1.0)  # equal codes are active together
    best, last = score.max(0)
    low, high = after.gather(0, last[None])[0], ranked.gather(0, last[None])[0]
    return best, torch.where(high.isinf(), low, (low + high) / 2)


def f1(
    active: Bool[Tensor, "rows units"], labels: Bool[Tensor, "rows values"]
) -> Float[Tensor, "units values"]:
    """Return F1 = 2 |active and true| / (|active| + |true|) of every unit for every value."""
    both = active.float().T @ labels.float()
    return _f1_of(both, active.float().sum(0)[:, None] + labels.float().sum(0))


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

        Scenes are resampled, since rows of one scene are no independent witnesses.
        """
        return self._interval(*self._means(attribute, draws, seed))

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
        return self._interval(a - b, ours - theirs)

    def _interval(self, value: float, spread: np.ndarray) -> Interval:
        low, high = np.percentile(spread, [2.5, 97.5])
        return Interval(value, float(low), float(high), len(self.both))

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
    """Return what the detectors get on rows of test scenes."""
    fires = detectors.fire(codes)
    _, scene = places.scene.unique(return_inverse=True)
    sums = torch.zeros(2, int(scene.max()) + 1, fires.shape[1])
    sums[0].index_add_(0, scene, (fires & places.labels).float())
    sums[1].index_add_(0, scene, fires.float() + places.labels.float())
    return Found(detectors, *sums)


def judge_units(
    encode: Callable[[Tensor], Tensor],
    validation: Places,
    test: Places,
    levels: bool = False,
    count: int = 1,
) -> Found:
    """Return what the units that stand for the attribute values get on test rows.

    `encode` is (rows, width) -> (rows, units), such as an autoencoder's. Units are chosen on the
    rows of `validation`; `levels` and `count` are as in `choose_units`.
    """
    chosen = choose_units(encode(validation.features), validation.labels, levels, count)
    return score_units(chosen, encode(test.features), test)
