"""Key and value weights of cross-attention, learned as additions to the frozen ones.

W x becomes W x + D x with D = 0 at the start: training D is training W (Ding et al.,
arXiv 2305.12716, train these weights; METHODS.md B.6), while the model's own weights stay as they
are, and leaving the block is all it takes to have the old model back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsd_tutorial.attention.layers import cross_attention_paths

TARGETS = ("to_k", "to_v")
ALLOWED = (*TARGETS, "to_q", "to_out.0")


class KeyValues(nn.Module):
    """`added`: one matrix (out, in), zero at the start, for each target of every cross-attention.

    `targets` are to_k and to_v in the paper; to_q and to_out.0 can be added (*ours*). Float32
    whatever the U-Net's precision is. Raises ValueError for other targets, or none.
    """

    def __init__(self, model: Any, targets: Sequence[str] = TARGETS):
        super().__init__()
        if not targets or set(targets) - set(ALLOWED):
            raise ValueError(f"targets {list(targets)}: need one or more of {', '.join(ALLOWED)}")
        self.paths = {
            f"{path}.{target}".replace(".", "_"): f"{path}.{target}"
            for path in cross_attention_paths(model).values()
            for target in targets
        }
        self._resting = False
        self.added = nn.ParameterDict(
            {
                name: nn.Parameter(
                    torch.zeros(model.unet.get_submodule(path).weight.shape, device=model.device)
                )
                for name, path in self.paths.items()
            }
        )

    @contextmanager
    def active(self, model: Any) -> Iterator[None]:
        """Yield; inside the block the U-Net works with the additions. Restored after errors too."""
        handles = []
        try:
            for name, path in self.paths.items():
                layer = model.unet.get_submodule(path)
                handles.append(layer.register_forward_hook(self._adding(self.added[name])))
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Yield; inside the block, itself inside `active`, the U-Net is the old one."""
        self._resting = True
        try:
            yield
        finally:
            self._resting = False

    def _adding(self, added: Tensor) -> Any:
        def hook(module: nn.Module, args: tuple, out: Tensor) -> Tensor:
            return out if self._resting else out + F.linear(args[0], added.to(args[0].dtype))

        return hook
