"""Features of a U-Net's blocks, observed by forward hooks: what to keep is decided inside the hook.

    down.1 is down_blocks.1, mid is mid_block, up.2 is up_blocks.2

These are the heads of the names of the cross-attention layers inside ("up.2.1" lies in "up.2"). A
block's features are what it hands on: its hidden states after its last layer, where it has one its
down- or upsampling included. Revelio (arXiv 2411.16725) reads features block by block.

    with capture(model, ["mid", "up"], {"mean": pooled, "grid": grid}) as seen:
        model.predict_noise(noisy, 500, model.encode_text([""]))
    seen["mid", "mean"]                                      # (batch, channels)

A block of a real Stable Diffusion hands on megabytes for each image. A hook that kept them all
would fill any memory; one that keeps their mean keeps a few kilobytes. The pass itself is not
touched: its output is bit for bit what it is without hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dsd_tutorial.attention.layers import matching_names

# (batch, channels, height, width) -> (batch, ...): what is kept of a block's hidden states
Reduce = Callable[[Tensor], Tensor]


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

    Args:
        model_or_unet: As in `block_modules`.
        blocks: None for all; a name or the head of names ("up" or "up.2"), or several of them.

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


def pooled(
    hidden: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels"]:
    """Return the mean over positions, as Revelio reads features: *where* is lost."""
    return hidden.mean((2, 3))


def grid(
    hidden: Float[Tensor, "batch channels height width"], side: int = 2
) -> Float[Tensor, "batch parts"]:
    """Return the means over the cells of a coarse grid, `side` by `side`, one after another.

    Cell by cell, row by row; parts = side * side * channels. What is above or left survives.
    """
    cells = F.adaptive_avg_pool2d(hidden, side)  # (batch, channels, side, side)
    return cells.permute(0, 2, 3, 1).flatten(1)


def at_masks(
    hidden: Float[Tensor, "batch channels height width"],
    masks: Bool[Tensor, "batch regions rows columns"],
) -> Float[Tensor, "batch regions channels"]:
    """Return the mean over the positions of each mask, weighted by how much of them it covers.

    Positions that a mask covers less than half as well as its best one are left out: there other
    things mix in. An empty mask gives zeros. Masks may be of any size.
    """
    height, width = hidden.shape[-2:]
    share = F.adaptive_avg_pool2d(masks.to(hidden), (height, width))
    share = share * (share >= 0.5 * share.amax((2, 3), keepdim=True))
    weight = share / share.sum((2, 3), keepdim=True).clamp(min=1e-9)
    return torch.einsum("bchw,brhw->brc", hidden, weight)


def positions(
    hidden: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch places channels"]:
    """Return every position's features, row by row: everything, so choose few blocks."""
    return hidden.flatten(2).transpose(1, 2)


class Captured:
    """Features by (block, kind), the rows of all passes in the order of the passes."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, str], list[Tensor]] = {}

    def add(self, block: str, kind: str, rows: Tensor) -> None:
        """Keep the rows of one pass, in float32 on the CPU."""
        self._parts.setdefault((block, kind), []).append(rows.detach().float().cpu())

    def __getitem__(self, key: str | tuple[str, str]) -> Tensor:
        """Return (rows, ...) of a block and kind; of the block alone where there is one kind.

        Raises:
            KeyError: Nothing was captured under that name.
        """
        block, kind = key if isinstance(key, tuple) else (key, None)
        found = [k for k in self._parts if k[0] == block and kind in (None, k[1])]
        if len(found) != 1:
            known = ", ".join(f"{b} {k}" for b, k in self._parts) or "none: no pass was run"
            raise KeyError(f"{key!r} names {len(found)} of what was captured ({known})")
        return torch.cat(self._parts[found[0]])

    def keys(self) -> list[tuple[str, str]]:
        """Return the (block, kind) pairs that were captured."""
        return list(self._parts)


@contextmanager
def capture(
    model_or_unet: Any,
    blocks: str | Sequence[str] | None = None,
    keep: Reduce | Mapping[str, Reduce] = pooled,
) -> Iterator[Captured]:
    """Yield a `Captured` that every U-Net pass inside the block fills; nothing is left behind.

    Args:
        model_or_unet: A `StableDiffusion`, or a U-Net of diffusers.
        blocks: As in `choose_blocks`: names or heads of names ("mid", "up"), None for all.
        keep: What is kept of a block's hidden states: a function such as `pooled`, `grid` or
            `positions`, or kind -> such a function.

    Raises:
        ValueError: For an unknown block, before anything runs.
    """
    kinds = keep if isinstance(keep, Mapping) else {getattr(keep, "__name__", "kept"): keep}
    seen = Captured()

    def hook_of(name: str) -> Callable[..., None]:
        def hook(module: Any, given: Any, output: Any) -> None:
            hidden = hidden_of(output)
            for kind, reduce in kinds.items():
                seen.add(name, kind, reduce(hidden))

        return hook

    with ExitStack() as stack:
        for name, module in choose_blocks(model_or_unet, blocks).items():
            stack.callback(module.register_forward_hook(hook_of(name)).remove)
        yield seen
