"""Text state -> prompt, with gradients: the sequences of `variation`, for use inside a loss.

One rule gives both (METHODS.md B.3; Ding et al., arXiv 2305.12716). From the end token of a text
on, `copies` positions hold h + alpha * (the text's own state there); before and behind them the
text's states stay. With the empty text, whose end token stands at position 1, and alpha = 0 it is
the image prompt; with a text it is the editing prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ALPHA = 0.7  # of the text's states in an editing prompt, unless told otherwise


@dataclass(frozen=True, eq=False)
class Frame:
    """Texts as the U-Net reads them, into which states are put.

    states (texts, L, d), ends (texts,): position of each first end token, alpha, copies.
    """

    states: Tensor
    ends: Tensor
    alpha: float
    copies: int

    def __call__(self, h: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return prompts (batch, L, d) of states h (batch, d); differentiable.

        `rows` (batch,) says which text each state goes into; None: the only one, or one each.
        """
        texts, ends = self.states, self.ends
        if rows is not None:
            rows = rows.to(texts.device)
            texts, ends = texts[rows], ends[rows]
        places = torch.arange(texts.shape[1], device=texts.device)[None]  # (1, L)
        inside = (places >= ends[:, None]) & (places < ends[:, None] + self.copies)
        mixed = h.to(texts)[:, None] + self.alpha * texts  # (batch, L, d)
        return torch.where(inside[..., None], mixed, texts)


@torch.no_grad()
def image_frame(model: Any, copies: int | str | None = None) -> Frame:
    """Return the `Frame` of image prompts: the empty text, in which nothing is mixed."""
    return edit_frame(model, "", alpha=0.0, copies=copies)


@torch.no_grad()
def edit_frame(
    model: Any, text: str | Sequence[str], *, alpha: float = ALPHA, copies: int | str | None = None
) -> Frame:
    """Return the `Frame` of editing prompts with one text, or one per state.

    `copies` None or "all" is the paper's: every position from the end token on.
    Raises ValueError for another number of copies than 1..L-1, or no text.
    """
    texts = [text] if isinstance(text, str) else list(text)
    if not texts:
        raise ValueError("no text to edit with: give at least one, which may be empty")
    last = model.context_length - 1
    n = last if copies in (None, "all") else copies
    if not isinstance(n, int) or not 1 <= n <= last:
        raise ValueError(f"copies {copies!r}: need 1 to {last}, or 'all' of them")
    return Frame(model.encode_text(texts), model.eos_positions(texts), float(alpha), n)
