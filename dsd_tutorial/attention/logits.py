"""From Q and K to the logits of every head, or by a fused kernel to their log-partition alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


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
