"""Prompt-to-prompt: another text, the same attention, and so the same layout.

Hertz et al., arXiv 2208.01626: both texts are drawn side by side from one noise; in the first steps
the target's cross-attention maps are replaced by the source's. Here through `attention.alter`,
which edits logits: softmax(log p) = p, so the target row is handed the source's log-probabilities.

What differs from their code is *ours*: only cross-attention is shared (theirs also shares
self-attention in some steps), and where new words keep their own maps, the row is normalised
again. It edits an image drawn from a *caption*: for a photograph one would need its caption, and
the noise that draws it.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsd_tutorial.attention import alter
from dsd_tutorial.stable_diffusion import StableDiffusion
from dsd_tutorial.stable_diffusion.sampling import seed_list

NEW = -1  # a word of the target that the source does not have


def align(model: StableDiffusion, source: str, target: str) -> Int[Tensor, " tokens"]:
    """Return the source's position for each position of the target; `NEW` for none.

    Equal tokens align in order. Words that are exchanged for as many tokens take their places
    ("red" -> "blue": the new word looks where the old one looked). EOS token and padding align by
    their distance from the EOS token.
    """
    ids = model.tokenize([source, target]).tolist()
    ends = model.eos_positions([source, target]).tolist()
    a, b = (row[1:end] for row, end in zip(ids, ends, strict=True))
    found = torch.full((len(ids[0]),), NEW)
    found[0] = 0
    for kind, i, i_end, j, j_end in difflib.SequenceMatcher(None, a, b, False).get_opcodes():
        if kind == "equal" or (kind == "replace" and i_end - i == j_end - j):
            found[1 + j : 1 + j_end] = torch.arange(1 + i, 1 + i_end)
    behind = min(len(found) - end for end in ends)
    found[ends[1] : ends[1] + behind] = torch.arange(ends[0], ends[0] + behind)
    return found


class _SharedMaps:
    """The edit for `alter`: gives the last rows of a pass the maps of the rows before them.

    A pass holds [..., pairs sources, pairs targets]; with guidance the rows
    without text stand in front and stay as they are. Works while `step` < `until`.
    """

    def __init__(self, aligned: Int[Tensor, "pairs tokens"], until: int):
        self.aligned, self.until, self.step = aligned, until, 0

    def __call__(
        self, logits: Float[Tensor, "batch heads pixels tokens"], layer: str
    ) -> Float[Tensor, "batch heads pixels tokens"]:
        if self.step >= self.until:
            return logits
        n = len(self.aligned)
        own = logits[-n:].log_softmax(-1)  # of the targets: (pairs, heads, pixels, tokens)
        source = logits[-2 * n : -n].log_softmax(-1)
        aligned = self.aligned[:, None, None].expand_as(own)
        shared = source.gather(-1, aligned.clamp(min=0))
        return torch.cat([logits[:-n], torch.where(aligned == NEW, own, shared)])

    def count(self, index: int, *_: Any) -> None:
        """Callback of `model.sample`, called after each step."""
        self.step = index + 1


@torch.no_grad()
def prompt_to_prompt(
    model: StableDiffusion,
    source: str | Sequence[str],
    target: str | Sequence[str],
    *,
    share: float = 0.6,
    steps: int = 25,
    guidance: float | None = None,
    seed: int | Sequence[int] = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> Float[Tensor, "*pairs 2 3 height width"]:
    """Return the images of source and target, in [0, 1], from one noise.

    Args:
        model: Draws both, side by side.
        source: A text, or one for each pair.
        target: As source, and as many.
        share: Of the steps, counted from the noise, in which the target attends as the source does:
            0 is plain sampling, 1 keeps the layout most.
        steps: Denoising steps.
        guidance: None is the model's own.
        seed: One per pair, or the first of consecutive ones.
        batch_size: Images per pass, two of each pair.
        progress: Show progress bars.

    Raises:
        ValueError: A share outside [0, 1], or unequal numbers.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share {share}: need 0 (plain sampling) to 1 (in every step)")
    sources, targets = ([x] if isinstance(x, str) else list(x) for x in (source, target))
    if len(sources) != len(targets):
        raise ValueError(f"{len(sources)} sources and {len(targets)} targets do not pair up")
    aligned = torch.stack([align(model, *pair) for pair in zip(sources, targets, strict=True)])
    seeds = seed_list(seed, len(sources))
    pairs = max(1, (batch_size or model._batch_size) // 2)
    drawn = []
    for start in range(0, len(sources), pairs):
        rows = slice(start, start + pairs)
        maps = _SharedMaps(aligned[rows].to(model.device), round(share * steps))
        with alter(model, maps):
            images = model.sample(
                [*sources[rows], *targets[rows]],
                steps=steps,
                guidance=guidance,
                seed=2 * seeds[rows],
                batch_size=2 * pairs,
                progress=progress,
                callback=maps.count,
            )
        drawn.append(images.unflatten(0, (2, -1)).transpose(0, 1))
    found = torch.cat(drawn)  # (pairs, 2, 3, height, width)
    return found[0] if isinstance(source, str) else found
