"""Attention prompts: what is learned sits inside cross-attention itself.

The paper's "attention-based prompt learning" (He et al., arXiv 2305.10722) *as we read it*: its
exact shape is not known to us. Two parts, both nothing at the start: a term added to the logits,
and a key/value prefix that enters the partition as g * exp(logit) with g = 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dsd_tutorial.attention import Prefix, alter, choose_layers
from dsd_tutorial.prompt_learning.adapters import Adapter, plain_layers


class AttentionPrompt(Adapter):
    """Per layer and head: a logit term for each token position, and `prefix` keys and values.

    Args:
        model: A `StableDiffusion`.
        bias: Whether a learned number (heads, tokens), zero at the start, is added to the logits of
            each position: a token mask that is learned, and soft.
        prefix: How many key/value pairs (heads, prefix, d_head) join the text; each enters with its
            gate g >= 0, zero at the start. Keys and values begin near those of the empty prompt's
            padding, so that opening a gate leads somewhere.
        layers: Which layers, as in `attention.observe`; None for all.
        seed: Draws how far keys and values begin from the padding.

    Raises:
        ValueError: neither bias nor prefix, or unknown layers.
    """

    kind = "attention prompt"
    lr = 2e-2

    def __init__(
        self,
        model: Any,
        *,
        bias: bool = True,
        prefix: int = 2,
        layers: str | Sequence[str] | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if prefix < 0 or not (bias or prefix):
            raise ValueError(f"bias={bias}, prefix={prefix}: learn a bias, a prefix >= 1, or both")
        self.with_bias, self.count, self.seed = bias, prefix, seed
        self.chosen_layers = plain_layers(layers)
        chosen = choose_layers(model, layers)
        self.names = tuple(chosen)
        self.bias, self.key, self.value, self.gate = (nn.ParameterDict() for _ in range(4))
        numbers = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            empty = model.encode_text([""])  # (1, L, d)
            for name, attn in chosen.items():
                self._add_layer(_plain(name), attn, empty, numbers)

    def _add_layer(self, name: str, attn: Any, empty: Tensor, numbers: torch.Generator) -> None:
        heads, length = attn.heads, empty.shape[1]
        if self.with_bias:
            self.bias[name] = nn.Parameter(empty.new_zeros(heads, length, dtype=torch.float32))
        if not self.count:
            return
        for store, projection in ((self.key, attn.to_k), (self.value, attn.to_v)):
            states = projection(empty)[0].float()  # (L, heads * d_head)
            rows = torch.randint(1, length, (self.count,), generator=numbers)
            noise = torch.randn(self.count, states.shape[1], generator=numbers).to(states.device)
            start = states[rows.to(states.device)] + 0.1 * states.std() * noise
            split = start.view(self.count, heads, -1).transpose(0, 1)  # (heads, prefix, d_head)
            store[name] = nn.Parameter(split.contiguous())
        self.gate[name] = nn.Parameter(empty.new_zeros(heads, self.count, dtype=torch.float32))

    def config(self) -> dict[str, Any]:
        """Return the keyword arguments that build it anew, as plain values."""
        return {
            "bias": self.with_bias, "prefix": self.count, "layers": self.chosen_layers,
            "seed": self.seed,
        }  # fmt: skip

    @contextmanager
    def active(self, model: Any) -> Iterator[None]:
        """Yield; inside the block the layers attend with bias and prefix."""
        prefix = {
            name: Prefix(self.key[k], self.value[k], self.gate[k])
            for name in self.names
            if (k := _plain(name)) in self.gate
        }
        edit = self._edit if self.with_bias else None
        with alter(model, edit, layers=list(self.names), prefix=prefix or None):
            yield

    def _edit(
        self, logits: Float[Tensor, "batch heads pixels tokens"], name: str
    ) -> Float[Tensor, "batch heads pixels tokens"]:
        bias = self.bias[_plain(name)].to(logits.device)
        if bias.shape[1] != logits.shape[-1]:
            raise ValueError(
                f"this attention prompt knows {bias.shape[1]} token positions, the pass has "
                f"{logits.shape[-1]}: encode texts with encode_text, or learn with bias=False"
            )
        return logits + bias[None, :, None, :]

    def project(self) -> None:
        """Bring negative gates back to 0: from there a gradient can still open them."""
        with torch.no_grad():
            for gate in self.gate.values():
                gate.clamp_(min=0)


def _plain(name: str) -> str:
    return name.replace(".", "_")  # a ParameterDict allows no dots
