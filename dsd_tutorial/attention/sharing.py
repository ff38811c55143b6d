"""Rows of a batch that are alike are computed once.

When ten texts are asked about one noisy image, ten rows enter the U-Net alike, and stay so until
the first cross-attention reads the text; and a text that is asked at ten time steps has the same
keys and values in each. Hooks take the distinct rows into the modules concerned and lay the results
out again: the forward pass is that of diffusers, and each row gets what it would have got.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from dsd_tutorial.attention.layers import choose_layers


@contextmanager
def shared_rows(
    unet: Any, fields: Int[Tensor, " batch"], texts: Int[Tensor, " batch"]
) -> Iterator[None]:
    """Inside, rows with an equal number in `fields`, or in `texts`, are computed once.

    Args:
        unet: A U-Net of diffusers; every pass inside must have these rows.
        fields: Equal where noisy latents and time step are.
        texts: Equal where the prompt is.
    """
    keys: list[Any] = [f for a in choose_layers(unet).values() for f in (a.to_k, a.to_v)]
    with ExitStack() as stack:
        for modules, numbers in ((before_text(unet), fields), (keys, texts)):
            _, first, place = np.unique(numbers.cpu(), return_index=True, return_inverse=True)
            if len(first) == len(place):
                continue
            device = unet.device
            rows, place = (torch.from_numpy(x).to(device) for x in (first, place))
            for module in modules:
                stack.enter_context(_once(module, rows, place))
        yield


def before_text(unet: Any) -> list[nn.Module]:
    """Return the modules whose output no text can have changed, in forward order."""
    found: list[nn.Module] = [unet.conv_in]
    for block in unet.down_blocks:
        attentions = getattr(block, "attentions", None)
        if attentions is not None:
            inner = attentions[0].transformer_blocks[0]
            self_attention = [] if inner.attn1.is_cross_attention else [inner.norm1, inner.attn1]
            first = [attentions[0].norm, attentions[0].proj_in]
            return [*found, block.resnets[0], *first, *self_attention]
        found += [*block.resnets, *(block.downsamplers or [])]
    return found


@contextmanager
def _once(module: nn.Module, rows: Tensor, place: Tensor) -> Iterator[None]:
    def distinct(module: nn.Module, args: tuple) -> tuple:
        return tuple(x[rows] if isinstance(x, Tensor) else x for x in args)

    def laid_out(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return output[place]

    hooks = module.register_forward_pre_hook(distinct), module.register_forward_hook(laid_out)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
