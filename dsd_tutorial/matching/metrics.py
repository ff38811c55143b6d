"""Measures with their uncertainty: accuracy, paired differences and tests, Winoground, recall.

Score tables follow `matching.score`: rows are images, columns are texts, higher is better. A tie is
never a success by luck: among k equal best candidates the right one counts 1/k, and Winoground and
recall demand a strict win, so that a constant score gets chance, or nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Z95 = 1.959963984540054


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
        """Return {"value", "low", "high", "n"}, as metrics files hold it."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def hits(scores: Tensor, positive: Sequence[int] | Tensor) -> Tensor:
    """Return 1 where the right candidate scores best, (items,); a tie of k counts 1/k.

    scores (items, candidates), positive (items,) the index of the right one.
    Raises ValueError for scores that are not numbers.
    """
    if bool(torch.isnan(scores).any()):
        raise ValueError("scores hold NaN: no candidate is best")
    positive = torch.as_tensor(positive, device=scores.device)
    best = scores == scores.amax(dim=1, keepdim=True)
    won = best.gather(1, positive[:, None])[:, 0]
    return won.float() / best.sum(dim=1)


def accuracy(correct: Any, method: str = "wilson", *, seed: int = 0, draws: int = 2000) -> Interval:
    """Return the mean of `correct` (items,), numbers in [0, 1], with its 95 % interval.

    `method`: "wilson" (score interval of a binomial share; sound for few items and near 0 or 1) or
    "bootstrap" (percentiles of resampled items). Raises ValueError for no items or another method.
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


def paired_difference(a: Any, b: Any, *, seed: int = 0, draws: int = 2000) -> Interval:
    """Return mean(a - b) over the same items, with its paired bootstrap 95 % interval.

    a, b (items,): what two methods got on each item, in the same order. Items are resampled as
    pairs, so that what makes an item hard for both cancels. Raises ValueError for unequal lengths.
    """
    a, b = _numbers(a), _numbers(b)
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} items and b {len(b)}: a paired difference needs the same")
    return Interval(float((a - b).mean()), *_bootstrap(a - b, seed, draws), len(a))


def seeds_difference(
    a: Any, b: Any, *, shared_items: bool = True, seed: int = 0, draws: int = 2000
) -> Interval:
    """Return mean(a - b) over seeds and items, with its hierarchical paired bootstrap interval.

    a, b (seeds, items): what two methods got on each item, after fitting with each seed. Every draw
    takes seeds with replacement, then items within them. `shared_items`: all seeds were tested on
    the same items, so an item is drawn for all seeds at once; False: each seed has items of its
    own. Shared items drawn per seed would count one item as many, and the interval would be too
    narrow; the reverse is no mistake. With two or three seeds the spread between seeds is hardly
    known: that is said by n, not by the interval. `n` counts different items.
    Raises ValueError for unequal shapes.
    """
    a, b = _grid(a), _grid(b)
    if a.shape != b.shape:
        raise ValueError(f"a is {a.shape} and b {b.shape}: pairs need the same (seeds, items)")
    gap, numbers = a - b, np.random.default_rng(seed)
    seeds, items = gap.shape
    means = np.empty(draws)
    for i in range(draws):
        rows = numbers.integers(seeds, size=seeds)
        size = (1, items) if shared_items else (seeds, items)
        means[i] = gap[rows[:, None], numbers.integers(items, size=size)].mean()
    low, high = np.percentile(means, [2.5, 97.5])
    n = items if shared_items else seeds * items
    return Interval(float(gap.mean()), float(low), float(high), n)


@dataclass(frozen=True)
class PairedTest:
    """How often one method beats the other on the same items, and how likely that is by chance."""

    wins: int
    losses: int
    ties: int
    p_value: float

    def __str__(self) -> str:
        return f"{self.wins} wins, {self.losses} losses, {self.ties} ties, p = {self.p_value:.2g}"


def paired_test(a: Any, b: Any) -> PairedTest:
    """Return the exact two-sided sign test of a against b over the same items, each (items,).

    For right or wrong answers this is McNemar's exact test: only items on which the two differ
    count. With several seeds give each item's mean over them: items are what is independent.
    Raises ValueError for unequal lengths.
    """
    from scipy.stats import binomtest

    a, b = _numbers(a), _numbers(b)
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} items and b {len(b)}: a paired test needs the same")
    wins, losses = int((a > b).sum()), int((a < b).sum())
    p_value = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    return PairedTest(wins, losses, len(a) - wins - losses, float(p_value))


def winoground(scores: Tensor) -> dict[str, Interval]:
    """Return {"text", "image", "group"} scores from (items, 2 images, 2 texts).

    Text: each image prefers its own text; image: each text prefers its own image; group: both
    (Thrush et al., arXiv 2204.03162). Wins are strict. Chance: 1/4, 1/4, 1/6.
    """
    if scores.ndim != 3 or scores.shape[1:] != (2, 2):
        raise ValueError(f"scores must be (items, 2 images, 2 texts), not {tuple(scores.shape)}")
    (a, b), (c, d) = scores.permute(1, 2, 0)  # a: image 0, text 0; b: image 0, text 1
    text = (a > b) & (d > c)
    image = (a > c) & (d > b)
    return {k: accuracy(v) for k, v in (("text", text), ("image", image), ("group", text & image))}


def recall_at_k(scores: Tensor, k: int = 1, direction: str = "image_to_text") -> Interval:
    """Return how often the partner is among the k best, from (n, n) scores with the diagonal right.

    `direction`: "image_to_text" ranks each row, "text_to_image" each column. Rivals with an equal
    score stand before the partner. Raises ValueError for a table that is not square.
    """
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(f"scores must be (n, n) with partners on the diagonal, {scores.shape}")
    if direction not in ("image_to_text", "text_to_image"):
        raise ValueError(f"direction {direction!r}: choose 'image_to_text' or 'text_to_image'")
    if not 1 <= k <= len(scores):
        raise ValueError(f"k must be 1 to {len(scores)}, not {k}")
    table = scores if direction == "image_to_text" else scores.T
    rank = (table >= table.diagonal()[:, None]).sum(dim=1)  # 1 = best
    return accuracy(rank <= k)


def pointing_rate(hit: Any, chance: Any) -> tuple[Interval, Interval]:
    """Return the hit rate of the pointing game, and its paired gain over blind pointing.

    hit (items,) in {0, 1}; chance (items,) each mask's share of the picture.
    """
    return accuracy(hit), paired_difference(hit, chance)


def _numbers(values: Any) -> np.ndarray:
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if not len(array) or np.isnan(array).any():
        raise ValueError("need at least one item, and no NaN among them")
    return array


def _grid(values: Any) -> np.ndarray:
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
