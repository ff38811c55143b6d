"""Soft prompts: learned residuals on token states that are there anyway.

A *new* token would change the log-sum-exp whatever its values, so it could not begin at the
zero-shot score. A residual that is zero at the start can (He et al., arXiv 2305.10722, learn a
prompt; where it enters is *ours*).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dsd_tutorial.prompt_learning.adapters import Adapter

PLACES = ("start", "padding", "both")


class SoftPrompt(Adapter):
    """Zero-initialised residuals (p, d) on the start token, on n padding positions, or on both.

    A caption that leaves fewer than `n` padding positions uses those it has.

    Args:
        model: A `StableDiffusion`.
        where: "after" the text encoder: only the U-Net reads the change; "before" it: added to the
            token embeddings, so that all later positions feel it (the encoder looks backwards only:
            padding behind the caption cannot change its words, the start token can).
        positions: "start", "padding" (the first `n` behind the end token), or "both".
        n: How many padding positions.

    Raises:
        ValueError: other words, or an `n` the context has no room for.
    """

    kind = "soft prompt"
    changes_text = True

    def __init__(
        self,
        model: Any,
        *,
        where: Literal["before", "after"] = "after",
        positions: Literal["start", "padding", "both"] = "both",
        n: int = 8,
    ):
        super().__init__()
        if where not in ("before", "after"):
            raise ValueError(f"where={where!r}: a soft prompt enters 'before' or 'after' the text")
        if positions not in PLACES:
            raise ValueError(f"positions={positions!r}: choose one of {', '.join(PLACES)}")
        if not 1 <= n <= model.context_length - 2:
            raise ValueError(f"n={n}: a context has 1 to {model.context_length - 2} padding places")
        self.where, self.positions, self.n = where, positions, n
        width = model.text_encoder.config.hidden_size
        zeros = {"start": torch.zeros(1, width), "padding": torch.zeros(n, width)}
        wanted = zeros if positions == "both" else [positions]
        self.residual = nn.ParameterDict(
            {name: nn.Parameter(zeros[name].to(model.device)) for name in wanted}
        )

    def config(self) -> dict[str, Any]:
        """Return the keyword arguments that build it anew, as plain values."""
        return {"where": self.where, "positions": self.positions, "n": self.n}

    def added(
        self, ids: Int[Tensor, "batch tokens"], eos: int
    ) -> Float[Tensor, "batch tokens states"]:
        """Return what is added to the states of these token ids."""
        batch, length = ids.shape
        place = torch.arange(length, device=ids.device)[None]  # (1, tokens)
        total = torch.zeros((), device=ids.device)
        if "start" in self.residual:
            total = (place == 0)[..., None] * self.residual["start"].to(ids.device)
        if "padding" in self.residual:
            end = (ids == eos).int().argmax(1, keepdim=True)  # first end token, (batch, 1)
            which = place - end - 1  # 0 at the first padding position
            inside = ((which >= 0) & (which < self.n))[..., None]
            rows = self.residual["padding"].to(ids.device)[which.clamp(0, self.n - 1)]
            total = total + inside * rows  # (batch, tokens, states)
        return total.expand(batch, -1, -1)

    @contextmanager
    def active(self, model: Any) -> Iterator[None]:
        """Yield; inside the block the text encoder gives, or reads, the changed states."""
        encoder, eos = model.text_encoder, model.tokenizer.eos_token_id

        def on_embeddings(module: Any, args: tuple, kwargs: dict, out: Tensor) -> Tensor:
            return out + self.added(_ids(args, kwargs), eos)

        def on_states(module: Any, args: tuple, kwargs: dict, out: Any) -> Any:
            out.last_hidden_state = out.last_hidden_state + self.added(_ids(args, kwargs), eos)
            return out

        if self.where == "before":
            target, hook = encoder.get_input_embeddings(), on_embeddings
        else:
            target, hook = encoder, on_states
        handle = target.register_forward_hook(hook, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


def _ids(args: tuple, kwargs: dict) -> Tensor:
    ids = args[0] if args else kwargs["input_ids" if "input_ids" in kwargs else "input"]
    return ids.view(-1, ids.shape[-1])
