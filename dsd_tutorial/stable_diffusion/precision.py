"""In which precision the U-Net runs: what a device can, and what pays there.

Half precision is inside alone. Text encoder and CLIP stay in float32, and so do the first matrices
that read a text in the U-Net (`cast_unet`); so does the autoencoder beside bfloat16, since it makes
latents once, and eight bits would make them other latents. What comes out of the U-Net is float32,
and so are the log-sum-exp of logits and the norms of errors, whose small differences are what
candidates are ranked by.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from timeit import repeat
from typing import Any

import torch
from torch import Tensor, nn

from dsd_tutorial.stable_diffusion.registry import DeviceError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
GAIN = 1.5  # how much faster a product in bfloat16 must be to be worth its rounding


def pick_dtype(dtype: torch.dtype | str | None, device: torch.device | str = "cpu") -> torch.dtype:
    """Return the precision; None is float32.

    "auto" is bfloat16 on CUDA that has it, else float16 there, bfloat16 on a CPU that multiplies it
    in hardware and, tried once, is faster with it, and float32 everywhere else.

    Raises:
        ValueError: Another word.
        DeviceError: A precision that the device lacks.
    """
    device = torch.device(device)
    if dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if _has(torch.bfloat16, device) else torch.float16
        pays = device.type == "cpu" and bfloat16_pays()
        return torch.bfloat16 if pays else torch.float32
    chosen = DTYPES.get(str(dtype or "float32").removeprefix("torch."))
    if chosen is None:
        raise ValueError(f"dtype {dtype!r}: need None, auto or one of {', '.join(DTYPES)}")
    if not _has(chosen, device):
        raise DeviceError(
            f"dtype {str(dtype).removeprefix('torch.')!r}: {device} does not compute in it; use "
            "float16 or float32, or dtype='auto'"
        )
    return chosen


def _has(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a device computes in `dtype`; a CPU always does, if slowly."""
    if dtype == torch.float32 or device.type in ("cpu", "meta"):
        return True
    if device.type == "cuda" and dtype == torch.bfloat16:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        ones = torch.ones(2, 2, device=device, dtype=dtype)
        return bool((ones @ ones == 2).all())
    except (RuntimeError, TypeError):
        return False


def cast_unet(unet: Any, dtype: torch.dtype) -> None:
    """Cast a U-Net's weights, but for the keys and values that cross-attention makes of a text.

    Those are made in float32, of prompt embeddings that nobody rounded, and rounded then. Texts
    that are ranked differ little: rounded before, they differ by other amounts.
    """
    texts = [] if dtype == torch.float32 else list(text_projections(unet))
    exact = [{k: v.float() for k, v in x.state_dict().items()} for x in texts]
    # nn.Module's own `to`: the one of diffusers warns at any mention of a precision
    nn.Module.to(unet, dtype)
    for projection, weights in zip(texts, exact, strict=True):
        projection.float().load_state_dict(weights)
        projection.register_forward_pre_hook(_exact)
        projection.register_forward_hook(lambda module, args, out: out.to(dtype))


def text_projections(unet: Any) -> Iterator[Any]:
    """Yield what makes keys and values of a text, layer by layer."""
    for module in unet.modules():
        if getattr(module, "is_cross_attention", False):
            yield from (module.to_k, module.to_v)


def _exact(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    return (args[0].float(),)


@cache
def bfloat16_pays() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware, and gains by it."""
    if not (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return False
    numbers = torch.randn(2, 1024, 1024, generator=torch.Generator().manual_seed(0))
    return _seconds(numbers) > GAIN * _seconds(numbers.bfloat16())


def _seconds(pair: torch.Tensor) -> float:
    """The fastest of a few products."""
    return min(repeat(lambda: torch.matmul(pair[0], pair[1]), number=1, repeat=5))
