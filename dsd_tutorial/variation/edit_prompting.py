"""Editing a picture with words: their states first, then the picture's, mixed with the text's.

Ding et al., arXiv 2305.12716 (METHODS.md B.3). Let p be the position of the text's end token:

    positions 0 .. p-1      the text's own states: start token and words
    positions p .. L-1      h_img + alpha * the text's state at that position

alpha says how loud the text is behind its own words; about 0.5 to 0.9 in the paper's models.

What is *ours*, each an option that is off by default, but for the first in the embedded model:
* `copies`: in the embedded model not all positions are mixed, but as many as an image prompt fills
  (see `prompting`); the text's own padding states stand behind.
  `copies="all"` is the paper's.
* `rescale`: the sum of two states of length c is longer than any state that the U-Net has seen (up
  to (1 + alpha) c), and a longer key makes a sharper softmax. Rescaled, it has the length c again.
* `neutral`: "a blue object" also says "some object, on some ground", and pulls what was not asked
  for towards the middle of all pictures. With the states of a neutral text taken off, alpha * (text
  - neutral), only the difference is added. h_img still holds the old value once, so the new one
  leads only from alpha = 1 on: expect about 2.
* `words=False`: the edit happens in the end state alone, and the edited state is then an image
  prompt like any other; the words' own states are left out.
* `source_prompt`: a sum says the old value beside the new one. A text of what is to go, "a red object" for
  "a blue object", says which; taken off in the end state (neutral=source_prompt, rescale=True, words=False),
  alpha = 1 replaces the one by the other, as directions in CLIP's space do in Patashnik et al.,
  arXiv 2103.17249 (StyleCLIP). `nearest_text` finds it, so that nobody has to be asked. Where
  nothing goes ("") an object is only added, and one state has no words in which two objects could
  be told apart: the words stand in front, the picture alone behind them (alpha 0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dsd_tutorial.projection import Inverse, fit_inverse
from dsd_tutorial.variation.prompting import Copies, states_to_prompt

EDIT_FILLS = {
    "text": "the text's own padding states, each at its own position",
    "empty": "padding states of the empty prompt, each at its own position",
    "none": "nothing: the sequence ends after the mixed states (texts of one length only)",
}
Images = Tensor | Sequence[Any]
Texts = str | Sequence[str]


@dataclass(frozen=True)
class _Mixing:
    """Options of `edit_prompt`, which says what they mean; copies None is "all"."""

    alpha: float
    copies: Copies = None
    fill: str = "text"
    rescale: bool = False
    neutral: Texts | None = None
    words: bool = True


@torch.no_grad()
def edit_prompt(
    model: Any,
    images: Images,
    text: Texts,
    inverse: Inverse | None = None,
    *,
    alpha: float = 0.7,
    copies: Copies = None,
    fill: str = "text",
    rescale: bool = False,
    neutral: Texts | None = None,
    words: bool = True,
    source_prompt: Texts | None = None,
    progress: bool = True,
) -> Tensor:
    """Return prompts (images, L, d) that say `text` and show the pictures.

    images   as `encode_clip_image` takes them, or a single picture
    text     one for all pictures or one each; one picture may have several texts
    alpha    weight of the text's states behind its words; 0 leaves them to the picture alone
    copies   how many positions from the end token on are mixed, as far as there is room; "all" is
             the paper's, None is `inverse.copies` (all, but for the embedded model)
    fill     what stands behind them, one of `EDIT_FILLS`
    rescale  bring the mixed states back to the length of h_img
    neutral  a text that says nothing of what may be edited ("an object", "a photo"): its states are
             taken off the text's, counted from the end token. One for all edits or one each; None
             is the paper's
    words    False: no states of words; the mixed end state fills positions 1..copies, and "text"
             behind it is "empty"
    source_prompt     what is to go, in words, one for all edits or one each; "" where nothing is. It decides
             about neutral, rescale and words by itself, and alpha counts only where something goes

    With text "" and alpha 0 it is `image_to_prompt`: p = 1 there. `inverse` None fits the paper's.
    Raises ValueError for alpha, copies or fill out of range, numbers that do not pair up, or `source_prompt`
    beside another option that it decides about.
    """
    how = _Mixing(alpha, copies, fill, rescale, neutral, words)
    _check(model, how)
    inverse = inverse or fit_inverse(model, progress=progress)
    h = inverse(model.encode_clip_image(_batch(images)))  # (images, d): h_img
    how = how if copies is not None else replace(how, copies=inverse.copies)
    return _edited(model, h, _list(text), how, source_prompt)


@torch.no_grad()
def states_to_edit(
    model: Any,
    states: Tensor,
    text: Texts,
    *,
    alpha: float = 0.7,
    copies: Copies = None,
    source_prompt: Texts | None = None,
) -> Tensor:
    """Return prompts (states, L, d) as `edit_prompt` does, of states h (states, d) that are known.

    `copies` None is "all". Raises ValueError as `edit_prompt`.
    """
    how = _Mixing(alpha, copies)
    _check(model, how)
    return _edited(model, states, _list(text), how, source_prompt)


def _edited(
    model: Any, states: Tensor, texts: list[str], how: _Mixing, source_prompt: Texts | None
) -> Tensor:
    """The prompts (n, L, d) of states (n or 1, d) and texts, n or one; what of `source_prompt` makes way."""
    n = max(len(states), len(texts))
    if len(states) != len(texts) and 1 not in (len(states), len(texts)):
        raise ValueError(
            f"{len(states)} pictures and {len(texts)} texts do not pair up: give one text for all, "
            "one for each picture, or one picture"
        )
    if source_prompt is None:
        return _mixed(model, states, texts, how)
    if how.rescale or not how.words or how.neutral is not None:
        raise ValueError(
            f"source_prompt={source_prompt!r} decides about rescale, words and neutral: leave these out"
        )
    source_prompt = _list(source_prompt)
    if len(source_prompt) not in (1, n):
        raise ValueError(
            f"{len(source_prompt)} source prompts for {n} edits: give one, or one each"
        )
    texts, source_prompt = texts * (n // len(texts)), source_prompt * (n // len(source_prompt))
    goes = torch.tensor([bool(text) for text in source_prompt], device=states.device)
    off = [old or new for old, new in zip(source_prompt, texts, strict=True)]
    moving = replace(how, neutral=off, rescale=True, words=False)
    adding = replace(how, alpha=0.0)
    if goes.all() or not goes.any():
        return _mixed(model, states, texts, moving if goes[0] else adding)
    if how.fill == "none":
        raise ValueError(
            "fill='none' cuts a prompt at another length where something goes than where an object "
            "is only added: edit these apart, or take another fill"
        )
    moved, added = (_mixed(model, states, texts, each) for each in (moving, adding))
    return torch.where(goes[:, None, None], moved, added)


def _mixed(model: Any, states: Tensor, texts: list[str], how: _Mixing) -> Tensor:
    """The prompts (n, L, d) in which states are mixed with the texts' own."""
    said, ends = model.encode_text(texts), model.eos_positions(texts)  # (texts, L, d), (texts,)
    image, added = states.to(said)[:, None], said
    if how.neutral is not None:
        added = said - _shifted(model, how.neutral, ends, said, max(len(image), len(said)))
    mixed = image + how.alpha * added  # (n, L, d)
    if how.rescale:
        mixed = image.norm(dim=-1, keepdim=True) * F.normalize(mixed, dim=-1)
    copies, fill = "all" if how.copies is None else how.copies, how.fill
    if how.words:
        return _sequence(model, said, mixed, ends, copies, fill)
    end = mixed[torch.arange(len(mixed), device=ends.device), ends.expand(len(mixed))]
    return states_to_prompt(model, end, copies=copies, fill="none" if fill == "none" else "empty")


