"""From pairs of noise predictions to nats: the standard and the orthogonal estimate, and maps.

    i_s = 1/2 integral over a of E_e [ |e - eps(z_a)|^2 - |e - eps(z_a | y)|^2 ] da
    i_o = 1/2 integral over a of E_e [ |eps(z_a) - eps(z_a | y)|^2 ] da

Kong et al., arXiv 2310.07972, section 2. For an ideal denoiser i_s of one (x, y) is log p(x | y) -
log p(x), and may be negative. The two differ by (e - eps(z_a | y)) (eps(z_a | y) - eps(z_a)), whose
mean over x given y is zero, since eps(z_a | y) is then the best guess of e (orthogonality): i_o has
the same mean, is never negative and spreads less. For a y that does not belong to x the cross term
is not zero, and i_o says no more than how much was changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.information.levels import Levels
from dsd_tutorial.shapes.scene import check_known

KINDS = ("orthogonal", "standard")


class Integrands(NamedTuple):
    """What one level and noise says, in nats per unit of log-SNR."""

    standard: Float[Tensor, "rows ..."]  # summed over channels alone
    orthogonal: Float[Tensor, "rows ..."]
    errors: Float[Tensor, "rows 2"]  # |e - eps|^2 without and with the text, of the whole field


def integrands(
    e: Float[Tensor, "#rows channels ..."],
    without: Float[Tensor, "#rows channels ..."],
    under: Float[Tensor, "rows channels ..."],
) -> Integrands:
    """Return the integrands of i_s and i_o at every place.

    Args:
        e: The noise that was added.
        without: Its prediction without the text (or without the word).
        under: Its prediction under the text.
    """
    before, after = (e - without).square(), (e - under).square()
    return Integrands(
        (before - after).sum(1) / 2,
        (without - under).square().sum(1) / 2,
        torch.stack([before.flatten(1).sum(1).expand(len(under)), after.flatten(1).sum(1)], 1),
    )


@dataclass(frozen=True)
class Information:
    """What each text says about its image, by noise level and place.

    Map and total come from the same passes, so that a map sums to its total.

    Attributes:
        standard: The integrand of i_s, the mean over the noises.
        orthogonal: The integrand of i_o.
        errors: |e - eps|^2 without and with the text, the mean over the noises.
        levels: The levels and their weights.
    """

    standard: Float[Tensor, "pairs levels ..."]
    orthogonal: Float[Tensor, "pairs levels ..."]
    errors: Float[Tensor, "pairs levels 2"]
    levels: Levels

    def map(self, kind: str = "orthogonal") -> Float[Tensor, "pairs ..."]:
        """Return nats at each place of the latents, "orthogonal" or "standard"."""
        found = self._of(kind)
        return torch.einsum("pl...,l->p...", found.double(), self.levels.weights).float()

    def total(self, kind: str = "orthogonal") -> Float[Tensor, " pairs"]:
        """Return nats: the sum of the map."""
        return (self.by_level(kind).double() @ self.levels.weights).float()

    def by_level(self, kind: str = "orthogonal") -> Float[Tensor, "pairs levels"]:
        """Return the integrand, in nats per unit of log-SNR."""
        return self._of(kind).double().flatten(2).sum(2).float()

    def tails(self, kind: str = "orthogonal") -> Float[Tensor, "pairs 2"]:
        """Return about how many nats lie below the lowest and above the highest level.

        Towards pure noise eps(z) - eps(z | y) = exp(a / 2) (x_hat(z | y) - x_hat(z)), and the
        guesses x_hat no longer change with a, so the integrand falls like exp(a); towards no noise
        it falls like exp(-a), if the densities are smooth. The integral of such a tail is the
        integrand where it begins.
        """
        ends = self.levels.log_snr.argmin(), self.levels.log_snr.argmax()
        return self.by_level(kind)[:, list(ends)]

    def at(self, levels: Levels) -> Information:
        """Return the same at some of its time steps, with the weights of `levels`.

        Raises:
            ValueError: a time step that was not computed.
        """
        have = list(self.levels.steps or ())
        if missing := [t for t in levels.steps or () if t not in have]:
            raise ValueError(f"time step {missing[0]} was not computed; there are {have}")
        rows = [have.index(t) for t in levels.steps or ()]
        parts = {name: getattr(self, name)[:, rows] for name in ("standard", "orthogonal")}
        return replace(self, errors=self.errors[:, rows], levels=levels, **parts)

    def _of(self, kind: str) -> Tensor:
        check_known("kind", kind, KINDS)
        return getattr(self, kind)
