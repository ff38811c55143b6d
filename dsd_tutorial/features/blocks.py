"""Printable names for the blocks of a U-Net, whose outputs are its features.

    down.1  =  down_blocks.1        (and so for the others)
    mid     =  mid_block
    up.2    =  up_blocks.2

They are the heads of the names of the cross-attention layers inside them ("up.2.1" lies in "up.2").
A block's features are what it hands on: its hidden states after its last layer, where it has one
its down- or upsampling included. Revelio (arXiv 2411.16725) reads features block by block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from dsd_tutorial.attention.layers import matching_names


def block_modules(model_or_unet: Any) -> dict[str, nn.Module]:
    """Return {printable name: module} of every block of the U-Net, in forward order.

    Takes a U-Net of diffusers, or anything that has one as `.unet`.

    Raises:
        ValueError: There are no blocks of the known kind.
    """
    unet = getattr(model_or_unet, "unet", model_or_unet)
    found: dict[str, nn.Module] = {}
    found |= {f"down.{i}": block for i, block in enumerate(getattr(unet, "down_blocks", ()))}
    if getattr(unet, "mid_block", None) is not None:
        found["mid"] = unet.mid_block
    found |= {f"up.{i}": block for i, block in enumerate(getattr(unet, "up_blocks", ()))}
    if not found:
        raise ValueError(
            f"{type(unet).__name__} has no down_blocks, mid_block or up_blocks: give a U-Net of "
            "diffusers, or a model that has one"
        )
    return found


def choose_blocks(
    model_or_unet: Any, blocks: str | Sequence[str] | None = None
) -> dict[str, nn.Module]:
    """Return {name: module} of the chosen blocks, in forward order.

    `blocks` is None for all; a name or the head of names ("up" or "up.2"), or several of them.

    Raises:
        ValueError: With the nearest names, for anything else.
    """
    known = block_modules(model_or_unet)
    if blocks is None:
        return known
    wanted = [blocks] if isinstance(blocks, str) else list(blocks)
    if not wanted:
        raise ValueError("blocks is empty: pass None for all blocks, or at least one name")
    chosen = {name for want in wanted for name in matching_names(want, known, "block")}
    return {name: module for name, module in known.items() if name in chosen}


def hidden_of(output: Any) -> Tensor:
    """Return the hidden states (batch, channels, height, width) among what a block returned.

    A down block returns them with the states that its skip connections carry.
    """
    return output[0] if isinstance(output, tuple) else output