def _list(texts: Texts) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def _shifted(model: Any, text: Texts, ends: Tensor, like: Tensor, edits: int) -> Tensor:
    """The states of `text`, (texts, L, d), moved so that its end token stands at `ends` (texts,).

    Beyond its own ends the first and last states repeat. One text, or as many as there are edits.
    """
    texts = _list(text)
    if len(texts) not in (1, edits):
        raise ValueError(f"{len(texts)} neutral texts for {edits} edits: give one, or one for each")
    length = like.shape[1]
    position = torch.arange(length, device=ends.device)[None] - ends[:, None]  # (ends, L)
    source = (position + model.eos_positions(texts)[:, None]).clamp(0, length - 1)
    states = model.encode_text(texts).to(like).expand(len(source), -1, -1)
    return states.gather(1, source[..., None].expand(-1, -1, states.shape[-1]))


@torch.no_grad()
def nearest_text(model: Any, images: Images, texts: Sequence[str]) -> list[str]:
    """Return for each picture which of `texts` CLIP finds most like it: zero-shot classification.

    What `edit_prompt` may take as `source_prompt`. Raises ValueError for no texts.
    """
    if not len(texts):
        raise ValueError("no texts to choose from: give one or more")
    seen = F.normalize(model.encode_clip_image(_batch(images)).embedding, dim=-1)
    said = F.normalize(model.encode_clip_text(list(texts)), dim=-1)
    return [texts[i] for i in (seen @ said.T).argmax(1).tolist()]


def _sequence(
    model: Any, said: Tensor, mixed: Tensor, ends: Tensor, copies: int | str, fill: str
) -> Tensor:
    """The prompts (n, L, d): text states `said` (n or 1, L, d) before p, then `mixed` (n, L, d)."""
    length = said.shape[1]
    position = torch.arange(length, device=said.device)
    start = ends[:, None]  # (n or 1, 1): p
    stop = (start + (length if copies == "all" else int(copies))).clamp(max=length)
    behind = model.encode_text("").to(said) if fill == "empty" else said
    prompt = torch.where((position < start)[..., None], said, mixed)
    prompt = torch.where((position >= stop)[..., None], behind, prompt)
    if fill != "none":
        return prompt
    if len(stop.unique()) > 1:
        raise ValueError(
            f"fill='none' cuts each prompt behind its mixed states, here at positions "
            f"{sorted(set(stop.flatten().tolist()))}: give texts of one length, or another fill "
            f"({', '.join(name for name in EDIT_FILLS if name != 'none')})"
        )
    return prompt[:, : int(stop[0])]


def _check(model: Any, how: _Mixing) -> None:
    alpha, copies, fill = how.alpha, how.copies, how.fill
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ValueError(
            f"alpha {alpha}: need a number of 0 (picture alone behind the words) or more; "
            "0.5 to 0.9 is usual, 1.5 to 2.5 with a neutral text"
        )
    if fill not in EDIT_FILLS:
        raise ValueError(f"unknown fill {fill!r}; choose one of {', '.join(EDIT_FILLS)}")
    last = model.context_length - 1
    if copies not in (None, "all") and not (isinstance(copies, int) and 1 <= copies <= last):
        raise ValueError(f"copies {copies!r}: need 1 to {last}, or 'all' of them")


def _batch(images: Any) -> Images:
    """Pictures as `encode_clip_image` takes them; a single one becomes a batch of one."""
    if isinstance(images, Tensor):
        return images if images.ndim == 4 else images[None]
    return images if isinstance(images, list | tuple) else [images]
