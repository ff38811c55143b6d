"""Observe and alter the cross-attention of a U-Net, without a fork of its forward pass.

    with observe(model, layers=["mid.0", "up"]) as seen:
        model.predict_noise(noisy, 500, model.encode_text(["a red circle"]))
    seen.scores["mid.0"]                                     # (batch, heads, pixels)

Per head, Q comes from the pixels and K from the text; logits = Q K^T / sqrt(d_head). The score of a
pixel is the log-sum-exp of its raw logits over the tokens (He et al., arXiv 2305.10722, as in the
released code; `pooling.py` has the general form). What is reported are the logits the pass really
used, with LoRA and every edit in them: its processor is replaced by one that tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from dsd_tutorial.attention.heat import HeatRecorder
from dsd_tutorial.attention.layers import choose_layers
from dsd_tutorial.attention.pooling import Normalise, check_form
from dsd_tutorial.attention.processors import (
    Edit,
    Listener,
    OpenAttnProcessor,
    Prefix,
    opened,
)
from dsd_tutorial.attention.watching import Masks, Observation, Request, Watch, check_masks


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
    heat: bool = False,
    logits: bool = False,
    normalise: Normalise = "auto",
    keep: Literal["last", "mean", "all"] = "last",
    reduce_maps: Callable[[Tensor], Tensor] | None = None,
    reduce_logits: Callable[[Tensor], Tensor] | None = None,
    fused: bool = True,
) -> Iterator[Observation]:
    """Yield an `Observation` that every U-Net pass inside the block fills; nothing is left behind.

    Args:
        model_or_unet: A `StableDiffusion`, or a U-Net of diffusers.
        layers: As in `choose_layers`: names or heads of names ("up.2.1", "up"), None for all.
        token_mask: Bool (tokens,) or (batch, tokens), the tokens that the score reads; or a
            sequence of such masks (None = all tokens), each of which gets its scores.
        lam: lambda of LSE_lambda(x) = (1 / lambda) log mean exp(lambda x).
        maps: Whether to keep softmax probabilities too.
        grad: Whether to keep the graph, so that scores can be trained on.
        heat: Whether to average the maps for `seen.heat_map(word)`. Off by default, since it needs
            the probabilities of every pass, without which scores are faster.
        logits: Whether to keep the raw logits too.
        normalise: The form of `log_sum_exp`.
        keep: What to keep of several passes: the last, the running mean, or all of them.
        reduce_maps: Applied to each pass's maps as they are captured, so that less is kept.
        reduce_logits: The same for the logits, which are then kept.
        fused: Whether the fused kernel's own log-partition may be used where nothing else is
            requested and gradients are off; `seen.path` says which way was taken.

    Raises:
        ValueError: For an unknown layer or a bad mask, before anything runs.
        RuntimeError: For a layer whose logits cannot be known.
        NothingCaptured: At the end of the block, if a chosen layer was never run.
    """
    if keep not in ("last", "mean", "all"):
        raise ValueError(f"keep must be 'last', 'mean' or 'all', not {keep!r}")
    check_masks(token_mask)
    check_form(normalise, lam)
    modules = choose_layers(model_or_unet, layers)
    request = Request(
        token_mask,
        lam,
        normalise,
        maps,
        logits or reduce_logits is not None,
        heat,
        grad,
        keep,
        reduce_maps,
        reduce_logits,
        fused,
    )
    seen = Observation(HeatRecorder(model_or_unet))
    with ExitStack() as stack:
        if heat:
            if not hasattr(model_or_unet, "texts_of"):
                raise ValueError("heat=True needs the model, which encodes texts, not a bare U-Net")
            unet = model_or_unet.unet
            hook = unet.register_forward_pre_hook(seen.heat.begin_pass, with_kwargs=True)
            stack.callback(hook.remove)
        for name, attn in modules.items():
            processor = opened(name, attn.processor)
            stack.enter_context(_processor(attn, processor))
            listener = Listener(Watch(name, request, seen).take, request.fusable, grad)
            processor.listeners.append(listener)
            stack.callback(processor.listeners.remove, listener)
        yield seen
    missing = [name for name in modules if name not in seen.calls]
    if missing:
        raise NothingCaptured(
            f"no attention was computed in {', '.join(missing)} inside the observe block: run the "
            "U-Net (model.predict_noise or model.sample) inside it"
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

    Blocks nest: outer edits come first. `observe` sees the altered logits, whichever block is
    outside. Everything is put back at the end, after errors too.

    Args:
        model_or_unet: As in `observe`.
        edit: Function of (logits, layer name) that returns logits of the same shape (batch, heads,
            pixels, tokens), float32: add a learned bias, copy the rows of one prompt to another,
            weight a word by adding log(weight).
        layers: Which layers, as in `choose_layers`; None is all, or those of the prefix.
        prefix: Learned keys and values beside the text tokens, by layer name.

    Raises:
        ValueError: For unknown layers, and for nothing to do.
        RuntimeError: For a layer whose logits cannot be known.
    """
    if edit is None and not prefix:
        raise ValueError("alter has nothing to do: give edit=, prefix=, or both")
    prefix = prefix or {}
    if layers is None and edit is None:
        layers = list(prefix)
    modules = choose_layers(model_or_unet, layers)
    strangers = set(prefix) - set(modules)
    if strangers:
        raise ValueError(f"prefix for {sorted(strangers)}; the chosen layers are {list(modules)}")
    with ExitStack() as stack:
        for name, attn in modules.items():
            own = (prefix[name],) if name in prefix else ()
            new = opened(name, attn.processor, (edit,) if edit else (), own)
            stack.enter_context(_processor(attn, new))
        yield list(modules)


@contextmanager
def _processor(attn: Any, new: OpenAttnProcessor) -> Iterator[None]:
    old = attn.processor
    attn.set_processor(new)
    try:
        yield
    finally:
        attn.set_processor(old)
