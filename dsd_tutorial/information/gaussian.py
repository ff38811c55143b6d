"""A world in which the information is a formula: Gaussian data, seen through a linear observation.

    x ~ N(0, S),   y = H x + N(0, R)

Its ideal denoisers are linear, so that an estimate can be held to what it should find.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LinearGaussian:
    """Gaussian data with a noisy linear observation; everything is float64.

    Attributes:
        prior: S, the covariance of x.
        observe: H.
        noise: R, the covariance of the observation's noise.
    """

    prior: Float[Tensor, "size size"]
    observe: Float[Tensor, "seen size"]
    noise: Float[Tensor, "seen seen"]

    @classmethod
    def random(cls, size: int = 6, seen: int = 2, spread: float = 0.5, seed: int = 0):
        """Return a world with unit variances; `spread` is the deviation of the observation."""
        numbers = torch.Generator().manual_seed(seed)
        root = torch.randn(size, size, generator=numbers, dtype=torch.float64)
        prior = root @ root.T + 0.1 * torch.eye(size).double()
        scale = prior.diagonal().rsqrt()
        observe = torch.randn(seen, size, generator=numbers, dtype=torch.float64) / size**0.5
        return cls(scale[:, None] * prior * scale, observe, spread**2 * torch.eye(seen).double())

    @cached_property
    def gain(self) -> Float[Tensor, "size seen"]:
        """Return K with E[x | y] = K y."""
        seen = self.observe @ self.prior @ self.observe.T + self.noise
        return torch.linalg.solve(seen, self.observe @ self.prior).T

    @cached_property
    def posterior(self) -> Float[Tensor, "size size"]:
        """Return the covariance of x given y."""
        return self.prior - self.gain @ self.observe @ self.prior

    def sample(
        self, n: int, seed: int = 0
    ) -> tuple[Float[Tensor, "{n} size"], Float[Tensor, "{n} seen"]]:
        """Return n pairs (x, y)."""
        numbers = torch.Generator().manual_seed(seed)

        def normal(covariance: Tensor) -> Tensor:
            white = torch.randn(n, len(covariance), generator=numbers, dtype=torch.float64)
            return white @ torch.linalg.cholesky(covariance).T

        x = normal(self.prior)
        return x, x @ self.observe.T + normal(self.noise)

    def mutual_information(self) -> float:
        """Return the mean of log p(x | y) - log p(x): half the log of a ratio of determinants."""
        return float(torch.logdet(self.prior) - torch.logdet(self.posterior)) / 2

    def pointwise(
        self, x: Float[Tensor, "rows size"], y: Float[Tensor, "rows seen"]
    ) -> Float[Tensor, " rows"]:
        """Return log p(x | y) - log p(x) of each pair, in nats."""
        after = torch.distributions.MultivariateNormal(y @ self.gain.T, self.posterior)
        before = torch.distributions.MultivariateNormal(torch.zeros_like(x[0]), self.prior)
        return after.log_prob(x) - before.log_prob(x)

    def denoiser(
        self, y: Float[Tensor, "rows seen"] | None = None
    ) -> Callable[[Tensor, float], Tensor]:
        """Return the ideal (z, a) -> predicted noise; given y, the one that knows it.

        With q = sigmoid(a), the best guess of x is m + sqrt(q) C (q C + (1 - q) 1)^-1 (z - sqrt(q)
        m) for mean m and covariance C, and the noise is (z - sqrt(q) x) / sqrt(1 - q), which is
        sqrt(1 - q) (q C + (1 - q) 1)^-1 (z - sqrt(q) m). z is (rows, 1, size).
        """
        mean = 0.0 if y is None else (y @ self.gain.T)[:, None]
        covariance = self.prior if y is None else self.posterior
        one = torch.eye(len(covariance), dtype=torch.float64)

        def predict(z: Tensor, a: float) -> Tensor:
            q = torch.tensor(a, dtype=torch.float64).sigmoid()
            rest = torch.tensor(-a, dtype=torch.float64).sigmoid()  # 1 - q, without rounding
            spread = q * covariance + rest * one
            off = z - q.sqrt() * mean
            return rest.sqrt() * torch.linalg.solve(spread, off.transpose(-1, -2)).transpose(-1, -2)

        return predict
