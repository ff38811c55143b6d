"""Does this caption fit this image? The attention score, for every pair, under shared noise.

For each time step t_i and noise e_i, shared by all candidates: z_t from the image's latent
(encoded once), one U-Net pass with the text as condition, log-sum-exp of the raw cross-attention
logits over the tokens, mean over pixels, heads, layers and (t_i, e_i), never over the batch (He et
al., arXiv 2305.10722, as in the released code, whose empty-prompt half is left out here). The error
term ||e - eps(z_t, empty)|| - ||e - eps(z_t, text)|| is a diffusion classifier's; it is off unless
asked for, so that the two can be told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.matching.parts import components


def score(
    model: Any,
    images: Tensor,
    texts: Sequence[str],
    *,
    error_weight: float = 0.0,
    attention_weight: float = 1.0,
    weights: Tensor | None = None,
    **settings: Any,
) -> Tensor:
    """Return how well each text fits each image, (M, N), higher is better.

    images (M, 3, height, width) in [0, 1]; N texts. `error_weight` is beta of the error term,
    `weights` as in `Components.score`; all else, with its defaults, as in `components`: steps,
    noises, layers, token_mask, lam, pooling, pooling_lam, seed, batch_size, progress.
    """
    parts = components(model, images, texts, errors=error_weight != 0, **settings)
    scores = parts.score(weights, attention_weight=attention_weight, error_weight=error_weight)
    return scores.view(len(images), len(texts))


def score_pairs(
    model: Any,
    images: Tensor,
    texts: Sequence[str],
    image_index: Sequence[int] | Tensor,
    text_index: Sequence[int] | Tensor,
    *,
    error_weight: float = 0.0,
    attention_weight: float = 1.0,
    weights: Tensor | None = None,
    **settings: Any,
) -> Tensor:
    """Return the score of the listed pairs only, (pairs,); settings as in `score`.

    Any shape of index works, such as (items, candidates), and comes back.
    """
    image_index, text_index = torch.as_tensor(image_index), torch.as_tensor(text_index)
    pairs = torch.stack(torch.broadcast_tensors(image_index, text_index), dim=-1)
    parts = components(
        model, images, texts, pairs.view(-1, 2), errors=error_weight != 0, **settings
    )
    scores = parts.score(weights, attention_weight=attention_weight, error_weight=error_weight)
    return scores.view(pairs.shape[:-1])
