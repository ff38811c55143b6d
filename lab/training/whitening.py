"""Cross-attention learns on whitened text states: an exact change of coordinates, undone after.

A contrastive text encoder says some things by large differences and some by tiny ones: two captions
that differ in a colour have EOS states with a cosine near one half, two that differ in "left" and
"right" one near 0.999. A linear probe reads both without error, but gradient descent follows the
large ones, and position and relation come ages later or never. In coordinates in which the states'
second moment is the identity all have the same scale. Keys and values are linear in the states, so
with W' = W P^-1 and c' = P c nothing changes (W' c' = W c) but the way the loss looks to the
optimiser.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

FLOOR = 1e-3  # of the mean second moment: directions below it are noise


@torch.no_grad()
def whitening(states: Tensor, floor: float = FLOOR) -> tuple[Tensor, Tensor]:
    """P = (M + floor tr(M)/d I)^(-1/2) and its inverse, both (d, d), of states (..., d).

    M is the second moment about zero, since keys and values have no bias that could take a mean.
    """
    flat = states.reshape(-1, states.shape[-1]).double()
    moment = flat.T @ flat / len(flat)
    values, vectors = torch.linalg.eigh(moment)
    values = values.clamp(min=0) + floor * values.mean()
    whiten = vectors * values.rsqrt() @ vectors.T
    back = vectors * values.sqrt() @ vectors.T
    return whiten.float(), back.float()


def readers(unet: nn.Module) -> Iterator[nn.Linear]:
    """The layers that read the text states: to_k and to_v of every cross-attention."""
    for name, module in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            yield module


@torch.no_grad()
def change_coordinates(unet: nn.Module, matrix: Tensor) -> None:
    """Multiplies every reader's weight (out, d) by `matrix` (d, d) from the right, in place.

    With `back` of `whitening` the U-Net then expects whitened states, with P plain ones again.
    """
    for layer in readers(unet):
        matrix = matrix.to(layer.weight.device)
        layer.weight.copy_((layer.weight.double() @ matrix.double()).to(layer.weight.dtype))
