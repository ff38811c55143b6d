"""Printable names for the cross-attention layers of a U-Net.

    down.1.0  =  down_blocks.1.attentions.0.transformer_blocks.0.attn2
    mid.0     =  mid_block.attentions.0.transformer_blocks.0.attn2
    up.2.1    =  up_blocks.2.attentions.1.transformer_blocks.0.attn2

The first number counts resolutions (blocks), the second the attention within the block. Where an
attention holds several transformer blocks (SDXL), a third number is added. `attn2` reads the text,
`attn1` the image itself.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

_PATH = re.compile(
    r"(?:^|\.)(down|mid|up)_block(?:s\.(\d+))?\.attentions\.(\d+)\.transformer_blocks\.(\d+)\.attn2$"
)
_STAGES = ("down", "mid", "up")


def cross_attention_paths(model_or_unet: Any) -> dict[str, str]:
    """Return {printable name: module path} of every cross-attention layer, in forward order.

    Takes a U-Net (also one wrapped by peft) or anything that has one as `.unet`.

    Raises:
        ValueError: Where there is no cross-attention layer of the known kind.
    """
    unet = getattr(model_or_unet, "unet", model_or_unet)
    found = []
    for path, module in unet.named_modules():
        match = _PATH.search(path)
        if match and getattr(module, "is_cross_attention", True):
            stage, block, attention, inner = match.groups()
            found.append((_STAGES.index(stage), int(block or 0), int(attention), int(inner), path))
    if not found:
        raise ValueError(
            f"{type(unet).__name__} has no module named like "
            "'down_blocks.0.attentions.0.transformer_blocks.0.attn2': no cross-attention to look at"
        )
    deep = any(inner > 0 for *_, inner, _ in found)
    return {_name(entry, deep): entry[-1] for entry in sorted(found)}


def _name(entry: tuple[int, int, int, int, str], deep: bool) -> str:
    stage, block, attention, inner, _ = entry
    numbers = [attention] if _STAGES[stage] == "mid" else [block, attention]
    return ".".join([_STAGES[stage], *map(str, numbers + [inner] * deep)])


def cross_attention_layers(model_or_unet: Any) -> list[str]:
    """Return the printable names of the cross-attention layers, such as "down.0.0", in order."""
    return list(cross_attention_paths(model_or_unet))


def choose_layers(
    model_or_unet: Any, layers: str | Sequence[str] | None = None
) -> dict[str, nn.Module]:
    """Return {name: module} of the chosen layers, in forward order.

    Args:
        model_or_unet: As in `cross_attention_paths`.
        layers: None for all; a name or the head of names ("up" or "up.2"), or several of them;
            "last" for the last layer of the down, mid and up path each, as in the code released
            with He et al., arXiv 2305.10722.

    Raises:
        ValueError: With the nearest names, for anything else.
    """
    unet = getattr(model_or_unet, "unet", model_or_unet)
    paths = cross_attention_paths(unet)
    if layers is None:
        chosen = set(paths)
    elif layers == "last":
        chosen = set({name.split(".")[0]: name for name in paths}.values())
    else:
        wanted = [layers] if isinstance(layers, str) else list(layers)
        if not wanted:
            raise ValueError("layers is empty: pass None for all layers, or at least one name")
        chosen = {name for want in wanted for name in matching_names(want, paths, "layer")}
    return {name: unet.get_submodule(path) for name, path in paths.items() if name in chosen}


def matching_names(want: str, names: Iterable[str], kind: str) -> list[str]:
    """Return the names that are `want` or begin with it.

    Raises:
        ValueError: With the nearest names, where there is none.
    """
    names = list(names)
    hits = [name for name in names if name == want or name.startswith(f"{want}.")]
    if not hits:
        near = difflib.get_close_matches(str(want), names, n=3, cutoff=0.3)
        hint = f"nearest: {', '.join(near)}; " if near else ""
        raise ValueError(f"unknown {kind} {want!r}; {hint}all: {', '.join(names)}")
    return hits
