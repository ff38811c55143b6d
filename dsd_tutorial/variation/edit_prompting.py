"""Editing an image with words: their states first, then the image's, mixed with the text's.

Ding et al., arXiv 2305.12716 (METHODS.md B.3). Let p be the position of the text's EOS token:

    positions 0 .. p-1      the text's own states: start token and words
    positions p .. L-1      h_img + alpha * the text's state at that position

alpha weighs the text behind its own words; about 0.5 to 0.9 in the paper's models.

What is *ours*, each an option that is off by default, but for the first in the embedded model:
* `copies`: in the embedded model not all positions are mixed, but as many as an image prompt fills
  (see `prompting`); the text's own padding states stand behind. `copies="all"` is the paper's.
* `rescale`: the sum of two states of length c is longer than any state that the U-Net has seen (up
  to (1 + alpha) c), and a longer key makes a sharper softmax. Rescaled, it has the length c again.
* `neutral`: "a blue object" also says "some object, on some ground", and pulls what was not to
  change towards the middle of all images. With the states of a neutral text taken off, alpha *
  (text - neutral), only the difference is added. h_img still holds the old value once, so the new
  one leads only from alpha = 1 on: expect about 2.
* `words=False`: the edit happens in the EOS state alone, and the edited state is then an image
  prompt like any other; the words' own states are left out.
* `source_prompt`: a sum says the old value beside the new one. A text of what is to be replaced,
  "a red object" for "a blue object", says which; taken off in the EOS state (neutral=source_prompt,
  rescale=True, words=False), alpha = 1 replaces the one by the other, as directions in CLIP's space
  do in Patashnik et al., arXiv 2103.17249 (StyleCLIP). `nearest_text` finds it. Where nothing is
  replaced ("") an object is only added, and one state has no words in which two objects could be
  told apart: the words stand in front, the image alone behind them (alpha 0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dsd_tutorial.projection import Inverse, fit_inverse
from dsd_tutorial.shapes import alternatives
from dsd_tutorial.stable_diffusion import StableDiffusion
from dsd_tutorial.variation.prompting import Copies, count, states_to_prompt

Images = Any  # what `encode_clip_image` takes, or a single image: tensor, PIL or path
Texts = str | Sequence[str]


@dataclass(frozen=True)
class _Mixing:
    """Options of `edit_prompt`, which says what they mean."""

    alpha: float
    copies: int
    rescale: bool = False
    neutral: Texts | None = None
    words: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ValueError(
                f"alpha {self.alpha}: need a number of 0 (image alone behind the words) or more; "
                "0.5 to 0.9 is usual, 1.5 to 2.5 with a neutral text"
            )


@torch.no_grad()
def edit_prompt(
    model: StableDiffusion,
    images: Images,
    text: Texts,
    inverse: Inverse | None = None,
    *,
    alpha: float = 0.7,
    copies: Copies = None,
    rescale: bool = False,
    neutral: Texts | None = None,
    words: bool = True,
    source_prompt: Texts | None = None,
    progress: bool = True,
) -> Float[Tensor, "edits tokens states"]:
    """Return prompts that say `text` and show the images.

    With text "" and alpha 0 it is `image_to_prompt`: p = 1 there.

    Args:
        model: The model whose U-Net is to read them.
        images: As `encode_clip_image` takes them, or a single image.
        text: One for all images or one each; one image may have several texts.
        inverse: None fits the paper's.
        alpha: Weight of the text's states behind its words; 0 leaves them to the image alone.
        copies: How many positions from the EOS token on are mixed, as far as there is room; "all"
            is the paper's, None is `inverse.copies` (all, but for the embedded model).
        rescale: Bring the mixed states back to the length of h_img.
        neutral: A text that says nothing of what may be edited ("an object", "a photo"): its states
            are taken off the text's, counted from the EOS token. One for all edits or one each;
            None is the paper's.
        words: False: no states of words; the mixed EOS state fills positions 1..copies.
        source_prompt: What is to be replaced, in words, one for all edits or one each; "" where
            nothing is. It decides about neutral, rescale and words by itself, and alpha counts only
            where something is replaced.
        progress: Show progress bars.

    Raises:
        ValueError: alpha or copies out of range, numbers that do not pair up, or `source_prompt`
            beside another option that it decides about.
    """
    how = _Mixing(alpha, count(model, copies), rescale, neutral, words)
    inverse = inverse or fit_inverse(model, progress=progress)
    if copies is None:
        how = replace(how, copies=inverse.copies)
    h = inverse(model.encode_clip_image(_batch(images)))  # (images, states): h_img
    return _edited(model, h, _list(text), how, source_prompt)


def states_to_edit(
    model: StableDiffusion,
    states: Float[Tensor, "images states"],
    text: Texts,
    *,
    alpha: float = 0.7,
    copies: Copies = None,
    source_prompt: Texts | None = None,
) -> Float[Tensor, "edits tokens states"]:
    """Return prompts as `edit_prompt` does, of states h that are known.

    `copies` None is "all". Raises ValueError as `edit_prompt`.
    """
    how = _Mixing(alpha, count(model, copies))
    return _edited(model, states, _list(text), how, source_prompt)


def _edited(
    model: StableDiffusion,
    states: Float[Tensor, "images states"],
    texts: list[str],
    how: _Mixing,
    source_prompt: Texts | None,
) -> Float[Tensor, "edits tokens states"]:
    """The prompts of states and texts, as many or one of either."""
    n = max(len(states), len(texts))
    if len(states) != len(texts) and 1 not in (len(states), len(texts)):
        raise ValueError(
            f"{len(states)} images and {len(texts)} texts do not pair up: give one text for all, "
            "one for each image, or one image"
        )
    if source_prompt is None:
        return _mixed(model, states, texts, how)
    if how.rescale or not how.words or how.neutral is not None:
        raise ValueError(
            f"source_prompt={source_prompt!r} decides about rescale, words and neutral: leave "
            "these out"
        )
    old = _list(source_prompt)
    if len(old) not in (1, n):
        raise ValueError(f"{len(old)} source prompts for {n} edits: give one, or one each")
    texts, old = texts * (n // len(texts)), old * (n // len(old))
    taken_off = [source or target for source, target in zip(old, texts, strict=True)]
    replaced = _mixed(
        model, states, texts, replace(how, neutral=taken_off, rescale=True, words=False)
    )
    added = _mixed(model, states, texts, replace(how, alpha=0.0))
    replaces = torch.tensor([bool(source) for source in old], device=replaced.device)
    return torch.where(replaces[:, None, None], replaced, added)


def _mixed(
    model: StableDiffusion, states: Float[Tensor, "images states"], texts: list[str], how: _Mixing
) -> Float[Tensor, "edits tokens states"]:
    """The prompts in which states are mixed with the texts' own."""
    said, ends = model.encode_text(texts), model.eos_positions(texts)
    image, added = states.to(said)[:, None], said
    if how.neutral is not None:
        added = said - _shifted(model, how.neutral, ends, said, max(len(image), len(said)))
    mixed = image + how.alpha * added  # (edits, tokens, states)
    if how.rescale:
        mixed = image.norm(dim=-1, keepdim=True) * F.normalize(mixed, dim=-1)
    if not how.words:
        eos = mixed[torch.arange(len(mixed), device=ends.device), ends.expand(len(mixed))]
        return states_to_prompt(model, eos, copies=how.copies)
    behind = torch.arange(said.shape[1], device=said.device) - ends[:, None]  # the EOS token: 0
    in_use = (behind >= 0) & (behind < how.copies)
    return torch.where(in_use[..., None], mixed, said)


