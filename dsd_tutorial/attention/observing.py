"""Observe and alter the cross-attention of a U-Net, without a fork of its forward pass.

    with observe(model, layers=["mid.0", "up"]) as seen:
        model.predict_noise(noisy, 500, model.encode_text(["a red circle"]))
    seen.scores["mid.0"]                                     # (batch, heads, pixels)

Per head, Q comes from the pixels and K from the text; logits = Q K^T / sqrt(d_head). The score of a
pixel is the log-sum-exp of its raw logits over the tokens (He et al., arXiv 2305.10722, as in the
released code; `pooling.py` has the general form). What is reported are the logits the pass really
used: the outputs of `to_q` and `to_k` themselves (so LoRA is in them), or what an altering
processor says it used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from dsd_tutorial.attention.layers import choose_layers
from dsd_tutorial.attention.pooling import Normalise
from dsd_tutorial.attention.processors import AlteredAttnProcessor, Edit, FusedAttnProcessor, Prefix
from dsd_tutorial.attention.watching import STOCK, Masks, Observation, Request, Watch, check_masks


class NothingCaptured(RuntimeError):
    """A layer that was to be observed never computed attention."""


@contextmanager
def observe(
    model_or_unet: Any,
    layers: str | Sequence[str] | None = None,
    token_mask: Masks = None,
    lam: float = 1.0,
    maps: bool = False,
    grad: bool = False,
    *,
    logits: bool = False,
    normalise: Normalise = "auto",
    keep: Literal["last", "mean", "all"] = "last",
    reduce_maps: Callable[[Tensor], Tensor | None] | None = None,
    reduce_logits: Callable[[Tensor], Tensor] | None = None,
    fused: bool = True,
) -> Iterator[Observation]:
    """Yield an `Observation` that every U-Net pass inside the block fills.

    layers      names or heads of names ("up.2.1", "up"), None for all, "last" (see `layers.py`)
    token_mask  bool (tokens,) or (batch, tokens): the tokens the score reads; or a sequence of
                such masks (None = all tokens), scores are then (masks, batch, heads, pixels)
    lam         lambda of LSE_lambda(x) = (1 / lambda) log mean exp(lambda x)
    maps        also keep softmax probabilities (batch, heads, pixels, tokens); `reduce_maps` is
                applied to each as it is captured, so that less has to be kept; where it
                returns None the pass is left out altogether
    logits      also keep raw logits, the same shape; `reduce_logits` is applied likewise
    grad        keep the graph, so that scores can be trained on
    normalise   "auto": the plain log-partition (sum) for all tokens at lambda = 1, otherwise the
                mean form, in which a caption gains nothing by its length; or "sum", "mean"
    keep        what to do with several passes: the last, the running mean, or all of them
    fused       allow the fused kernel's own log-partition where nothing else is asked for and
                gradients are off; `seen.path` says which way was taken

    Raises ValueError for an unknown layer or a bad mask, and `NothingCaptured` at the end of the
    block if a chosen layer was never run. The U-Net is left as it was found, after errors too.
    """
    if keep not in ("last", "mean", "all"):
        raise ValueError(f"keep must be 'last', 'mean' or 'all', not {keep!r}")
    check_masks(token_mask)
    modules = choose_layers(model_or_unet, layers)
    logits = logits or reduce_logits is not None
    request = Request(
        token_mask, lam, normalise, maps, logits, grad, keep, reduce_maps, reduce_logits, fused
    )
    request.check()
    seen = Observation()
    with ExitStack() as stack:
        for name, attn in modules.items():
            plain = type(attn.processor).__name__ == "AttnProcessor2_0"
            if request.fusable and plain:
                stack.enter_context(_processor(attn, FusedAttnProcessor()))
            stack.callback(Watch(name, attn, request, seen).remove)
        yield seen
    missing = [name for name in modules if name not in seen.calls]
    if missing:
        raise NothingCaptured(
            f"no attention was computed in {', '.join(missing)} inside the observe block: run the "
            "U-Net (model.predict_noise or model.sample) inside it; fused projections "
            "(fuse_qkv_projections) hide Q and K, undo them first"
        )
    if keep == "all":
        for store in (seen.scores, seen.maps, seen.logits):
            store.update({name: torch.stack(values) for name, values in store.items()})


@contextmanager
def alter(
    model_or_unet: Any,
    edit: Edit | None = None,
    *,
    layers: str | Sequence[str] | None = None,
    prefix: Mapping[str, Prefix] | None = None,
) -> Iterator[list[str]]:
    """Yield the names of the altered layers; inside the block they attend in another way.

    edit    function of (logits, layer name) that returns logits of the same shape
            (batch, heads, pixels, tokens), float32: add a learned bias, copy the rows of one prompt
            to another, weight a word by adding log(weight)
    prefix  {layer name: Prefix}: learned keys and values beside the text tokens

    Blocks nest: outer edits come first. `observe` sees the altered logits, whichever block is
    outside. Raises ValueError for unknown layers, for nothing to do, and RuntimeError for a layer
    whose processor is not a stock one. Everything is put back at the end, after errors too.
    """
    if edit is None and not prefix:
        raise ValueError("alter has nothing to do: give edit=, prefix=, or both")
    if layers is None and edit is None:
        layers = list(prefix)
    modules = choose_layers(model_or_unet, layers)
    strangers = set(prefix or {}) - set(modules)
    if strangers:
        raise ValueError(f"prefix for {sorted(strangers)}; the chosen layers are {list(modules)}")
    with ExitStack() as stack:
        for name, attn in modules.items():
            own = (prefix[name],) if prefix and name in prefix else ()
            new = _extended(name, attn.processor, (edit,) if edit else (), own)
            stack.enter_context(_processor(attn, new))
        yield list(modules)


def _extended(
    name: str, old: Any, edits: tuple[Edit, ...], prefixes: tuple[Prefix, ...]
) -> AlteredAttnProcessor:
    if isinstance(old, AlteredAttnProcessor):
        return AlteredAttnProcessor(name, old.edits + edits, old.prefixes + prefixes)
    if isinstance(old, FusedAttnProcessor) or type(old).__name__ in STOCK:
        return AlteredAttnProcessor(name, edits, prefixes)
    raise RuntimeError(
        f"layer {name} has the processor {type(old).__name__}, which would be lost: altering "
        f"starts from one of {', '.join(STOCK)}"
    )


@contextmanager
def _processor(attn: Any, new: Any) -> Iterator[None]:
    old = attn.processor
    attn.set_processor(new)
    try:
        yield
    finally:
        attn.set_processor(old)
