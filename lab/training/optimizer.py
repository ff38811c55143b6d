"""Optimisers of the training loop: AdamW, or Muon for matrices with AdamW for all the rest.

Muon makes every direction of a weight matrix move equally far (Jordan et al., 2024): its update is
the momentum with all singular values set to about one, by five Newton-Schulz iterations. Scaled to
AdamW's update size (Liu et al., arXiv 2502.16982) both share one learning rate. The orthogonalising
is torch's own; here it is spread over the processes, each of which updates its share of matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.99)
OPTIMIZERS = ("adamw", "muon")


def make_optimizer(name: str, model: nn.Module, lr: float, weight_decay: float):
    """An optimiser over the model's trainable parameters; vectors are never decayed.

    `name` is one of `OPTIMIZERS`. Raises ValueError for another name, RuntimeError where torch is
    too old for Muon.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}: {' or '.join(OPTIMIZERS)}")
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if name == "muon":
        if not hasattr(torch.optim, "Muon"):
            raise RuntimeError("muon needs torch 2.9 or newer; update it, or use --optimizer adamw")
        matrices = [p for p in decayed if p.ndim == 2]
        groups[0]["params"] = [p for p in decayed if p.ndim > 2]  # convolution kernels
        return Muon(matrices, groups, lr, weight_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=BETAS, fused=True)


class Muon:
    """Muon on `matrices`, AdamW on the parameter groups `others`, as one optimiser."""

    def __init__(self, matrices: list[Tensor], others: list[dict], lr: float, weight_decay: float):
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.world = torch.distributed.get_world_size() if distributed else 1
        rank = torch.distributed.get_rank() if distributed else 0
        # the largest first, dealt in turn, so that the shares cost about the same
        order = sorted(matrices, key=lambda p: (-p.numel(), -p.shape[0]))
        self.shares = [order[r :: self.world] for r in range(self.world)]
        self.rank = rank
        self.muon = torch.optim.Muon(
            self.shares[rank], lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        self.adamw = torch.optim.AdamW(others, lr=lr, betas=BETAS, fused=True)
        self.param_groups = self.muon.param_groups + self.adamw.param_groups
        self._all = [p for group in (*others, {"params": matrices}) for p in group["params"]]

    @torch.no_grad()
    def step(self) -> None:
        """Updates this process's share of the matrices, sends it round, and updates the rest."""
        self.muon.step()
        self.adamw.step()
        if self.world > 1:
            self._exchange()

    def _exchange(self) -> None:
        for rank, share in enumerate(self.shares):
            packed = torch.cat([p.data.reshape(-1) for p in share])
            torch.distributed.broadcast(packed, src=rank)
            if rank != self.rank:
                for p, new in zip(share, packed.split([p.numel() for p in share]), strict=True):
                    p.data.copy_(new.view(p.shape))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients."""
        for parameter in self._all:
            parameter.grad = None

    def state_dict(self) -> dict:
        """The state of both parts; of the matrices this process's share only."""
        return {
            "muon": self.muon.state_dict(),
            "adamw": self.adamw.state_dict(),
            "world": self.world,
        }

    def load_state_dict(self, state: dict) -> None:
        """Takes `state_dict` back.

        The momentum of another process's share starts anew: it is a memory of twenty steps.
        """
        self.adamw.load_state_dict(state["adamw"])
        if self.world == state["world"] == 1:
            self.muon.load_state_dict(state["muon"])
