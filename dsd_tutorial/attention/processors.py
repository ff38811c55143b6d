"""Attention processors that say which logits they used: one alters them, one is fast.

Both do around the attention what diffusers' stock processor does (norms, mask, residual), and tell
every function in their `listeners` an `AttentionRecord`, or the log-partition alone where a fused
kernel computed nothing else. `attention.observe` listens there; for the stock processors it reads
the outputs of `to_q` and `to_k` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.attention.pooling import add_gated

Edit = Callable[[Tensor, str], Tensor]


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


def scaled_logits(
    query: Float[Tensor, "batch heads pixels width"],
    key: Float[Tensor, "*some heads tokens width"],
    scale: float,
    bias: Float[Tensor, "batch heads rows tokens"] | None = None,
) -> Float[Tensor, "batch heads pixels tokens"]:
    """Return Q K^T * scale + bias in float32."""
    with torch.autocast(query.device.type, enabled=False):  # small differences are what we rank by
        logits = scale * (query.float() @ key.float().transpose(-1, -2))
    return logits if bias is None else logits + bias


def split_heads(
    attn: Any, states: Float[Tensor, "batch positions channels"]
) -> Float[Tensor, "batch heads positions width"]:
    """Return the part of each head; `channels` is heads times width."""
    batch, positions, width = states.shape
    return states.view(batch, positions, attn.heads, width // attn.heads).transpose(1, 2)


def head_bias(
    attn: Any, attention_mask: Tensor | None, tokens: int, batch: int
) -> Float[Tensor, "batch heads one_or_pixels tokens"] | None:
    """Return the additive mask as the stock processor reads it.

    Raises:
        ValueError: Where its length differs from the number of tokens.
    """
    if attention_mask is None:
        return None
    if attention_mask.shape[-1] != tokens:
        raise ValueError(f"attention_mask covers {attention_mask.shape[-1]} of {tokens} tokens")
    mask = attn.prepare_attention_mask(attention_mask, tokens, batch)
    return mask.view(batch, attn.heads, -1, tokens)


class _Surroundings:
    """Everything of diffusers' AttnProcessor2_0 but the attention itself (`_attend`)."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Told], None]] = []

    def tell(self, record: Told) -> None:
        for listener in list(self.listeners):
            listener(record)

    def _attend(
        self, attn: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None
    ) -> Float[Tensor, "batch heads pixels width"]:
        raise NotImplementedError

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Return what the layer adds to its hidden states, in their shape."""
        residual = hidden_states
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        shape = hidden_states.shape
        if len(shape) == 4:  # (batch, channels, height, width) -> (batch, pixels, channels)
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        context = encoder_hidden_states
        if context is None:
            context = hidden_states
        elif attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        query = split_heads(attn, attn.to_q(hidden_states))
        key, value = (split_heads(attn, f(context)) for f in (attn.to_k, attn.to_v))
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        bias = head_bias(attn, attention_mask, key.shape[2], len(key))
        mixed = self._attend(attn, query, key, value, bias)  # (batch, heads, pixels, d_head)
        mixed = mixed.transpose(1, 2).flatten(2).to(query.dtype)
        out = attn.to_out[1](attn.to_out[0](mixed))
        if len(shape) == 4:
            out = out.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            out = out + residual
        return out / attn.rescale_output_factor


class AlteredAttnProcessor(_Surroundings):
    """Attention in the open: logits, then every edit(logits, layer name), then softmax, then V.

    Without edits and prefixes its output equals the stock processor's.
    """

    def __init__(self, name: str, edits: tuple[Edit, ...] = (), prefixes: tuple[Prefix, ...] = ()):
        super().__init__()
        self.name, self.edits, self.prefixes = name, edits, prefixes

    def _attend(self, attn, query, key, value, bias):
        logits = scaled_logits(query, key, attn.scale, bias)
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
            record = prefix.record(query, logits, attn.scale)
            added = prefix.value.to(value.dtype).expand(len(value), -1, -1, -1)
            value = torch.cat([value, added], dim=2)
        self.tell(record)
        return record.probabilities().to(value.dtype) @ value


def _joined(prefixes: Sequence[Prefix]) -> Prefix:
    gates = [p.gate.to(p.key.device).expand(p.key.shape[:2]) for p in prefixes]
    return Prefix(
        torch.cat([p.key for p in prefixes], dim=1),
        torch.cat([p.value for p in prefixes], dim=1),
        torch.cat(gates, dim=1),
    )


class FusedAttnProcessor(_Surroundings):
    """The stock fused attention, which also hands on the log-partition its kernel computed.

    For inference: with gradients on, or a mask, or when a listener has set `wants_logits`, it
    computes the logits as well and tells those.
    """

    wants_logits = False

    def _attend(self, attn, query, key, value, bias):
        kernel = None
        if bias is None and not (self.wants_logits or torch.is_grad_enabled()):
            kernel = fused_kernel(query.device.type, query.dtype, query.shape[-1])
        if kernel is None:
            self.tell(AttentionRecord(scaled_logits(query, key, attn.scale, bias)))
            return F.scaled_dot_product_attention(query, key, value, bias, scale=attn.scale)
        out, log_partition = kernel(query, key, value, attn.scale)
        self.tell(log_partition)
        return out


def _cpu_kernel(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    operator = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return operator(query, key, value, scale=scale)[:2]


def _cuda_kernel(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    operator = torch.ops.aten._scaled_dot_product_efficient_attention
    out, lse = operator(query, key, value, None, True, scale=scale)[:2]
    return out, lse[..., : query.shape[2]]  # the kernel pads the pixels to a multiple of 32


@cache
def fused_kernel(device_type: str, dtype: torch.dtype, width: int) -> Callable | None:
    """Return a kernel (q, k, v, scale) -> (output, log-partition), or None where there is none.

    These operators are private to torch and have moved before: each is tried once on small tensors
    against the explicit computation, and one that is missing, refuses or differs is not used.
    """
    kernel = {"cpu": _cpu_kernel, "cuda": _cuda_kernel}.get(device_type)
    if kernel is None:
        return None
    numbers = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 2, n, width, generator=numbers) for n in (9, 5))
    q, k = (x.to(device_type, dtype) for x in (q, k))
    try:
        _, lse = kernel(q, k, k, width**-0.5)
    except (RuntimeError, AttributeError, TypeError, NotImplementedError):
        return None
    want = scaled_logits(q, k, width**-0.5).logsumexp(-1)
    close = lse.shape == want.shape and bool((lse - want).abs().max() < 1e-2)
    return kernel if close else None
