"""Does this caption fit this image? The attention score, for every pair, under shared noise.

For each time step t_i and noise e_i, shared by all candidates: z_t from the image's latent
(encoded once), one U-Net pass with the text as condition, log-sum-exp of the raw cross-attention
logits over the tokens, mean over pixels, heads, layers and (t_i, e_i), never over the batch (He et
al., arXiv 2305.10722, as in the released code, whose empty-prompt half is left out here). The error
term ||e - eps(z_t, empty)|| - ||e - eps(z_t, text)|| is a diffusion classifier's; it is off by
default, so that the two can be told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsd_tutorial.attention import choose_layers
from dsd_tutorial.attention.pooling import PIXEL_POOLINGS
from dsd_tutorial.attention.readings import check_readings
from dsd_tutorial.attention.token_masks import TOKEN_MASKS
from dsd_tutorial.matching.batches import BatchSize, stopping
from dsd_tutorial.matching.parts import Components
from dsd_tutorial.matching.passes import Passes
from dsd_tutorial.matching.prior import TextPrior
from dsd_tutorial.matching.tally import Tally
from dsd_tutorial.stable_diffusion.noising import time_grid


def score(
    model: Any,
    images: Float[Tensor, "images 3 height width"],
    texts: Sequence[str],
    *,
    error_weight: float = 0.0,
    attention_weight: float = 1.0,
    weights: Float[Tensor, "*axes"] | None = None,
    reading: str | None = None,
    **settings: Any,
) -> Float[Tensor, "images texts"]:
    """Return how well each text fits each image, higher is better.

    Args:
        model: A `StableDiffusion`.
        images: In [0, 1].
        texts: Captions.
        error_weight: Beta of the error term.
        attention_weight: Of the attention score.
        weights: As in `Components.score`.
        reading: What is read of the logits in place of their log-sum-exp, one of
            `attention.READINGS`, such as "direction".
        **settings: As in `components`, with its defaults: prior, steps, noises, layers, token_mask,
            lam, pooling, pooling_lam, seed, batch_size, partial, progress.
    """
    if reading is not None:
        settings |= {"token_mask": (), "readings": (reading,)}
    parts = components(model, images, texts, errors=error_weight != 0, **settings)
    scores = parts.score(weights, attention_weight=attention_weight, error_weight=error_weight)
    return scores.view(len(images), len(texts))


@torch.no_grad()
def components(
    model: Any,
    images: Float[Tensor, "images 3 height width"],
    texts: Sequence[str],
    pairs: Int[Tensor, "pairs 2"] | Sequence[tuple[int, int]] | None = None,
    *,
    steps: int | Sequence[int] = 8,
    noises: int = 1,
    layers: str | Sequence[str] | None = None,
    token_mask: str | Sequence[str] = "all",
    readings: Sequence[str] = (),
    prior: TextPrior | Tensor | str | None = None,
    lam: float = 1.0,
    pooling: str = "mean",
    pooling_lam: float = 1.0,
    errors: bool = False,
    seed: int = 0,
    batch_size: BatchSize = "auto",
    partial: bool = False,
    progress: bool = True,
) -> Components:
    """Return the `Components` of all images x texts pairs, image by image, or of some.

    Each image and each distinct text is encoded once, equal pairs are computed once; the cost is
    pairs x steps x noises U-Net passes.

    Args:
        model: A `StableDiffusion`.
        images: In [0, 1].
        texts: Captions.
        pairs: Image and text index of the pairs that are scored; None for all.
        steps: n time steps in the middle of n equal cells, or a list of time steps.
        noises: Noises per time step, averaged.
        layers: Names as in `observe`, None for all, "last" for the released code's choice.
        token_mask: "all", "words", "no_start", "no_padding" or "eos"; several cost no more passes.
        readings: Of `attention.READINGS`, computed in the same passes.
        prior: Reference images, "validation" for some of the shapes world, or a `TextPrior`, which
            keeps what it computed: each text's mean over the references is taken off all but the
            error term (one pass more per reference, distinct text, time step and noise).
        lam: Lambda of the log-sum-exp over tokens.
        pooling: Over pixels: "mean", "max", or "lse".
        pooling_lam: Lambda of the log-sum-exp over pixels.
        errors: Whether the error term is computed: one more pass per image, time step and noise.
        seed: Draws the noises.
        batch_size: Rows (a pair at one time step, under one noise) per U-Net pass; "auto" is what
            suits model and memory.
        partial: Whether Ctrl-C ends the work with what is known: NaN where passes are missing.
        progress: Whether a progress bar is shown.

    Raises:
        ValueError: settings out of range.
    """
    from tqdm.auto import tqdm

    masks = (token_mask,) if isinstance(token_mask, str) else tuple(token_mask)
    check(images, texts, masks, readings, pooling, noises)
    prior = TextPrior.given(prior)
    index = _pairs(pairs, len(images), len(texts))
    same = {
        "steps": time_grid(steps, model.scheduler.config.num_train_timesteps), "noises": noises,
        "layers": tuple(choose_layers(model, layers)), "readings": tuple(readings), "lam": lam,
        "pooling": pooling, "pooling_lam": pooling_lam, "seed": seed,
    }  # fmt: skip
    passes = Passes(
        model, images, texts, index, token_masks=masks, errors=errors, batch_size=batch_size, **same
    )
    off = None
    if prior is not None:
        how = same | {"token_mask": masks, "batch_size": batch_size, "progress": progress}
        off = prior.of(
            model, texts, lambda images, texts: components(model, images, texts, **how),
            (*same.values(), masks),
        )  # fmt: skip
    tally, rows = Tally(passes), passes.rows()
    with (
        stopping(partial),
        tqdm(total=len(rows), desc="U-Net passes", disable=not progress, leave=False) as bar,
    ):
        for batch in passes.run(rows, bar):
            tally.add(*batch)
    parts = tally.parts()
    if off is None:
        return parts
    less = {n: x - off[index[:, 1], m] for m, (n, x) in enumerate(parts.by_reading.items())}
    return replace(parts, by_reading=less)


def _pairs(pairs: Any, images: int, texts: int) -> Int[Tensor, "pairs 2"]:
    if pairs is None:
        return torch.cartesian_prod(torch.arange(images), torch.arange(texts))
    pairs = torch.as_tensor(pairs).cpu()
    limit = torch.tensor([images, texts])
    if pairs.ndim != 2 or pairs.shape[1] != 2 or bool(((pairs < 0) | (pairs >= limit)).any()):
        raise ValueError(
            f"pairs must be (pairs, 2) with image index < {images} and text index < {texts}, "
            f"not shape {tuple(pairs.shape)} with largest {pairs.max().item() if len(pairs) else 0}"
        )
    return pairs.long()


def check(
    images: Tensor,
    texts: Sequence[str],
    masks: tuple[str, ...],
    readings: Sequence[str],
    pooling: str,
    noises: int,
) -> None:
    """Raise ValueError for what cannot be scored, before anything is computed."""
    if isinstance(texts, str):
        raise ValueError("texts must be a list of captions, not one string: write [text]")
    if images.ndim != 4 or not len(images) or not len(texts):
        raise ValueError(
            f"images must be (M, 3, height, width) and texts N captions, M and N > 0; got "
            f"{tuple(images.shape)} and {len(texts)}"
        )
    if pooling not in PIXEL_POOLINGS:
        raise ValueError(f"unknown pooling {pooling!r}; choose one of {', '.join(PIXEL_POOLINGS)}")
    if noises < 1:
        raise ValueError(f"noises must be at least 1, not {noises}")
    if readings:
        check_readings(readings)
    elif not masks:
        raise ValueError(f"token_mask names no mask; choose from {', '.join(TOKEN_MASKS)}")
