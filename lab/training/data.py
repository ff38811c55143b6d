"""The pool of training images and captions that every trainer draws its batches from.

Images are rendered once and kept as bytes on the training device; every scene carries several
captions, already tokenised. Only scenes of the *train* split ever enter a pool.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from dsd_tutorial.shapes.captions import caption
from dsd_tutorial.shapes.render import render
from dsd_tutorial.shapes.scene import Scene, random_scenes

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

CONTEXT_LENGTH = 32
SIZE = 64  # pixels a side
CAPTIONS = 4  # of each scene
CHUNK = 4096
DETAILS = 0.7  # how often size and position are named: rarely named words are learned last


@dataclass
class Pool:
    """`images` (n, 3, size, size) uint8; `tokens` (n, captions, L) int16; `captions` ids (n, c).

    Two captions have the same id exactly when they are the same text.
    """

    scenes: list[Scene]
    images: Tensor
    tokens: Tensor | None = None
    caption_ids: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scenes)

    def batch_images(self, index: Tensor) -> Tensor:
        """Images (k, 3, size, size) in [0, 1] for `index` (k,)."""
        return self.images[index].float() / 255

    def draw(self, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Scene numbers (k,) and token ids (k, L): one random caption for each random scene."""
        index, which = self._random(k, generator)
        return index, self.tokens[index, which].long()

    def draw_distinct(self, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `draw`, but no caption text occurs twice, as contrastive learning wants it.

        Raises RuntimeError where the pool holds too few distinct captions for the batch.
        """
        for factor in (2, 4, 16):
            index, which = self._random(factor * k, generator)
            _, first = np.unique(self.caption_ids[index, which].cpu(), return_index=True)
            if len(first) >= k:
                chosen = torch.from_numpy(np.sort(first)[:k]).to(index.device)
                return index[chosen], self.tokens[index[chosen], which[chosen]].long()
        raise RuntimeError(f"the pool has fewer than {k} distinct captions; use a larger pool")

    def _random(self, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        device = self.images.device
        index = torch.randint(len(self), (k,), generator=generator)
        which = torch.randint(self.tokens.shape[1], (k,), generator=generator)
        return index.to(device), which.to(device)


def make_pool(
    n: int,
    seed: int,
    *,
    tokenizer: CLIPTokenizer | None = None,
    one_object_share: float = 0.5,
    device: str | torch.device = "cpu",
) -> Pool:
    """A pool of `n` train scenes with their images and, given a tokenizer, their captions."""
    scenes = random_scenes(n, seed, split="train", one_object_share=one_object_share)
    images = torch.empty(n, 3, SIZE, SIZE, dtype=torch.uint8, device=device)
    for start in tqdm(range(0, n, CHUNK), desc="rendering", unit_scale=CHUNK):
        part, _ = render(scenes[start : start + CHUNK], SIZE, device)
        images[start : start + len(part)] = (part * 255).round().to(torch.uint8)
    pool = Pool(scenes, images)
    if tokenizer is not None:
        _add_captions(pool, tokenizer, seed)
    return pool


def _add_captions(pool: Pool, tokenizer: CLIPTokenizer, seed: int) -> None:
    rng = random.Random(seed + 1)
    texts = [[caption(s, rng, details=DETAILS) for _ in range(CAPTIONS)] for s in pool.scenes]
    number: dict[str, int] = {}
    ids = [[number.setdefault(t, len(number)) for t in row] for row in texts]
    unique = list(number)
    starts = tqdm(range(0, len(unique), CHUNK), desc="tokenising", unit_scale=CHUNK)
    parts = [tokenize(tokenizer, unique[i : i + CHUNK]).short() for i in starts]
    pool.caption_ids = torch.tensor(ids, device=pool.images.device)
    pool.tokens = torch.cat(parts).to(pool.images.device)[pool.caption_ids]


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token ids (n, L), padded to the tokenizer's full length."""
    return tokenizer(
        texts,
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
