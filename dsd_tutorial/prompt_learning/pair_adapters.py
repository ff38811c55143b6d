"""Tip-Adapter and a linear probe on *pair features*, which say whether a pair is a match (*ours*).

The published Tip-Adapter (Zhang et al., arXiv 2111.03930) classifies images into fixed classes by
a cache of labelled ones. Matching has no classes; so a cache entry, and a row of the probe, is a
labelled *pair*, with the features [f_i * f_t, |f_i - f_t|] of CLIP's unit embeddings.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.matching.baselines.clip import pair_features, towers
from dsd_tutorial.matching.baselines.method import Method, NotFittedError
from dsd_tutorial.matching.items import decision_loss, matches, merit
from dsd_tutorial.prompt_learning.coop import trained
from dsd_tutorial.shapes.tasks import Task

ALPHAS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0)  # weight of the cache; 0 is CLIP alone
BETAS = (1.0, 3.0, 5.5, 10.0)  # sharpness of the affinity
STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # C of the probe: the inverse of its regularisation


class _Standard:
    """Features to mean 0 and deviation 1 over the labelled pairs."""

    def __init__(self, features: Tensor):
        rows = features.flatten(0, 1)
        self.mean, self.std = rows.mean(0), rows.std(0).clamp_min(1e-6)

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.std


class TipAdapter(Method):
    """CLIP's logits + alpha * affinity to the cached pairs; training-free.

    affinity = sum_j exp(-beta (1 - <x, x_j>)) y_j over cached pairs x_j at unit length, y_j = 1/n
    for the n matches, -1/n' for the n' others, so that ten candidates do not outweigh two. alpha
    and beta are chosen on the validation items.
    """

    name = "tip"
    needs = "both"

    def __init__(self) -> None:
        self.keys: Tensor | None = None

    def _fit(self, model: Any, items: Task, validation: Task, seed: int, progress: bool) -> int:
        features, self.sharpness = pair_features(model, items), towers(model).logit_scale.exp()
        self.standard = _Standard(features)
        right = matches(items).flatten().to(features.device)
        self.keys = keys = self._unit(features).flatten(0, 1)  # (pairs, 2 d)
        self.values = torch.where(right, 1 / right.sum(), -1 / (~right).sum())
        known = pair_features(model, validation)
        self.alpha, self.beta = self._choose(known, validation, keys, ALPHAS)
        return 0

    def _choose(
        self, known: Tensor, validation: Task, keys: Tensor, alphas: tuple[float, ...]
    ) -> tuple[float, float]:
        """Return the best (alpha, beta); among equals the smallest alpha."""
        grid = list(product(alphas, BETAS))
        reached = [merit(self._logits(known, a, b, keys), validation)[0] for a, b in grid]
        return grid[max(range(len(grid)), key=lambda i: reached[i])]

    def _unit(self, features: Tensor) -> Tensor:
        return F.normalize(self.standard(features), dim=-1)

    def _logits(
        self,
        features: Float[Tensor, "items pairs features"],
        alpha: float,
        beta: float,
        keys: Float[Tensor, "cached features"],
    ) -> Float[Tensor, "items pairs"]:
        cosine = features[..., : features.shape[-1] // 2].sum(-1)  # the sum of f_i * f_t
        affinity = (-beta * (1 - self._unit(features) @ F.normalize(keys, dim=-1).T)).exp()
        return self.sharpness * cosine + alpha * (affinity @ self.values)

    def _score(self, model: Any, items: Task, seed: int, progress: bool) -> Tensor:
        if self.keys is None:
            raise NotFittedError(f"{self.name} has no cache yet: call fit(model, items, ...) first")
        return self._logits(pair_features(model, items), self.alpha, self.beta, self.keys)


class TunedTipAdapter(TipAdapter):
    """Tip-Adapter whose cached keys are trained, from the cache on; the best step is kept.

    Its own pairs are in the cache, so their loss is low from the start: that the validation items
    decide when to stop matters here more than elsewhere.
    """

    name = "tip_tuned"

    def __init__(self, *, steps: int = 100, lr: float = 1e-3, check_every: int = 5) -> None:
        super().__init__()
        if steps < 0 or lr <= 0 or check_every < 1:
            raise ValueError(f"steps={steps}, lr={lr}, check_every={check_every}: must be positive")
        self.steps, self.lr, self.check_every = steps, lr, check_every

    def _fit(self, model: Any, items: Task, validation: Task, seed: int, progress: bool) -> int:
        super()._fit(model, items, validation, seed, progress)
        keys: Any = self.keys
        features, known = pair_features(model, items), pair_features(model, validation)
        alpha, beta = self._choose(
            known, validation, keys, ALPHAS[1:]
        )  # without a cache: no gradient
        self.keys = keys = trained(
            keys,
            lambda keys: decision_loss(self._logits(features, alpha, beta, keys), items),
            lambda keys: merit(self._logits(known, alpha, beta, keys), validation),
            steps=self.steps, lr=self.lr, check_every=self.check_every, fade=False, name="keys",
            progress=progress,
        )  # fmt: skip
        self.alpha, self.beta = self._choose(known, validation, keys, ALPHAS)
        return keys.numel()


class LinearProbe(Method):
    """Logistic regression, match or not, on standardised pair features; C chosen on validation."""

    name = "probe"
    needs = "both"

    def __init__(self) -> None:
        self.weight: Tensor | None = None

    def _fit(self, model: Any, items: Task, validation: Task, seed: int, progress: bool) -> int:
        from sklearn.linear_model import LogisticRegression

        features = pair_features(model, items)
        self.standard = _Standard(features)
        rows = self.standard(features).flatten(0, 1).double().cpu().numpy()
        labels = matches(items).flatten().numpy()
        known, best = pair_features(model, validation), (-1.0, 0.0)
        for strength in STRENGTHS:  # the most regularised first
            probe = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
            probe.fit(rows, labels)
            weight = torch.from_numpy(probe.coef_[0]).to(features)
            reached = merit(self.standard(known) @ weight, validation)
            if reached > best:
                best, self.weight, self.strength = reached, weight, strength
        return features.shape[-1] + 1

    def _score(self, model: Any, items: Task, seed: int, progress: bool) -> Tensor:
        if self.weight is None:
            raise NotFittedError(f"{self.name} has no weights yet: call fit(model, items, ...)")
        return self.standard(pair_features(model, items)) @ self.weight
