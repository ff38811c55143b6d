"""The attention processor that says which logits it used, lets them be edited, and is fast.

It does around the attention what diffusers' stock processor does, and tells every one of its
listeners an `AttentionRecord`, or the log-partition alone where a fused kernel computed nothing
else. `attention.observe` listens; `attention.alter` edits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.attention.logits import fused_kernel, head_bias, scaled_logits, split_heads
from dsd_tutorial.attention.pooling import add_gated

Edit = Callable[[Tensor, str], Tensor]
# Processors of diffusers that use to_q and to_k and leave the logits alone.
STOCK = ("AttnProcessor", "AttnProcessor2_0", "SlicedAttnProcessor", "XFormersAttnProcessor")


@dataclass(frozen=True)
class AttentionRecord:
    """The logits of one layer in one pass.

    Attributes:
        logits: Raw and scaled, with every edit and mask.
        extra: The logits of prefix keys, which enter with the weight `gate`.
        gate: Those weights, for each head.
    """

    logits: Float[Tensor, "batch heads pixels tokens"]
    extra: Float[Tensor, "batch heads pixels n"] | None = None
    gate: Float[Tensor, "heads 1 n"] | None = None

    def probabilities(self) -> Float[Tensor, "batch heads pixels tokens_and_prefix"]:
        """Return the attention maps, those of prefix keys last."""
        if self.extra is None or self.gate is None:
            return self.logits.softmax(-1)
        total = add_gated(self.logits.logsumexp(-1), self.extra, self.gate)[..., None]
        gated = self.gate * torch.exp((self.extra - total).clamp(max=80.0))
        return torch.cat([torch.exp(self.logits - total), gated], dim=-1)


Told = AttentionRecord | Float[Tensor, "batch heads pixels"]


@dataclass(frozen=True)
class Prefix:
    """Learned keys and values of one layer that join its text tokens.

    The gate, broadcastable to (heads, n), is >= 0 (below, it counts as 0): entry j adds gate_j *
    exp(logit_j) to the partition, so that gate = 0 leaves the layer as it was, with a finite
    gradient towards the gate.
    """

    key: Float[Tensor, "heads n width"]
    value: Float[Tensor, "heads n width"]
    gate: Tensor

    def record(
        self,
        query: Float[Tensor, "batch heads pixels width"],
        logits: Float[Tensor, "batch heads pixels tokens"],
        scale: float,
    ) -> AttentionRecord:
        """Return what a pass of `query` used with this prefix."""
        extra = scaled_logits(query, self.key, scale)
        gate = self.gate.to(extra.device).float().clamp(min=0)
        return AttentionRecord(logits, extra, gate.expand(self.key.shape[:2])[:, None, :])


@dataclass(eq=False)
class Listener:
    """Who is told what a layer used."""

    take: Callable[[Told], None]
    fusable: bool = False  # whether the log-partition is enough
    grad: bool = False  # whether the logits must carry gradients


class OpenAttnProcessor:
    """diffusers' AttnProcessor2_0 in the open: its output, unless edits or prefixes change it.

    With them: logits, then every edit(logits, layer name), then softmax, then V. Without: the fused
    attention, from whose kernel the log-partition is had where that is all that is listened for.
    For the cross-attention of a U-Net's transformer blocks, which stand outside every norm.
    """

    def __init__(
        self,
        name: str,
        edits: tuple[Edit, ...] = (),
        prefixes: tuple[Prefix, ...] = (),
        listeners: list[Listener] | None = None,
    ):
        self.name, self.edits, self.prefixes = name, edits, prefixes
        self.listeners: list[Listener] = [] if listeners is None else listeners

    def __call__(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "batch pixels channels"],
        encoder_hidden_states: Float[Tensor, "batch tokens states"],
        attention_mask: Tensor | None = None,
    ) -> Float[Tensor, "batch pixels channels"]:
        """Return what the layer adds to its hidden states."""
        query = split_heads(attn, attn.to_q(hidden_states))
        key, value = (split_heads(attn, f(encoder_hidden_states)) for f in (attn.to_k, attn.to_v))
        bias = head_bias(attn, attention_mask, key.shape[2], len(key))
        mixed = self._attend(attn.scale, query, key, value, bias)  # (batch, heads, pixels, width)
        return attn.to_out[1](attn.to_out[0](mixed.transpose(1, 2).flatten(2).to(query.dtype)))

    def _attend(
        self, scale: float, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None
    ) -> Float[Tensor, "batch heads pixels width"]:
        if self.edits or self.prefixes:
            return self._attend_altered(scale, query, key, value, bias)
        if self.listeners:
            short = bias is None and not torch.is_grad_enabled()
            if short and all(listener.fusable for listener in self.listeners):
                kernel = fused_kernel(query.device.type, query.dtype, query.shape[-1])
                if kernel is not None:
                    out, log_partition = kernel(query, key, value, scale)
                    self._tell(log_partition)
                    return out
            grad = any(listener.grad for listener in self.listeners)
            with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
                self._tell(AttentionRecord(scaled_logits(query, key, scale, bias)))
        return F.scaled_dot_product_attention(query, key, value, bias, scale=scale)

    def _attend_altered(
        self, scale: float, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None
    ) -> Float[Tensor, "batch heads pixels width"]:
        logits = scaled_logits(query, key, scale, bias)
        for edit in self.edits:
            edited = edit(logits, self.name)
            if edited.shape != logits.shape:
                raise ValueError(
                    f"the edit of layer {self.name} returned shape {tuple(edited.shape)}; it must "
                    f"keep (batch, heads, pixels, tokens) = {tuple(logits.shape)}"
                )
            logits = edited
        record = AttentionRecord(logits)
        if self.prefixes:
            prefix = _joined(self.prefixes)
            record = prefix.record(query, logits, scale)
            added = prefix.value.to(value.dtype).expand(len(value), -1, -1, -1)
            value = torch.cat([value, added], dim=2)
        self._tell(record)
        return record.probabilities().to(value.dtype) @ value

    def _tell(self, record: Told) -> None:
        for listener in self.listeners:
            listener.take(record)


def opened(
    name: str, old: Any, edits: tuple[Edit, ...] = (), prefixes: tuple[Prefix, ...] = ()
) -> OpenAttnProcessor:
    """Return what takes the place of the processor `old`: the same, open, with more edits.

    Raises:
        RuntimeError: `old` is neither open nor one of diffusers' that leave the logits alone.
    """
    if isinstance(old, OpenAttnProcessor):
        return OpenAttnProcessor(name, old.edits + edits, old.prefixes + prefixes, old.listeners)
    if type(old).__name__ in STOCK:
        return OpenAttnProcessor(name, edits, prefixes)
    raise RuntimeError(
        f"layer {name} has the processor {type(old).__name__}, whose logits cannot be known: start "
        f"from one of {', '.join(STOCK)}; projections that were fused must be undone first"
    )


def _joined(prefixes: Sequence[Prefix]) -> Prefix:
    gates = [p.gate.to(p.key.device).expand(p.key.shape[:2]) for p in prefixes]
    return Prefix(
        torch.cat([p.key for p in prefixes], dim=1),
        torch.cat([p.value for p in prefixes], dim=1),
        torch.cat(gates, dim=1),
    )
