"""The best candidate without all passes: those that cannot win any more leave on the way.

    known = components(model, *validation, errors=True, steps=10)
    spreads = learn_spreads(item_scores(known, 10, error_weight=1.0), known.steps)
    found = rank(model, images, texts, spreads=spreads, error_weight=1.0, steps=10)
    found.winner, found.passes, found.full_passes

After some time steps, what the rest will add to the difference of two candidates is a Gaussian,
given what was seen (`spreads.py`). A candidate leaves when its chance to overtake the leader is
below `risk`. Diffusion Classifier (Li et al., arXiv 2303.16203) drops fixed numbers of candidates
after fixed numbers of time steps; *ours* drops nobody from a close race, and all from a clear one.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dsd_tutorial.matching.batches import stopping
from dsd_tutorial.matching.passes import Passes
from dsd_tutorial.matching.scoring import check, components
from dsd_tutorial.matching.spreads import Spreads, item_scores, learn_spreads
from dsd_tutorial.matching.tally import Tally

RISK = 0.01
FIRST = 16  # items that are scored in full where no spreads are given
ROWS = 32  # at least as many in a round, by more time steps at once where candidates are few


@dataclass(frozen=True)
class Ranking:
    """Who won, and when and why the others left.

    Attributes:
        winner: The index of the best candidate.
        order: All candidates, best first: who left later stands before who left earlier.
        seen: The time steps at which each was seen.
        behind: How far each was expected to end behind the leader, when it was last seen.
        chance: Each one's chance to overtake the leader at that time; of the leader 1.
        passes: Items that went through the U-Net.
        full_passes: How many `score` would have taken.
        spreads: By which it was decided; None at risk 0.
        complete: Whether the race was run to its end, not interrupted.
    """

    winner: Int[Tensor, " items"]
    order: Int[Tensor, "items candidates"]
    seen: Int[Tensor, "items candidates"]
    behind: Float[Tensor, "items candidates"]
    chance: Float[Tensor, "items candidates"]
    passes: int
    full_passes: int
    spreads: Spreads | None
    complete: bool = True


@torch.no_grad()
def rank(
    model: Any,
    images: Float[Tensor, "images 3 height width"],
    texts: Sequence[str],
    candidates: Int[Tensor, "items candidates 2"] | None = None,
    *,
    risk: float = RISK,
    spreads: Spreads | None = None,
    error_weight: float = 0.0,
    attention_weight: float = 1.0,
    weights: Float[Tensor, "*axes"] | None = None,
    partial: bool = False,
    **settings: Any,
) -> Ranking:
    """Return the best candidate of each item, at fewer U-Net passes than `score`.

    Args:
        model: A `StableDiffusion`; adapters that are active count.
        images: In [0, 1].
        texts: Captions.
        candidates: Image and text index of each candidate, as `item_pairs` gives them; None: the
            texts compete for each image, or the images for a single text.
        risk: Who has a smaller chance to win leaves; 0 is `score`, exactly.
        spreads: From `learn_spreads`, of the same settings. None learns them from the first
            items, which are scored in full.
        error_weight: As in `score`, like all that follows.
        attention_weight: Of the attention score.
        weights: As in `Components.score`.
        partial: Whether Ctrl-C ends the race with who leads at that time.
        **settings: As in `components`: steps, noises, layers, token_mask (one), lam, pooling,
            pooling_lam, seed, batch_size, progress.

    Raises:
        ValueError: risk outside [0, 1), spreads of other time steps, a prior, or as in `score`.
    """
    if not 0 <= risk < 1:
        raise ValueError(f"risk={risk}: a chance from 0 (score everything) to below 1, such as .01")
    if settings.get("prior") is not None:
        raise ValueError("rank knows no prior, whose passes it could not spare: use score")
    candidates = _candidates(candidates, len(images), len(texts))
    how = {"attention_weight": attention_weight, "error_weight": error_weight, "weights": weights}
    if risk == 0:
        return _scored(model, images, texts, candidates, how, settings | {"partial": partial})
    race = Race(model, images, texts, candidates, risk, spreads, how, **settings)
    with stopping(partial):
        race.run()
    return race.ranking()


def _scored(
    model: Any, images: Tensor, texts: Sequence[str], candidates: Tensor, how: Any, settings: Any
) -> Ranking:
    """The ranking of `score`, all passes run."""
    pairs = candidates.flatten(0, 1)
    parts = components(
        model, images, texts, pairs, errors=how["error_weight"] != 0, **settings
    )  # fmt: skip
    scores = parts.score(**how).view(candidates.shape[:2])
    order = scores.nan_to_num(-torch.inf).argsort(dim=1, descending=True, stable=True)
    best = scores.gather(1, order[:, :1])
    distinct = len({(i, texts[t]) for i, t in pairs.tolist()})
    empties = len(pairs[:, 0].unique()) if how["error_weight"] != 0 else 0
    passes = (distinct + empties) * len(parts.steps) * settings.get("noises", 1)
    return Ranking(
        order[:, 0], order, torch.full_like(order, len(parts.steps)), scores - best,
        (scores == best).float(), passes, passes, None, bool(scores.isfinite().all()),
    )  # fmt: skip


class Elimination:
    """Who is still in, and what became of the others."""

    def __init__(self, shape: Sequence[int], risk: float):
        self.risk = risk
        self.alive = torch.ones(*shape, dtype=torch.bool)
        self.seen = torch.zeros(*shape, dtype=torch.long)
        self.behind, self.chance = torch.zeros(*shape), torch.ones(*shape)

    def open(self) -> Bool[Tensor, "items candidates"]:
        """Return who is in, where there is still a choice."""
        return self.alive & (self.alive.sum(1, keepdim=True) > 1)

    def judge(
        self, scores: Float[Tensor, "items candidates steps"], seen: Sequence[int],
        spreads: Spreads, who: Bool[Tensor, "items candidates"],
    ) -> None:  # fmt: skip
        """Let those of `who` go that can hardly win any more, given these time steps."""
        weights, spread = spreads.forecast(seen)
        final = (scores[..., list(seen)].double() @ weights).masked_fill(~who, -torch.inf)
        gap = final.amax(1, keepdim=True) - final
        chance = (gap == 0).double()
        if spread > 0:
            chance = torch.where(gap == 0, 1.0, torch.special.ndtr(-gap / spread))
        self.behind[who] = -(gap / scores.shape[-1])[who].float()
        self.chance[who], self.seen[who] = chance[who].float(), len(seen)
        self.alive &= ~(who & (chance < self.risk))

    def order(self) -> Int[Tensor, "items candidates"]:
        """Return the candidates, best first."""
        order = self.behind.argsort(dim=1, descending=True, stable=True)
        for key in (self.seen, self.alive.long()):
            order = order.gather(
                1, key.gather(1, order).argsort(dim=1, descending=True, stable=True)
            )
        return order


class Race:
    """The passes of `rank`, and the elimination that decides which are run."""

    def __init__(
        self, model: Any, images: Tensor, texts: Sequence[str],
        candidates: Int[Tensor, "items candidates 2"], risk: float, spreads: Spreads | None,
        how: dict[str, Any], *, steps: int | Sequence[int] = 8, token_mask: str = "all",
        progress: bool = True, **settings: Any,
    ):  # fmt: skip
        pooling, noises = settings.get("pooling", "mean"), settings.get("noises", 1)
        check(images, texts, (token_mask,), (), pooling, noises)
        errors, pairs = how["error_weight"] != 0, candidates.flatten(0, 1)
        one_image = bool((candidates[:, :1, 0] == candidates[:, :, 0]).all())
        masks = (token_mask,) if how["attention_weight"] != 0 else ()
        self.passes = passes = Passes(
            model, images, texts, pairs, steps=steps, token_masks=masks, errors=errors,
            base=not one_image, **settings,
        )  # fmt: skip
        if spreads is not None and spreads.steps != passes.grid:
            raise ValueError(
                f"these spreads are of time steps {spreads.steps}, not {passes.grid}: learn them "
                "anew"
            )
        self.spreads, self.how, self.progress = spreads, how, progress
        self.tally, self.pair = Tally(passes), passes.once.place.view(candidates.shape[:2])
        self.field = Elimination(candidates.shape[:2], risk)
        self.full, self.spent, self.finished = len(passes.rows()), 0, False
        if errors and one_image:  # `score` runs the empty prompt, which cancels here
            self.full += len(pairs[:, 0].unique()) * len(passes.grid) * noises

    def run(self) -> None:
        """Run the time steps, most informative first, each with who is left."""
        from tqdm.auto import tqdm

        with tqdm(
            total=self.full, desc="U-Net passes", disable=not self.progress, leave=False
        ) as bar:
            spreads = self._learn(bar) if self.spreads is None else self.spreads
            order, place = spreads.order(), 0
            while place < len(order) and bool((who := self.field.open()).any()):
                rows = int(who.sum()) * self.passes.noises
                place += max(1, -(-min(ROWS, self.passes.batches.size) // rows))
                self._take(who, order[:place], bar)
                self.field.judge(self._scores(), order[:place], spreads, who)
        self.finished = True

    def ranking(self) -> Ranking:
        """Return what is known."""
        field, order = self.field, self.field.order()
        winner = order[:, 0].masked_fill(~field.seen.bool().any(1), -1)
        return Ranking(
            winner, order, field.seen, field.behind, field.chance, self.spent, self.full,
            self.spreads, self.finished,
        )  # fmt: skip

    def _scores(self) -> Float[Tensor, "items candidates steps"]:
        return item_scores(self.tally.parts(), self.pair.shape[1], **self.how)

    def _take(self, who: Tensor, steps: Sequence[int], bar: Any) -> None:
        """Run what is lacking of these candidates at these places of the grid."""
        rows = self.tally.lacking(self.passes.rows(self.pair[who].unique(), steps))
        for batch in self.passes.run(rows, bar):
            self.tally.add(*batch)
            self.spent += len(batch[0])

    def _learn(self, bar: Any) -> Spreads:
        """Learn the spreads from the first items, all of whose passes are run."""
        steps, rivals = len(self.passes.grid), max(1, self.pair.shape[1] - 1)
        first = torch.zeros_like(self.field.alive)
        first[: max(FIRST, -(-2 * steps // rivals))] = True
        items = first.any(1)
        warnings.warn(
            f"no spreads are given: the first {int(items.sum())} items are scored in full to learn "
            "them (learn_spreads)",
            stacklevel=5,  # whoever called `rank`, which is decorated
        )
        self._take(first, range(steps), bar)
        self.spreads = spreads = learn_spreads(self._scores()[items], self.passes.grid)
        self.field.judge(self._scores(), range(steps), spreads, first)
        return spreads


def _candidates(given: Any, images: int, texts: int) -> Int[Tensor, "items candidates 2"]:
    if given is None:
        every = torch.cartesian_prod(torch.arange(images), torch.arange(texts))
        return every.view(images, texts, 2) if texts > 1 else every[None]
    found = torch.as_tensor(given).long().cpu()
    limit = torch.tensor([images, texts])
    if found.ndim != 3 or found.shape[2] != 2 or bool(((found < 0) | (found >= limit)).any()):
        raise ValueError(
            f"candidates must be (items, candidates, 2) with image index < {images} and text index "
            f"< {texts}, not {tuple(found.shape)}: item_pairs(task) gives those of a task"
        )
    return found