def _shifted(
    model: StableDiffusion,
    text: Texts,
    ends: Int[Tensor, " texts"],
    like: Float[Tensor, "texts tokens states"],
    edits: int,
) -> Float[Tensor, "edits_or_texts tokens states"]:
    """The states of `text`, moved so that its EOS token stands at `ends`.

    Beyond its own ends the first and last states repeat. One text, or as many as there are edits.
    """
    texts = _list(text)
    if len(texts) not in (1, edits):
        raise ValueError(f"{len(texts)} neutral texts for {edits} edits: give one, or one for each")
    length = like.shape[1]
    position = torch.arange(length, device=ends.device)[None] - ends[:, None]  # (texts, tokens)
    source = (position + model.eos_positions(texts)[:, None]).clamp(0, length - 1)
    states = model.encode_text(texts).to(like).expand(len(source), -1, -1)
    return states.gather(1, source[..., None].expand(-1, -1, states.shape[-1]))


@torch.no_grad()
def nearest_text(model: StableDiffusion, images: Images, texts: Sequence[str]) -> list[str]:
    """Return for each image which of `texts` CLIP finds most like it: zero-shot classification.

    What `edit_prompt` may take as `source_prompt`. Raises ValueError for no texts.
    """
    if not len(texts):
        raise ValueError("no texts to choose from: give one or more")
    embedding = F.normalize(model.encode_clip_image(_batch(images)).embedding, dim=-1)
    said = F.normalize(model.encode_clip_text(list(texts)), dim=-1)
    return [texts[int(i)] for i in (embedding @ said.T).argmax(1)]


def source_prompts(model: StableDiffusion, images: Images, texts: Sequence[str]) -> list[str]:
    """Return for each image what its text replaces, as CLIP sees the image; "" where nothing goes.

    One of the text's `shapes.alternatives`, for `edit_prompt(source_prompt=...)`.
    """
    pairs = zip(_batch(images), texts, strict=True)
    return [nearest_text(model, image, alternatives(text))[0] for image, text in pairs]


def _list(texts: Texts) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def _batch(images: Images) -> Any:
    """Images as `encode_clip_image` takes them; a single one becomes a batch of one."""
    if isinstance(images, Tensor):
        return images if images.ndim == 4 else images[None]
    return images if isinstance(images, list | tuple) else [images]
