"""How a pass is watched: hooks on one layer, and what is computed from the logits they see.

The parts behind `attention.observe`. Q and K are the outputs of `to_q` and `to_k` themselves, so
that nothing is computed twice and LoRA on them is in; an altering processor tells its own logits.
Each record is reduced at once, so that memory holds one layer's logits at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dsd_tutorial.attention.pooling import Normalise, log_sum_exp
from dsd_tutorial.attention.processors import AttentionRecord, head_bias, scaled_logits, split_heads

Masks = Tensor | Sequence[Tensor | None] | None
# Processors of diffusers that use to_q and to_k and leave the logits alone.
STOCK = ("AttnProcessor", "AttnProcessor2_0", "SlicedAttnProcessor", "XFormersAttnProcessor")
CHUNK = 2**25  # logits held at once, in numbers (128 MB): the explicit path goes through in parts


@dataclass
class Observation:
    """What was seen; each dictionary goes by layer name.

    scores (batch, heads, pixels), with several token masks (masks, batch, heads, pixels);
    maps (batch, heads, pixels, tokens) and logits (same) when asked for; with keep="all" one more
    dimension in front, the U-Net calls. `path` says "fused" or "explicit", `calls` counts.
    """

    scores: dict[str, Tensor] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)
    logits: dict[str, Tensor] = field(default_factory=dict)
    path: dict[str, str] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    def restart(self) -> dict[str, Tensor]:
        """Forget everything seen so far, so that a new mean begins; returns the maps."""
        maps = dict(self.maps)
        for store in (self.scores, self.maps, self.logits, self.path, self.calls):
            store.clear()
        return maps


@dataclass(frozen=True)
class Request:
    """What to compute from each record, and how much of it to keep."""

    masks: Masks
    lam: float
    normalise: Normalise
    maps: bool
    logits: bool
    grad: bool
    keep: Literal["last", "mean", "all"]
    reduce_maps: Callable[[Tensor], Tensor | None] | None
    reduce_logits: Callable[[Tensor], Tensor] | None = None
    fused: bool = True

    @property
    def fusable(self) -> bool:
        """Return whether the fused kernel's log-partition is all that is asked for."""
        plain = self.masks is None and self.lam == 1 and self.normalise in ("auto", "sum")
        return self.fused and plain and not (self.maps or self.logits or self.grad)

    def check(self) -> None:
        """Raise ValueError for a lambda or a normalisation that `log_sum_exp` would refuse."""
        log_sum_exp(torch.zeros(1), self.lam, normalise=self.normalise)

    def score(self, record: AttentionRecord) -> Tensor:
        """Return (batch, heads, pixels) or, for a sequence of masks, (masks, batch, ...)."""
        masks = self.masks if isinstance(self.masks, (list, tuple)) else [self.masks]
        out = torch.stack([self._masked(record, mask) for mask in masks])
        return out if isinstance(self.masks, (list, tuple)) else out[0]

    def _masked(self, record: AttentionRecord, mask: Tensor | None) -> Tensor:
        logits, batch = record.logits, len(record.logits)
        mask = None if mask is None else _fit(mask, batch, logits.shape[-1]).to(logits.device)
        rows = max(1, CHUNK // logits[0].numel()) if not self.grad else batch
        parts = []
        for i in range(0, batch, rows):
            part = slice(i, i + rows)
            extra = None if record.extra is None else record.extra[part]
            own = mask[part] if mask is not None and len(mask) > 1 else mask
            parts.append(
                log_sum_exp(
                    logits[part],
                    self.lam,
                    own,
                    normalise=self.normalise,
                    extra=extra,
                    gate=record.gate,
                )
            )
        return torch.cat(parts)


def _fit(mask: Tensor, batch: int, tokens: int) -> Tensor:
    mask = mask[None] if mask.ndim == 1 else mask
    if mask.shape[-1] != tokens or len(mask) not in (1, batch):
        raise ValueError(
            f"token_mask {tuple(mask.shape)} does not fit a pass of {batch} items x {tokens} "
            f"tokens: give ({tokens},) for all items or ({batch}, {tokens}); with guidance the "
            "U-Net sees twice the items"
        )
    return mask[:, None, None, :]


def check_masks(masks: Masks) -> None:
    """Raise ValueError for masks that are not bool, misshapen, or empty for some item."""
    for mask in masks if isinstance(masks, (list, tuple)) else [masks]:
        if mask is None:
            continue
        if mask.dtype != torch.bool or mask.ndim not in (1, 2):
            raise ValueError(
                f"token_mask must be bool of shape (tokens,) or (batch, tokens), not {mask.dtype} "
                f"{tuple(mask.shape)}"
            )
        if not bool(mask.any(-1).all()):
            raise ValueError("token_mask keeps no token of at least one item: no score is defined")


class Watch:
    """The hooks of one layer: collects Q and K of a pass, or listens to its processor."""

    def __init__(self, name: str, attn: nn.Module, request: Request, seen: Observation):
        self.name, self.attn, self.request, self.seen = name, attn, request, seen
        self.q = self.k = self.heard = None
        self.projections = (attn.to_q, attn.to_k)
        self.handles = [
            attn.register_forward_pre_hook(self._before),
            attn.register_forward_hook(self._after, with_kwargs=True, always_call=True),
            attn.to_q.register_forward_hook(lambda m, a, out: setattr(self, "q", out)),
            attn.to_k.register_forward_hook(lambda m, a, out: setattr(self, "k", out)),
        ]

    def remove(self) -> None:
        """Take every hook off; nothing of the watch stays on the layer."""
        for handle in self.handles:
            handle.remove()
        self._stop_listening()

    def _stop_listening(self) -> None:
        if self.heard is not None and self._take in self.heard.listeners:
            self.heard.listeners.remove(self._take)
            self.heard.wants_logits = False
        self.heard = self.q = self.k = None

    def _before(self, attn: Any, args: tuple) -> None:
        kind = type(attn.processor).__name__
        if self.projections != (attn.to_q, attn.to_k):
            raise RuntimeError(
                f"to_q or to_k of layer {self.name} was replaced inside the observe block (LoRA "
                "added or removed?): do that before observing"
            )
        if hasattr(attn.processor, "listeners"):
            self.heard = attn.processor
            self.heard.listeners.append(self._take)
            if not self.request.fusable:
                self.heard.wants_logits = True
        elif kind not in STOCK:
            raise RuntimeError(
                f"layer {self.name} has the processor {kind}, whose logits cannot be known: give "
                "it a list `listeners` and call each with an AttentionRecord (processors.py)"
            )

    def _after(self, attn: Any, args: tuple, kwargs: dict, out: Tensor | None) -> None:
        listened = self.heard is not None
        q, k = self.q, self.k
        self._stop_listening()
        if listened or out is None or q is None or k is None:  # told already, or the pass failed
            return
        mask = kwargs.get("attention_mask", args[2] if len(args) > 2 else None)
        with torch.set_grad_enabled(self.request.grad and torch.is_grad_enabled()):
            q, k = split_heads(attn, q), split_heads(attn, k)
            bias = head_bias(attn, mask, k.shape[2], len(k))
            self._take(AttentionRecord(scaled_logits(q, k, attn.scale, bias)))

    def _take(self, record: AttentionRecord) -> None:
        request, seen = self.request, self.seen
        if request.grad and not torch.is_grad_enabled():
            raise RuntimeError("observe(grad=True) met a pass under no_grad: no gradient to keep")
        with torch.set_grad_enabled(request.grad and torch.is_grad_enabled()):
            found = self._computed(record)
        if found.get("maps", record) is None:  # `reduce_maps` wants nothing of this pass
            return
        seen.path[self.name] = "explicit" if record.lse is None else "fused"
        seen.calls[self.name] = calls = seen.calls.get(self.name, 0) + 1
        for kind, value in found.items():
            self._keep(getattr(seen, kind), value if request.grad else value.detach(), calls)

    def _computed(self, record: AttentionRecord) -> dict[str, Tensor | None]:
        request = self.request
        if record.lse is not None:
            return {"scores": record.lse.float()}
        found = {"scores": request.score(record)}
        if request.logits:
            reduce = request.reduce_logits
            found["logits"] = record.logits if reduce is None else reduce(record.logits)
        if request.maps:
            maps = record.probabilities()
            found["maps"] = request.reduce_maps(maps) if request.reduce_maps else maps
        return found

    def _keep(self, store: dict[str, Any], value: Tensor, calls: int) -> None:
        old = store.get(self.name)
        if self.request.keep == "all":
            store[self.name] = [*(old or []), value]
        elif self.request.keep == "mean" and old is not None:
            if old.shape != value.shape:
                raise RuntimeError(
                    f"keep='mean' met {tuple(value.shape)} after {tuple(old.shape)} at layer "
                    f"{self.name}: keep the batch the same, or use one observe block per batch"
                )
            store[self.name] = old + (value - old) / calls
        else:
            store[self.name] = value
