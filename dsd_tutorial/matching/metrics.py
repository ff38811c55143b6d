"""Measures with their uncertainty: accuracy, paired differences and tests, recall.

Score tables follow `matching.score`: rows are images, columns are texts, higher is better. A tie is
never a success: recall demands a strict win, so that a constant score finds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

Z95 = 1.959963984540054
Numbers = Tensor | np.ndarray | Sequence


@dataclass(frozen=True)
class Interval:
    """A measured value with its 95 % interval and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}], n = {self.n}"

    def as_dict(self) -> dict[str, float | int]:
        """Return the columns of a results table."""
        return asdict(self)


def accuracy(
    correct: Numbers, method: str = "wilson", *, seed: int = 0, draws: int = 2000
) -> Interval:
    """Return the mean of `correct` (items,), numbers in [0, 1], with its 95 % interval.

    Args:
        correct: What was got on each item.
        method: "wilson" (score interval of a binomial share; sound for few items and near 0 or 1)
            or "bootstrap" (percentiles of resampled items).
        seed: Of the bootstrap.
        draws: Of the bootstrap.

    Raises:
        ValueError: no items, NaN among them, or another method.
    """
    values = _numbers(correct)
    share, n = float(values.mean()), len(values)
    if method == "wilson":
        middle = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
        spread = share * (1 - share) / n + Z95**2 / (4 * n**2)
        half = Z95 * math.sqrt(max(spread, 0.0)) / (1 + Z95**2 / n)
        return Interval(share, max(0.0, middle - half), min(1.0, middle + half), n)
    if method == "bootstrap":
        return Interval(share, *_bootstrap(values, seed, draws), n)
    raise ValueError(f"unknown method {method!r}; choose 'wilson' or 'bootstrap'")


def paired_difference(a: Numbers, b: Numbers, *, seed: int = 0, draws: int = 2000) -> Interval:
    """Return mean(a - b) over the same items, with its paired bootstrap 95 % interval.

    a, b (items,): what two methods got on each item, in the same order. Items are resampled as
    pairs, so that what makes an item hard for both cancels.

    Raises:
        ValueError: unequal lengths.
    """
    gap = np.subtract(*_paired(a, b))
    return Interval(float(gap.mean()), *_bootstrap(gap, seed, draws), len(gap))


def seeds_difference(a: Numbers, b: Numbers, *, seed: int = 0, draws: int = 2000) -> Interval:
    """Return mean(a - b) over seeds and items, with its hierarchical paired bootstrap interval.

    a, b (seeds, items): what two methods got on each item, after fitting with each seed. All seeds
    were tested on the same items, so every draw takes seeds with replacement, then items for all of
    them at once: drawn for each seed, one item would count as many, and the interval would be too
    narrow. With two or three seeds the spread between seeds is hardly known, and the interval does
    not say so.

    Raises:
        ValueError: unequal shapes.
    """
    a, b = _grid(a), _grid(b)
    if a.shape != b.shape:
        raise ValueError(f"a is {a.shape} and b {b.shape}: pairs need the same (seeds, items)")
    gap, numbers = a - b, np.random.default_rng(seed)
    seeds, items = gap.shape
    means = np.empty(draws)
    for i in range(draws):
        rows = numbers.integers(seeds, size=seeds)
        means[i] = gap[rows[:, None], numbers.integers(items, size=(1, items))].mean()
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(gap.mean()), float(low), float(high), items)


@dataclass(frozen=True)
class PairedTest:
    """How often one method beats the other on the same items, and how likely that is by chance."""

    wins: int
    losses: int
    ties: int
    p_value: float


def paired_test(a: Numbers, b: Numbers) -> PairedTest:
    """Return the exact two-sided sign test of a against b over the same items, each (items,).

    For right or wrong answers this is McNemar's exact test: only items on which the two differ
    count. With several seeds give each item's mean over them: items are what is independent.

    Raises:
        ValueError: unequal lengths.
    """
    from scipy.stats import binomtest

    a, b = _paired(a, b)
    wins, losses = int((a > b).sum()), int((a < b).sum())
    p_value = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    return PairedTest(wins, losses, len(a) - wins - losses, float(p_value))


def recall_at_k(scores: Float[Tensor, "images texts"], k: int = 1) -> Interval:
    """Return how often the text of the same index is among the k best of an image.

    Rivals with an equal score stand before it.

    Raises:
        ValueError: a table that is not square, or k outside it.
    """
    if scores.shape[0] != scores.shape[1]:
        raise ValueError(f"need (n, n) with partners on the diagonal, not {tuple(scores.shape)}")
    if not 1 <= k <= len(scores):
        raise ValueError(f"k must be 1 to {len(scores)}, not {k}")
    rank = (scores >= scores.diagonal()[:, None]).sum(dim=1)  # 1 = best
    return accuracy(rank <= k)


def _numbers(values: Numbers) -> np.ndarray:
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if not len(array) or np.isnan(array).any():
        raise ValueError("need at least one item, and no NaN among them")
    return array


def _paired(a: Numbers, b: Numbers) -> tuple[np.ndarray, np.ndarray]:
    a, b = _numbers(a), _numbers(b)
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} items and b {len(b)}: paired items must be the same")
    return a, b


def _grid(values: Numbers) -> np.ndarray:
    """Return (seeds, items) float64."""
    shape = np.shape(values.detach().cpu() if isinstance(values, Tensor) else values)
    if len(shape) != 2:
        raise ValueError(f"need (seeds, items), one row per seed, not shape {shape}")
    return _numbers(values).reshape(shape)


def _bootstrap(values: np.ndarray, seed: int, draws: int) -> tuple[float, float]:
    numbers = np.random.default_rng(seed)
    means = [numbers.choice(values, len(values)).mean() for _ in range(draws)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
