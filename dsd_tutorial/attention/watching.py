"""What is computed from the logits of a pass, and how much of it is kept.

The parts behind `attention.observe`. Each record is reduced at once, so that memory holds one
layer's logits at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dsd_tutorial.attention.heat import HeatRecorder, Size
from dsd_tutorial.attention.pooling import Normalise, log_sum_exp
from dsd_tutorial.attention.processors import AttentionRecord, Told
from dsd_tutorial.attention.token_masks import Word

Masks = Tensor | Sequence[Tensor | None] | None
CHUNK = 2**25  # logits held at once, in numbers (128 MB): the explicit path goes through in parts


@dataclass
class Observation:
    """What was seen; each dictionary goes by layer name.

    Attributes:
        heat: What `heat_map` reads, filled where requested.
        scores: (batch, heads, pixels); with several token masks (masks, batch, heads, pixels).
        maps: (batch, heads, pixels, tokens), where requested.
        logits: The same shape, where requested.
        path: "fused" or "explicit": how the scores were computed.
        calls: How many U-Net passes were seen.

    With keep="all" scores, maps and logits have one more dimension in front, the U-Net passes.
    """

    heat: HeatRecorder
    scores: dict[str, Any] = field(default_factory=dict)
    maps: dict[str, Any] = field(default_factory=dict)
    logits: dict[str, Any] = field(default_factory=dict)
    path: dict[str, str] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    def heat_map(self, word: Word, size: Size = None) -> Float[Tensor, "images height width"]:
        """Return where a word of the prompt looks, for each image whose prompt has it, in order.

        The mean attention over layers, heads and passes (the sampled steps). The unconditional half
        of guidance is left out.

        Args:
            word: A word of the prompt, several in a row, or (word, k) for the k-th alone.
            size: Height and width in pixels; None is the image's.

        Raises:
            ValueError: Without heat=True; for a word that no prompt has, with the words there are;
                and where no text of the passes can be known.
        """
        return self.heat.heat_map(word, size)


@dataclass(frozen=True)
class Request:
    """What to compute from each record, and how much of it to keep."""

    masks: Masks
    lam: float
    normalise: Normalise
    maps: bool
    logits: bool
    heat: bool
    grad: bool
    keep: Literal["last", "mean", "all"]
    reduce_maps: Callable[[Tensor], Tensor] | None
    reduce_logits: Callable[[Tensor], Tensor] | None
    fused: bool

    @property
    def fusable(self) -> bool:
        """Return whether the fused kernel's log-partition is all that is requested."""
        plain = self.masks is None and self.lam == 1 and self.normalise in ("auto", "sum")
        return self.fused and plain and not (self.maps or self.logits or self.grad or self.heat)

    def score(self, record: AttentionRecord) -> Float[Tensor, "*masks batch heads pixels"]:
        """Return the pooled logits; for a sequence of masks one more dimension in front."""
        if isinstance(self.masks, Sequence):
            return torch.stack([self._masked(record, mask) for mask in self.masks])
        return self._masked(record, self.masks)

    def _masked(
        self, record: AttentionRecord, mask: Tensor | None
    ) -> Float[Tensor, "batch heads pixels"]:
        logits, batch = record.logits, len(record.logits)
        mask = None if mask is None else _fit(mask, batch, logits.shape[-1]).to(logits.device)
        rows = batch if self.grad else max(1, CHUNK // logits[0].numel())
        parts = []
        for i in range(0, batch, rows):
            part = slice(i, i + rows)
            extra = None if record.extra is None else record.extra[part]
            own = mask[part] if mask is not None and len(mask) > 1 else mask
            how = {"normalise": self.normalise, "extra": extra, "gate": record.gate}
            parts.append(log_sum_exp(logits[part], self.lam, own, **how))
        return torch.cat(parts)


def _fit(mask: Tensor, batch: int, tokens: int) -> Bool[Tensor, "batch_or_1 1 1 tokens"]:
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
    for mask in masks if isinstance(masks, Sequence) else [masks]:
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
    """What listens to one layer."""

    def __init__(self, name: str, request: Request, seen: Observation):
        self.name, self.request, self.seen = name, request, seen

    def take(self, record: Told) -> None:
        """Compute what is requested from one pass, and keep it."""
        grad = self.request.grad
        if grad and not torch.is_grad_enabled():
            raise RuntimeError("observe(grad=True) met a pass under no_grad: no gradient to keep")
        seen = self.seen
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            found = self._computed(record)
        seen.path[self.name] = "fused" if isinstance(record, Tensor) else "explicit"
        seen.calls[self.name] = calls = seen.calls.get(self.name, 0) + 1
        for kind, value in found.items():
            self._keep(getattr(seen, kind), value if grad else value.detach(), calls)

    def _computed(self, record: Told) -> dict[str, Tensor]:
        request = self.request
        if isinstance(record, Tensor):
            return {"scores": record.float()}
        found = {"scores": request.score(record)}
        if request.logits:
            reduce = request.reduce_logits
            found["logits"] = record.logits if reduce is None else reduce(record.logits)
        if request.maps or request.heat:
            maps = record.probabilities()
            if request.maps:
                found["maps"] = request.reduce_maps(maps) if request.reduce_maps else maps
            if request.heat:
                self.seen.heat.add(self.name, maps)
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
