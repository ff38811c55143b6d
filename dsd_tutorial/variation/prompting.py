"""Image -> prompt: which states the U-Net reads in place of a caption's.

Ding et al., arXiv 2305.12716 (METHODS.md B.3): position 0 keeps the start token's state, h_img
fills positions 1..L-1. The n identical copies are one key whose logit is raised by ln n, so their
number weighs the image against the rest of the prompt.

How many copies, and what stands behind them, is *ours* where it is not all positions. Behind a
caption come padding states; near its EOS token they repeat its state, farther off they need not (in
the embedded model they drift away within a dozen). So in that model the copies fill a number of
positions that was chosen by images (`projection.usual_copies`), and the empty prompt's own padding
states stand in the rest: they say nothing, in words the U-Net knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.projection import Inverse
from dsd_tutorial.stable_diffusion import StableDiffusion

Copies = int | str | None  # a number, or "all" positions behind the start token; None is "all"


def slerp(
    first: Float[Tensor, "*#batch states"], second: Float[Tensor, "*#batch states"], share: float
) -> Float[Tensor, "*batch states"]:
    """Return states at `share` in [0, 1] of the way on the sphere; lengths go linearly.

    EOS states have one length, so a straight line between two of them would leave their sphere.
    Exact at 0 and 1; states in (nearly) one direction are mixed linearly.
    """
    first, second = torch.broadcast_tensors(first, second)
    if share in (0, 1):
        return second if share else first
    a, b = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    angle = torch.acos((a * b).sum(-1, keepdim=True).clamp(-1, 1))
    sine = torch.sin(angle)
    narrow = sine < 1e-4
    sine = torch.where(narrow, torch.ones_like(sine), sine)
    arc = torch.sin((1 - share) * angle) / sine * a + torch.sin(share * angle) / sine * b
    way = torch.where(narrow, (1 - share) * a + share * b, arc)
    length = torch.lerp(first.norm(dim=-1, keepdim=True), second.norm(dim=-1, keepdim=True), share)
    return length * F.normalize(way, dim=-1)


def count(model: StableDiffusion, copies: Copies) -> int:
    """Return the number of positions that `copies` means. Raises ValueError for any other value."""
    last = model.context_length - 1
    if copies in (None, "all"):
        return last
    if not isinstance(copies, int) or not 1 <= copies <= last:
        raise ValueError(f"copies {copies!r}: need 1 to {last}, or 'all' of them")
    return copies


def states_to_prompt(
    model: StableDiffusion,
    states: Float[Tensor, "batch states"],
    *,
    copies: Copies = None,
    strength: float = 1.0,
) -> Float[Tensor, "batch tokens states"]:
    """Return prompts in which positions 1..copies hold `states`; the rest is the empty prompt.

    Args:
        model: The model whose U-Net is to read them.
        states: One text state for each prompt.
        copies: 1..L-1; "all" or None is L-1, the paper's choice.
        strength: 0 is the empty prompt, 1 the states themselves, between them along the sphere.

    Raises:
        ValueError: Wrong shape, number of copies or strength.
    """
    empty = model.encode_text("")  # (1, tokens, states)
    if states.ndim != 2 or states.shape[1] != empty.shape[2]:
        raise ValueError(
            f"states {tuple(states.shape)}: need (batch, {empty.shape[2]}), as inverse(...) returns"
        )
    if not 0 <= strength <= 1:
        raise ValueError(f"strength {strength}: need 0 (the empty prompt) to 1 (the image prompt)")
    n = count(model, copies)
    prompt = empty.repeat(len(states), 1, 1)
    image = states.to(empty)[:, None].expand(-1, n, -1)  # (batch, copies, states)
    prompt[:, 1 : 1 + n] = slerp(empty[:, 1 : 1 + n], image, strength)
    return prompt


@torch.no_grad()
def image_to_prompt(
    model: StableDiffusion,
    images: Tensor | Sequence[Any],
    inverse: Inverse,
    *,
    copies: Copies = None,
    strength: float = 1.0,
) -> Float[Tensor, "images tokens states"]:
    """Return one prompt per image, for `model.sample(embeddings=...)`.

    `images` as `encode_clip_image` takes them. `copies` None is `inverse.copies`; the rest as in
    `states_to_prompt`, which raises the errors.
    """
    states = inverse(model.encode_clip_image(images))
    copies = inverse.copies if copies is None else copies
    return states_to_prompt(model, states, copies=copies, strength=strength)
