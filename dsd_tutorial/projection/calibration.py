"""What the encoder at hand says of its own EOS states: length, mean, covariance, repetition.

No constant of another encoder is used: Ding et al., arXiv 2305.12716, have 27.5 for ViT-L/14; a
width of 128 gives another length. Everything here is measured on captions, and where a method needs
pairs, on captions with their images; all of them of the train split.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import trange

from dsd_tutorial.projection.matrices import as_matrix
from dsd_tutorial.shapes import Scene, full_description, random_scenes, render
from dsd_tutorial.stable_diffusion import StableDiffusion

CHUNK = 64
NEAR = 0.5**0.5  # cosine of 45 degrees: a state nearer to the EOS state than to unrelated ones
LEAST = 8  # positions behind the EOS token are compared where this many captions have them


class PenultimateLayerError(ValueError):
    """The U-Net does not read the layer that CLIP's text projection belongs to."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Figures of the EOS states h of captions; tensors in float64."""

    length: float  # c: mean length of h
    spread: float  # standard deviation of the length of h
    projected_length: float  # mean length of W_t h: the numerator of k
    mean: Float[Tensor, " states"]
    covariance: Float[Tensor, "states states"]
    agreement: Float[Tensor, " positions"]  # mean cosine of the state j behind the EOS token with h

    @property
    def repeats(self) -> int:
        """Return how many positions, from the EOS token on, repeat its state (within 45 degrees).

        So far do captions themselves say one thing behind their words *(ours)*.
        """
        near = (self.agreement >= NEAR).int()
        return max(1, int(near.cumprod(0).sum()))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Images and their captions, encoded: row i of every tensor belongs together. Float32."""

    pooled: Float[Tensor, "pairs vision"]  # f_i
    embedding: Float[Tensor, "pairs projected"]  # W_i f_i
    state: Float[Tensor, "pairs states"]  # h
    projected: Float[Tensor, "pairs projected"]  # W_t h

    def __len__(self) -> int:
        return len(self.state)


def text_weight(model: StableDiffusion) -> Float[Tensor, "projected states"]:
    """Return W_t, float64 on the CPU, of a model whose U-Net reads h itself.

    Raises:
        PenultimateLayerError: SD 2.x: the states its U-Net reads are not those that W_t projects.
        ValueError: No CLIP, or towers of another width than the U-Net's.
    """
    read = model.text_encoder.config.num_hidden_layers
    # before CLIP is looked for: no CLIP could help a model that reads another layer
    whole = read + (model.text_layer != "last")
    if model.clip is not None:
        whole = model.clip.config.text_config.num_hidden_layers
    if model.text_layer != "last" or read != whole:
        raise PenultimateLayerError(
            f"{model.name}: its U-Net reads the states of text layer {read} of {whole}, but CLIP's "
            "text projection belongs to the last layer. An inverse of it would give states that "
            "this U-Net has never seen, without any error. Closed-form projection works where the "
            "U-Net reads the last layer: shapes-sd, sd-1.4, sd-1.5."
        )
    weight = model._clip().text_projection.weight
    if weight.shape[1] != model.unet.config.cross_attention_dim:
        raise ValueError(
            f"{model.name}: CLIP's text states have width {weight.shape[1]}, the U-Net reads "
            f"{model.unet.config.cross_attention_dim}: this is the CLIP of another model"
        )
    return as_matrix(weight)


def train_scenes(
    n: int, seed: int, one_object_share: float | None = None
) -> tuple[list[Scene], list[str]]:
    """Return `n` scenes of the train split and a caption of each, in a random wording.

    A caption names objects, relation and background, and no size or position: the longer it is,
    the less of an object's shape the U-Net reads from its EOS state alone. `one_object_share` of
    the scenes have one object; None is the shapes world's usual share.
    """
    rng = random.Random(seed)
    options = {} if one_object_share is None else {"one_object_share": one_object_share}
    scenes = random_scenes(n, seed, split="train", **options)
    wordings = [full_description(scene, details=False).phrasings() for scene in scenes]
    return scenes, [rng.choice(each) for each in wordings]


def eos_states(
    model: StableDiffusion, texts: Sequence[str], progress: bool = False
) -> Float[Tensor, "texts states"]:
    """Return h of each text: the state at its first EOS token, as the U-Net reads it.

    Raises ValueError for no texts.
    """
    return _eos_and_behind(model, texts, progress)[0]


@torch.no_grad()
def _eos_and_behind(
    model: StableDiffusion, texts: Sequence[str], progress: bool
) -> tuple[Float[Tensor, "texts states"], list[list[float]]]:
    """The EOS states, and for each text the cosines of h with every state from its place on."""
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts:
        raise ValueError("no captions: give at least one")
    states, cosines = [], []
    for start in trange(0, len(texts), CHUNK, desc="captions", disable=not progress, leave=False):
        part = texts[start : start + CHUNK]
        context, ends = model.encode_text(part), model.eos_positions(part)
        eos = context[torch.arange(len(part), device=context.device), ends]
        same = F.cosine_similarity(context, eos[:, None], dim=-1).cpu()  # (part, tokens)
        cosines += [row[at:].tolist() for row, at in zip(same, ends.tolist(), strict=True)]
        states.append(eos)
    return torch.cat(states), cosines


def calibrate(
    model: StableDiffusion,
    texts: Sequence[str] | None = None,
    *,
    n: int = 400,
    seed: int = 0,
    one_object_share: float | None = None,
    progress: bool = True,
) -> Calibration:
    """Return the `Calibration` of a model on `texts`, or on `n` captions of the shapes world.

    `one_object_share` 1 takes captions of one object, where images of one object are to be
    inverted; None takes them as they come. For photographs give captions of photographs: the
    length hardly depends on them, mean and covariance do. Raises as `text_weight`, and ValueError
    for fewer than two texts.
    """
    weight = text_weight(model)
    if texts is None:
        texts = train_scenes(n, seed, one_object_share)[1]
    if len(texts) < 2:
        raise ValueError(f"{len(texts)} captions: need two or more to calibrate")
    states, cosines = _eos_and_behind(model, texts, progress)
    h = states.cpu().double()
    lengths = h.norm(dim=-1)
    least = min(LEAST, len(cosines))
    far = max(j for j in range(model.context_length) if sum(len(c) > j for c in cosines) >= least)
    columns = [[c[j] for c in cosines if len(c) > j] for j in range(far + 1)]
    return Calibration(
        length=float(lengths.mean()),
        spread=float(lengths.std()),
        projected_length=float((h @ weight.T).norm(dim=-1).mean()),
        mean=h.mean(0),
        covariance=torch.cov(h.T),
        agreement=torch.tensor([sum(c) / len(c) for c in columns], dtype=torch.float64),
    )


@torch.no_grad()
def collect_pairs(
    model: StableDiffusion,
    images: Tensor | Sequence[Any] | None = None,
    texts: Sequence[str] | None = None,
    *,
    n: int = 1500,
    seed: int = 1,
    one_object_share: float | None = None,
    progress: bool = True,
) -> Pairs:
    """Return encoded pairs: of `images` and their `texts`, or of `n` scenes of the train split.

    `one_object_share` as in `calibrate`. Raises ValueError where only one of images and texts is
    given, or their numbers differ.
    """
    text_weight(model)
    scenes: list[Scene] = []
    if images is None and texts is None:
        scenes, texts = train_scenes(n, seed, one_object_share)
    elif images is None or texts is None:
        raise ValueError("pairs need images and texts, or neither (then the shapes world is used)")
    elif len(images) != len(texts):
        raise ValueError(f"{len(images)} images and {len(texts)} texts do not pair up")
    found = []
    for start in trange(0, len(texts), CHUNK, desc="pairs", disable=not progress, leave=False):
        rows = slice(start, start + CHUNK)
        shown = render(scenes[rows], model.resolution)[0] if images is None else images[rows]
        state = eos_states(model, texts[rows])
        pooled, embedding = model.encode_clip_image(shown)
        found.append((pooled, embedding, state, model._clip().text_projection(state)))
    return Pairs(*(torch.cat(column) for column in zip(*found, strict=True)))
