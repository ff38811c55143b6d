"""Diffusion Classifier: the text under which the noise is predicted best (Li et al., 2303.16203).

error(image, text) = mean over (t, e) of ||e - eps(z_t, text)||^2 / size, with (t, e) shared by all
candidates. Texts that compete for one image are ranked by -error. Where *images* compete, the plain
error mostly tells how hard an image is; there the score is error(empty) - error(text).

Rounds: `keep={2: 5, 4: 2}` goes on with the 5 best of an item after 2 time steps and the 2 best
after 4. Time steps are visited in an order that spreads over the grid from the start, so whoever
stays to the end has the plain mean over the whole grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.matching.baselines.method import Method
from dsd_tutorial.matching.batches import BatchSize
from dsd_tutorial.matching.items import item_pairs
from dsd_tutorial.matching.passes import Passes
from dsd_tutorial.matching.tally import Tally
from dsd_tutorial.shapes.tasks import Task


def spread_order(n: int) -> list[int]:
    """Return 0..n-1 so that every beginning of the list is spread over the range.

    By the bits of the index in reverse (van der Corput): 8 -> 0 4 2 6 1 5 3 7.
    """
    bits = max(1, (n - 1).bit_length())
    return sorted(range(n), key=lambda i: int(f"{i:0{bits}b}"[::-1], 2))


class DiffusionClassifier(Method):
    """`steps` time steps of `noises` noises each; `keep` as in the module's text, None for all.

    Raises ValueError for counts below 1, or rounds that do not get smaller.
    """

    name = "diffusion_classifier"

    def __init__(
        self,
        steps: int = 8,
        noises: int = 1,
        keep: Mapping[int, int] | None = None,
        *,
        batch_size: BatchSize = "auto",
    ):
        for name, value in {"steps": steps, "noises": noises}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.steps, self.noises, self.batch_size = steps, noises, batch_size
        self.keep = rounds = dict(sorted((keep or {}).items()))
        left = list(rounds.values())
        if any(not 0 < s < steps for s in rounds) or left != sorted(set(left), reverse=True):
            raise ValueError(
                f"keep={rounds}: time steps seen (1 to {steps - 1}) -> candidates that go on, "
                "fewer each time; such as {2: 5, 4: 2}"
            )
        if left and left[-1] < 1:
            raise ValueError(f"keep={rounds} leaves no candidate: keep at least 1")

    def _score(self, model: Any, items: Task, seed: int, progress: bool) -> Tensor:
        from tqdm.auto import tqdm

        if self.keep and items.shape == (2, 2):
            raise ValueError("keep: with two images and two texts all four pairs decide; drop it")
        pairs = item_pairs(items)  # (items, candidates, 2)
        passes = Passes(
            model, items.images(model.resolution), items.texts, pairs.flatten(0, 1),
            steps=self.steps, noises=self.noises, errors=True, base=items.shape[0] > 1, seed=seed,
            batch_size=self.batch_size,
        )  # fmt: skip
        place, tally = passes.once.place.view(pairs.shape[:2]), Tally(passes, power=2)
        rounds = Rounds(pairs.shape[:2], self.keep)
        with tqdm(total=self.steps, desc="time steps", disable=not progress) as bar:
            for i in spread_order(self.steps):
                for batch in passes.run(passes.rows(place[rounds.alive].unique(), [i])):
                    tally.add(*batch)
                squares, empties = tally.distances()
                evidence = (empties - squares)[place, i] / passes.noise[0, 0].numel()
                rounds.add(torch.where(rounds.alive, evidence, 0.0))
                bar.update()
        return rounds.scores()


class Rounds:
    """Running means of the evidence for each candidate (items, candidates), and who stays in."""

    def __init__(self, shape: Sequence[int], keep: Mapping[int, int]):
        self.keep, self.seen = keep, 0
        self.total = torch.zeros(*shape, dtype=torch.float64)
        self.alive = torch.ones(*shape, dtype=torch.bool)
        self.lost: list[tuple[Tensor, Tensor]] = []  # (who left, by how much), round by round

    def add(self, evidence: Float[Tensor, "items candidates"]) -> None:
        """Take one time step's evidence; then drop whoever this round ends for."""
        self.seen += 1
        self.total += evidence
        number = self.keep.get(self.seen, self.alive.shape[1])
        if number >= self.alive.shape[1]:
            return
        mean = (self.total / self.seen).masked_fill(~self.alive, -torch.inf)
        least = mean.topk(number, dim=1).values[:, -1:]  # of those who go on; equals go on too
        left = self.alive & (mean < least)
        self.lost.append((left, torch.where(left, mean - least, 0.0)))
        self.alive = self.alive & ~left

    def scores(self) -> Float[Tensor, "items candidates"]:
        """Return the means of those who stayed; below them, in order, those who left.

        Whoever left stands below the worst that went on by as much as at that time, since means
        over different time steps cannot be compared.
        """
        scores = self.total / self.seen
        staying = self.alive.clone()
        for left, gap in reversed(self.lost):
            floor = scores.masked_fill(~staying, torch.inf).amin(dim=1, keepdim=True)
            scores = torch.where(left, floor + gap, scores)
            staying |= left
        return scores
