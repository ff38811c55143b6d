"""Steering: a direction is added to a block's features while an image is drawn.

    with steer(model, "up.0", unit_direction, 0.5):
        model.sample(["a circle"])                        # is it red now?

What a unit fires for might only go along with what the U-Net draws. If adding the unit's direction
changes the drawing, the U-Net reads it. A random direction of equal length, and another unit's, say
how much of that is disturbance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dsd_tutorial.features.capturing import choose_blocks, hidden_of
from dsd_tutorial.shapes.judge import Verdict

ALWAYS = (0, 10**9)


@contextmanager
def steer(
    model_or_unet: Any,
    block: str,
    direction: Float[Tensor, " channels"] | Float[Tensor, "images channels"],
    strength: float,
    *,
    steps: tuple[int, int] = ALWAYS,
    guided: bool = False,
    places: Bool[Tensor, "images rows columns"] | None = None,
) -> Iterator[None]:
    """Add a direction to a block's hidden states in every U-Net pass inside the `with` block.

    h' = h + strength * |h| * direction at every position, with |h| the mean length of the image's
    hidden states over positions, so that one strength means the same at every time step.
    Everything is as before afterwards, after errors too; at strength 0 the pass is bit for bit
    what it was.

    Guidance draws u + g (c - u). A push on both predictions is drawn once; one on c alone g times,
    as what the text says is.

    Args:
        model_or_unet: A `StableDiffusion`, or a U-Net of diffusers.
        block: The name of one block, such as "up.0".
        direction: Brought to length one; one for all, or one for each image of a batch.
        strength: In lengths of the features.
        steps: The lowest and the highest time step at which it acts.
        guided: Whether only the second half of each batch is steered: c, where `sample` stacks
            (u, c).
        places: Where it acts, a mask of any size for each image of a batch; None: everywhere. A
            position is pushed as far as its mask covers it.

    Raises:
        ValueError: For an unknown block, several blocks, a direction that is zero, or a batch that
            is no multiple of the number of masks or of directions.
    """
    chosen = choose_blocks(model_or_unet, block)
    if list(chosen) != [block]:
        raise ValueError(f"block {block!r} names {', '.join(chosen)}: give one of these")
    directions = torch.atleast_2d(direction.detach().float())
    for size in directions.norm(dim=1).tolist():
        if not 0 < size < float("inf"):
            raise ValueError(f"a direction of length {size} leads nowhere")
    units, active = F.normalize(directions, dim=1)[:, :, None, None], [True]

    def note(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        step = torch.as_tensor(named["timestep"] if "timestep" in named else given[1])
        active[0] = steps[0] <= float(step.flatten()[0]) <= steps[1]

    def hook(module: Any, given: Any, output: Any) -> Any:
        if not active[0] or strength == 0:
            return None
        hidden = hidden_of(output)
        length = hidden.norm(dim=1, keepdim=True).mean((2, 3), keepdim=True)
        push = strength * length * _for_all(units.to(hidden), hidden, "directions")
        if places is not None:
            push = push * _cover(places, hidden)
        if guided:
            half = torch.arange(len(hidden), device=hidden.device) >= len(hidden) // 2
            push = push * half[:, None, None, None]
        moved = hidden + push
        return moved if output is hidden else _replaced(output, hidden, moved)

    unet = getattr(model_or_unet, "unet", model_or_unet)
    with ExitStack() as stack:
        before = unet.register_forward_pre_hook(note, with_kwargs=True)
        stack.callback(before.remove)
        stack.callback(chosen[block].register_forward_hook(hook).remove)
        yield


def _cover(
    places: Bool[Tensor, "images rows columns"],
    hidden: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch 1 height width"]:
    """Return how much of each position its image's mask covers."""
    height, width = hidden.shape[-2:]
    share = F.adaptive_avg_pool2d(places[:, None].to(hidden), (height, width))
    return _for_all(share, hidden, "places")


def _for_all(of_images: Tensor, hidden: Tensor, name: str) -> Tensor:
    """Return what there is of each image for each of a batch: (u, c) share one."""
    times, rest = divmod(len(hidden), len(of_images))
    if rest:
        raise ValueError(
            f"{name}: {len(of_images)} for a batch of {len(hidden)}; give one for each image"
        )
    return of_images.repeat(times, 1, 1, 1)


def _replaced(output: Any, hidden: Tensor, moved: Tensor) -> Any:
    """Return what a down block returns, with its hidden states moved on the skip way, too."""
    return tuple(
        _replaced(part, hidden, moved) if isinstance(part, tuple)
        else (moved if part is hidden else part)
        for part in output
    )  # fmt: skip


def random_direction(width: int, seed: int = 0) -> Float[Tensor, " {width}"]:
    """Return a direction drawn evenly from the sphere: the control."""
    numbers = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(width, generator=numbers), dim=0)


def shows(verdicts: Sequence[Verdict], attribute: str, value: str) -> list[bool]:
    """Return whether each judged image shows a thing, or has a background, of this value.

    An image that the judge cannot read shows nothing but, perhaps, its background.
    """
    if attribute == "background":
        return [verdict.background == value for verdict in verdicts]
    things = [verdict.scene.things if verdict.scene else () for verdict in verdicts]
    return [any(getattr(thing, attribute) == value for thing in found) for found in things]
