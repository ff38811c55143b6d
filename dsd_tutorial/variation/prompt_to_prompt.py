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
Prompts = str | Sequence[str] | Tensor


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


def prompt_to_prompt(
    model: StableDiffusion,
    source: Prompts,
    target: Prompts,
    *,
    share: float = 0.6,
    steps: int = 25,
    guidance: float | None = None,
    seed: int | Sequence[int] = 0,
    layers: str | Sequence[str] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> Float[Tensor, "*pairs 2 3 height width"]:
    """Return the images of source and target, in [0, 1], from one noise.

    Args:
        model: Draws both, side by side.
        source: A text, or a prompt (tokens, states) such as `image_to_prompt` makes, which is then
            aligned position by position. A sequence, or (pairs, tokens, states), gives pairs.
        target: As source, and as many.
        share: Of the steps, counted from the noise, in which the target attends as the source does:
            0 is plain sampling, 1 keeps the layout most.
        steps: Denoising steps.
        guidance: None is the model's own.
        seed: One per pair, or the first of consecutive ones.
        layers: In which layers, as `attention.choose_layers` names them; None is all.
        batch_size: Images per pass, two of each pair.
        progress: Show progress bars.

    Raises:
        ValueError: A share outside [0, 1], unequal numbers, or prompts of another length than the
            model's.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share {share}: need 0 (plain sampling) to 1 (in every step)")
    first, second = (_states(model, prompts) for prompts in (source, target))
    if len(first) != len(second):
        raise ValueError(f"{len(first)} sources and {len(second)} targets do not pair up")
    aligned = _aligned(model, source, target, first)
    seeds = seed_list(seed, len(first))
    pairs = max(1, (batch_size or model._batch_size) // 2)
    drawn = []
    for start in range(0, len(first), pairs):
        rows = slice(start, start + pairs)
        own = seeds[rows]
        maps = _SharedMaps(aligned[rows].to(model.device), round(share * steps))
        with alter(model, maps, layers=layers):
            images = model.sample(
                embeddings=torch.cat([first[rows], second[rows]]),
                steps=steps,
                guidance=guidance,
                seed=[*own, *own],
                batch_size=2 * len(own),
                progress=progress,
                callback=maps.count,
            )
        drawn.append(images.unflatten(0, (2, len(own))).transpose(0, 1))
    found = torch.cat(drawn)  # (pairs, 2, 3, height, width)
    single = isinstance(source, str) or (isinstance(source, Tensor) and source.ndim == 2)
    return found[0] if single else found


@torch.no_grad()
def _states(model: StableDiffusion, prompts: Prompts) -> Float[Tensor, "pairs tokens states"]:
    """The prompts as hidden states."""
    if not isinstance(prompts, Tensor):
        return model.encode_text(prompts)
    states = prompts if prompts.ndim == 3 else prompts[None]
    if states.shape[1] != model.context_length:
        raise ValueError(
            f"prompts of {states.shape[1]} positions: need {model.context_length}, so that the "
            "empty prompt of guidance has as many"
        )
    return states


def _aligned(
    model: StableDiffusion,
    source: Prompts,
    target: Prompts,
    states: Float[Tensor, "pairs tokens states"],
) -> Int[Tensor, "pairs tokens"]:
    """The positions of `align`; one to one where a prompt is not a text."""
    if isinstance(source, Tensor) or isinstance(target, Tensor):
        return torch.arange(states.shape[1]).expand(len(states), -1)
    texts = ([x] if isinstance(x, str) else x for x in (source, target))
    return torch.stack([align(model, *pair) for pair in zip(*texts, strict=True)])
