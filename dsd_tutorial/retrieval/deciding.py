"""Generation and retrieval side by side, after TIGeR (Qu et al., arXiv 2406.05814).

There one multimodal model draws and finds, and its own likelihood of the text chooses. Here the
U-Net that draws also scores: how much less noise is mispredicted with the text than without one
(the error term of `matching.score`), for drawn and found images alike, under the same noises. That
choice, the number of time steps and the offset between the two kinds of images are *ours*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dsd_tutorial.matching import Spreads, components, rank
from dsd_tutorial.matching.cost import measure

STEPS = 4  # time steps of the score
SCORE: dict[str, Any] = {"attention_weight": 0.0, "error_weight": 1.0}


@dataclass(frozen=True)
class Answers:
    """What was drawn and what was found for each text, with scores.

    Attributes:
        drawn: The best of the images drawn.
        first: The first of them, which nothing chose.
        drawn_scores: Of `drawn`.
        found: The index of the best of the gallery.
        found_scores: Of it.
        passes: U-Net passes (items, guidance counted twice): "draw", "judge" (the scores of what
            was drawn), "find".
    """

    drawn: Float[Tensor, "texts 3 height width"]
    first: Float[Tensor, "texts 3 height width"]
    drawn_scores: Float[Tensor, " texts"]
    found: Int[Tensor, " texts"]
    found_scores: Float[Tensor, " texts"]
    passes: dict[str, int]

    @property
    def lead(self) -> Float[Tensor, " texts"]:
        """Return by how much the score prefers what was drawn."""
        return self.drawn_scores - self.found_scores

    def draws(self, offset: float = 0.0) -> Bool[Tensor, " texts"]:
        """Return for which texts the drawn image is the answer: its lead is above `offset`."""
        return self.lead > offset

    def chosen(
        self, gallery: Float[Tensor, "images 3 height width"], offset: float = 0.0
    ) -> Float[Tensor, "texts 3 height width"]:
        """Return the answer to each text, drawn or from the gallery."""
        takes = self.draws(offset)[:, None, None, None].to(self.drawn.device)
        return torch.where(takes, self.drawn, gallery[self.found].to(self.drawn))


@torch.no_grad()
def draw_and_find(
    model: Any,
    texts: Sequence[str],
    gallery: Float[Tensor, "images 3 height width"],
    *,
    n: int = 3,
    sampling_steps: int = 12,
    guidance: float | None = None,
    steps: int | Sequence[int] = STEPS,
    spreads: Spreads | None = None,
    seed: int = 0,
    progress: bool = True,
    **settings: Any,
) -> Answers:
    """Return the best of n images drawn for each text, and the best of the gallery.

    Args:
        model: A `StableDiffusion`.
        texts: Captions.
        gallery: Images to find from, in [0, 1].
        n: Images drawn for each text.
        sampling_steps: Denoising steps of each.
        guidance: As in `model.sample`.
        steps: As in `rank`.
        spreads: As in `rank`, of this score and these time steps.
        seed: Of what is drawn, and of the noises of the score.
        progress: Whether progress bars are shown.
        **settings: As in `rank`: risk and batch_size.
    """
    texts = list(texts)
    risk = {name: settings.pop(name) for name in ("risk",) if name in settings}
    how = {"steps": steps, "seed": seed, "progress": progress, **settings}
    with measure(model) as drawing:
        drawn = model.sample(
            texts, n=n, steps=sampling_steps, guidance=guidance, seed=seed, progress=progress
        )
    with measure(model) as judging:
        pairs = torch.stack(
            [torch.arange(len(drawn)), torch.arange(len(texts)).repeat_interleave(n)]
        )
        scores = _scores(model, drawn, texts, pairs.T, how).view(len(texts), n)
    every = torch.cartesian_prod(torch.arange(len(texts)), torch.arange(len(gallery)))
    candidates = every.flip(1).view(len(texts), len(gallery), 2)
    with measure(model) as finding:
        found = rank(
            model, gallery, texts, candidates, spreads=spreads, **SCORE, **risk, **how
        ).winner
        pairs = torch.stack([found, torch.arange(len(texts))], dim=1)
        found_scores = _scores(model, gallery, texts, pairs, how)
    best, rows = scores.argmax(1), torch.arange(len(texts))
    table = drawn.unflatten(0, (len(texts), n))
    return Answers(
        table[rows, best], table[:, 0], scores.amax(1), found, found_scores,
        {"draw": drawing.unet_passes, "judge": judging.unet_passes, "find": finding.unet_passes},
    )  # fmt: skip


def _scores(
    model: Any, images: Tensor, texts: Sequence[str], pairs: Int[Tensor, "pairs 2"], how: Any
) -> Float[Tensor, " pairs"]:
    """Return the scores of these pairs, by which all is decided."""
    return components(model, images, texts, pairs, errors=True, **how).score(**SCORE)


def best_offset(
    lead: Float[Tensor, " texts"],
    drawn_right: Bool[Tensor, " texts"],
    found_right: Bool[Tensor, " texts"],
) -> float:
    """Return the offset with the most right answers; of several, the one nearest to 0.

    The two kinds of images do not score alike: what the model drew itself may please it more than
    what was rendered. Learn the offset on validation texts.

    Args:
        lead: `Answers.lead`.
        drawn_right: Whether the drawn image is right.
        found_right: Whether the one found is.
    """
    ends = lead.double().sort().values
    between = (ends[1:] + ends[:-1]) / 2
    tried = torch.cat([torch.zeros(1).double(), ends[:1] - 1e-6, between, ends[-1:] + 1e-6])
    takes = lead.double()[None] > tried[:, None]  # (offsets, texts)
    right = torch.where(takes, drawn_right, found_right).sum(1)
    good = tried[right == right.amax()]
    return float(good[good.abs().argmin()])
