"""LoRA: low-rank additions to the cross-attention's own projections, through peft.

W x becomes W x + (alpha / rank) B A x with B = 0 at the start. The code released with He et al.,
arXiv 2305.10722, puts it on all attention layers; here it is on cross-attention alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from dsd_tutorial.attention.layers import choose_layers, cross_attention_paths
from dsd_tutorial.prompt_learning.adapters import Adapter, plain_layers

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


class LoRA(Adapter):
    """Rank-`rank` additions on q, k, v and out of the chosen cross-attention layers.

    Args:
        model: A `StableDiffusion`.
        rank: Of the additions.
        alpha: None is `rank`, so that the addition is B A itself.
        targets: Which projections.
        layers: Which layers, as in `attention.observe`; None for all.
        seed: Draws A.

    Raises:
        ValueError: a rank below 1, unknown targets or unknown layers.
    """

    kind = "lora"
    lr = 5e-3

    def __init__(
        self,
        model: Any,
        *,
        rank: int = 4,
        alpha: int | None = None,
        targets: Sequence[str] = TARGETS,
        layers: str | Sequence[str] | None = None,
        seed: int = 0,
    ):
        super().__init__()
        strange = sorted(set(targets) - set(TARGETS))
        if rank < 1 or strange or not targets:
            raise ValueError(f"rank={rank}, targets={targets}: rank >= 1, of {', '.join(TARGETS)}")
        self.rank, self.alpha, self.seed = rank, alpha, seed
        self.targets = tuple(targets)
        self.chosen_layers = plain_layers(layers)
        chosen = choose_layers(model, layers)
        paths = [
            f"{path}.{target}"
            for name, path in cross_attention_paths(model).items()
            if name in chosen
            for target in targets
        ]
        self._wrapped = _wrap(model.unet, paths, rank, alpha or rank, seed)  # not a submodule: it
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()  # holds the model's weights
        for path, layer in self._wrapped.items():
            layer.to(model.device)
            self.down[_plain(path)] = layer.lora_A["default"].weight  # A (rank, in)
            self.up[_plain(path)] = layer.lora_B["default"].weight  # B (out, rank)

    def config(self) -> dict[str, Any]:
        """Return the keyword arguments that build it anew, as plain values."""
        return {
            "rank": self.rank, "alpha": self.alpha, "targets": list(self.targets),
            "layers": self.chosen_layers, "seed": self.seed,
        }  # fmt: skip

    @contextmanager
    def active(self, model: Any) -> Iterator[None]:
        """Yield; inside the block the projections have their additions.

        Raises:
            RuntimeError: another LoRA is active on one of them.
        """
        before = {path: model.unet.get_submodule(path) for path in self._wrapped}
        twice = [path for path, module in before.items() if hasattr(module, "lora_A")]
        if twice:
            raise RuntimeError(f"LoRA is active already on {twice[0]}: leave that block first")
        try:
            for path, layer in self._wrapped.items():
                layer.base_layer = before[path]
                _put(model.unet, path, layer)
            yield
        finally:
            for path, module in before.items():
                _put(model.unet, path, module)


def _wrap(unet: nn.Module, paths: list[str], rank: int, alpha: int, seed: int) -> dict[str, Any]:
    """Return {path: peft layer} and leave the U-Net as it was."""
    from peft import LoraConfig, inject_adapter_in_model

    pattern = "|".join(re.escape(path) for path in paths)
    settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules=f"({pattern})")
    before = {path: unet.get_submodule(path) for path in paths}
    had = getattr(unet, "peft_config", None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(settings, unet)
    found = {path: unet.get_submodule(path) for path in paths}
    for path, module in before.items():
        _put(unet, path, module)
    if had is None and hasattr(unet, "peft_config"):
        del unet.peft_config
    return found


def _put(root: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    owner = root.get_submodule(parent)
    if isinstance(owner, nn.ModuleList):
        owner[int(name)] = module
    else:
        setattr(owner, name, module)


def _plain(path: str) -> str:
    return path.replace(".", "_")
