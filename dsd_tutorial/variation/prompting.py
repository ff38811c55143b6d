"""Image -> prompt: which states the U-Net reads in place of a caption's.

Ding et al., arXiv 2305.12716 (METHODS.md B.3): position 0 keeps the start token's state, h_img
fills positions 1..L-1. The n identical copies are one key whose logit is raised by ln n, so their
number says how loud the picture speaks.

How many copies, and what stands behind them, is *ours* where it is not all positions. Behind a
caption come padding states; near its end token they repeat its state, farther off they need not (in
the embedded model they drift away within a dozen). So in that model the copies fill a number of
positions that was chosen by pictures (`projection.usual_copies`), and the empty prompt's own
padding states stand in the rest: they say nothing, in words the U-Net knows. A mask ("none") leaves
the rest out, and the softmax then has fewer places to look.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dsd_tutorial.projection import Inverse

FILLS = {
    "empty": "padding states of the empty prompt, each at its own position",
    "none": "nothing: the sequence ends after the copies, as if the rest were masked",
}
Copies = int | str | None


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Return states (..., d) at `share` in [0, 1] of the way on the sphere; lengths go linearly.

    End-token states have one length, so a straight line between two of them would leave their
    sphere. Exact at 0 and 1; states in (nearly) one direction are mixed linearly.
    """
    if share in (0, 1):
        return (second if share else first).expand(
            torch.broadcast_shapes(first.shape, second.shape)
        )
    a, b = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    angle = torch.acos((a * b).sum(-1, keepdim=True).clamp(-1, 1))
    sine = torch.sin(angle)
    narrow = sine < 1e-4
    sine = torch.where(narrow, torch.ones_like(sine), sine)
    arc = torch.sin((1 - share) * angle) / sine * a + torch.sin(share * angle) / sine * b
    way = torch.where(narrow, (1 - share) * a + share * b, arc)
    length = torch.lerp(first.norm(dim=-1, keepdim=True), second.norm(dim=-1, keepdim=True), share)
    return length * F.normalize(way, dim=-1)


@torch.no_grad()
def states_to_prompt(
    model: Any,
    states: Tensor,
    *,
    copies: Copies = None,
    fill: str = "empty",
    strength: float = 1.0,
) -> Tensor:
    """Return the prompt (batch, L, d) in which positions 1..copies hold `states` (batch, d).

    copies    1..L-1; "all" or None is L-1, the paper's choice
    fill      what follows them, one of `FILLS`; with "none" the result is (batch, 1 + copies, d)
    strength  0 is the empty prompt, 1 the states themselves, between them along the sphere

    Raises ValueError for a wrong shape, number of copies, fill or strength.
    """
    empty = model.encode_text("")  # (1, L, d)
    length, width = empty.shape[1:]
    if states.ndim != 2 or states.shape[1] != width:
        raise ValueError(
            f"states {tuple(states.shape)}: need (batch, {width}), as inverse(...) returns"
        )
    if fill not in FILLS:
        raise ValueError(f"unknown fill {fill!r}; choose one of {', '.join(FILLS)}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength {strength}: need 0 (the empty prompt) to 1 (the image prompt)")
    n = _copies(copies, length)
    image = states.to(empty)[:, None].expand(-1, n, -1)  # (batch, copies, d)
    image = slerp(empty[:, 1 : 1 + n], image, float(strength))
    rest = empty[:, 1 + n :] if fill == "empty" else empty[:, :0]
    return torch.cat([part.expand(len(states), -1, -1) for part in (empty[:, :1], image, rest)], 1)


def _copies(copies: Copies, length: int) -> int:
    if copies in (None, "all"):
        return length - 1
    if not isinstance(copies, int) or not 1 <= copies < length:
        raise ValueError(f"copies {copies!r}: need 1 to {length - 1}, or 'all' of them")
    return copies


@torch.no_grad()
def image_to_prompt(
    model: Any,
    images: Tensor | Sequence[Any],
    inverse: Inverse,
    *,
    copies: Copies = None,
    fill: str = "empty",
    strength: float = 1.0,
) -> Tensor:
    """Return one prompt per picture, (images, L, d), for `model.sample(embeddings=...)`.

    `images` as `encode_clip_image` takes them. `copies` None is `inverse.copies`; the rest as in
    `states_to_prompt`, which raises the errors.
    """
    states = inverse(model.encode_clip_image(images))
    copies = inverse.copies if copies is None else copies
    return states_to_prompt(model, states, copies=copies, fill=fill, strength=strength)


def copy_bonus(copies: float, position: int = 1) -> Callable[[Tensor, str], Tensor]:
    """Return an edit for `attention.alter` that makes one position count as `copies` of it.

    exp(l + ln n) = n exp(l): the partition and the weighted sum are those of n equal keys and
    values. Any number above 0 will do, 2.5 as well. It alters that position in every row of the
    pass, so use it without guidance, or where the empty prompt may be altered too.
    Raises ValueError for copies <= 0.
    """
    if not copies > 0:
        raise ValueError(f"copies {copies}: need a number above 0")

    def edit(logits: Tensor, layer: str) -> Tensor:
        bonus = torch.zeros(logits.shape[-1], device=logits.device)
        bonus[position] = math.log(copies)
        return logits + bonus

    return edit
