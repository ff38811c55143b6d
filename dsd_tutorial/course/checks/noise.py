"""The exercise on shared noise: not only what a function returns is judged, but what it scored.

What stands in for the U-Net writes down every (text, time step, noise) it is given.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dsd_tutorial.course.checks.exercise import UNKNOWN, Exercise, Function, Unanswerable, run, same
from dsd_tutorial.stable_diffusion.noising import shared_noise

TEXTS = ["a red circle", "a blue square", "a green star"]
SHAPE = (4, 8, 8)
STEPS = [100, 500, 900]


Grid = dict[int, list[Tensor]]  # the noises of each time step


def _recorded(function: Function, seed: int) -> tuple[Tensor, list[Grid], list[list[float]]]:
    """What `function` answers; and by text the noises it asked for and the numbers it was given."""
    noises: list[Grid] = [{} for _ in TEXTS]
    values: list[list[float]] = [[] for _ in TEXTS]

    def score_once(text: str, t: int, noise: Tensor) -> float:
        if text not in TEXTS or int(t) not in STEPS:
            words = f"score_once was called for text {text!r} at time step {t}, which is not given."
            raise Unanswerable("text or time step that is not given", words)
        if not isinstance(noise, Tensor) or tuple(noise.shape) not in (SHAPE, (1, *SHAPE)):
            shape = tuple(getattr(noise, "shape", ()))
            words = f"score_once got a noise of shape {shape}; the latent has {SHAPE}."
            raise Unanswerable("noise of the wrong shape", words)
        place = TEXTS.index(text)
        noises[place].setdefault(int(t), []).append(noise.detach().clone().view(SHAPE))
        values[place].append(place + 0.01 * int(t) + float(noise.mean()))
        return values[place][-1]

    answer = run(function, (score_once, list(TEXTS), SHAPE, list(STEPS), seed))
    return answer.double(), noises, values


class Observed:
    """What a function answered and scored: with seed 0, with seed 0 again, and with seed 1."""

    def __init__(self, function: Function):
        self.answer, self.grids, self.values = _recorded(function, 0)
        self.again, self.other = (_recorded(function, seed)[1][0] for seed in (0, 1))

    @property
    def stack(self) -> Tensor:
        """The first noise of each time step, (steps, *SHAPE)."""
        return torch.stack([self.grids[0][t][0] for t in STEPS])

    def over_calls(self, pool: Function) -> Tensor:
        """What `pool` makes of the numbers that each text was given, (texts,)."""
        return torch.tensor([pool(numbers) for numbers in self.values]).double()

    def compared(self) -> str:
        """The answer beside what is right, in words; "" where it is right."""
        means = self.over_calls(_mean)
        if same(self.answer, means):
            return ""
        if self.answer.shape != (len(TEXTS),):
            return f"{self.answer.numel()} number(s) came back for {len(TEXTS)} texts."
        return f"The first text got {float(self.answer[0]):.4g}, not {float(means[0]):.4g}."


def _equal(a: Grid, b: Grid) -> bool:
    return a.keys() == b.keys() and all(
        len(a[t]) == len(b[t]) and all(map(torch.equal, a[t], b[t])) for t in a
    )


def _mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))


def _spread(seen: Observed) -> str:
    mean, spread = float(seen.stack.mean()), float(seen.stack.std())
    normal = abs(mean) <= 0.2 and abs(spread - 1) <= 0.2
    return "" if normal else f"The noise has mean {mean:.2f} and spread {spread:.2f}."


def _one_for_all(seen: Observed) -> bool:
    mean = seen.over_calls(_mean).mean()
    return same(seen.answer, mean) or same(seen.answer, mean.expand(len(TEXTS)))


class NoiseExercise(Exercise):
    """Judges f(score_once, texts, shape, steps, seed) -> (texts,) by its calls and its answer.

    Beside a mistake stands here its sign, a function of `Observed`: whether it was made, or the
    evidence for it. Each is looked for where those before it are absent.
    """

    def diagnose(self, function: Function) -> tuple[str | None, str]:
        """Return the first mistake found and the evidence; (None, "") for a right function."""
        seen = Observed(function)
        for name, (_, _, sign) in self.mistakes.items():
            if evidence := sign(seen):
                return name, evidence if isinstance(evidence, str) else seen.compared()
        evidence = seen.compared()
        return (UNKNOWN, evidence) if evidence else (None, "")


def _solution(score_once, texts, shape, steps, seed):
    total = torch.zeros(len(texts))
    for i, t in enumerate(steps):
        noise = shared_noise(shape, seed, i)[0]
        total += torch.tensor([score_once(text, t, noise) for text in texts])
    return total / len(steps)


noise_average = NoiseExercise(
    name="noise_average",
    hint="What may differ between two candidates, and what must be the same for both?",
    solution=_solution,
    mistakes={
        "a time step left out": (
            "Candidates seen at different time steps cannot be compared.",
            "Loop over all of `steps` for every text.",
            lambda seen: any(grid.keys() != set(STEPS) for grid in seen.grids),
        ),
        "noise not shared between candidates": (
            "Two noises differ more than two captions do: the ranking would be luck.",
            "Draw the noise once per time step, before the loop over the texts.",
            lambda seen: not all(_equal(grid, seen.grids[0]) for grid in seen.grids),
        ),
        "one noise for all time steps": (
            "One draw then decides every step, and averaging over steps steadies nothing.",
            "Draw inside the loop over time steps; make the generator before it.",
            lambda seen: bool((seen.stack == seen.stack[0]).all()),
        ),
        "not reproducible": (
            "A result that cannot be had again cannot be checked.",
            "Pass generator=torch.Generator().manual_seed(seed) to torch.randn.",
            lambda seen: not _equal(seen.grids[0], seen.again),
        ),
        "seed ignored": (
            "Repeating with another seed is how the luck of the noise is measured.",
            "Seed the generator with `seed`, not with a number of your own.",
            lambda seen: _equal(seen.grids[0], seen.other),
        ),
        "noise that is not standard normal": (
            "The U-Net was trained on normal noise of mean 0 and spread 1.",
            "Use torch.randn (normal), not torch.rand (uniform), and do not rescale it.",
            _spread,
        ),
        "sum instead of mean over time steps": (
            "A sum grows with the number of time steps, so two settings cannot be compared.",
            "Divide by len(steps).",
            lambda seen: same(seen.answer, seen.over_calls(sum)),
        ),
        "only the last time step counts": (
            "The result is overwritten in every round of the loop.",
            "Add up (+=) and divide at the end.",
            lambda seen: same(seen.answer, seen.over_calls(lambda values: values[-1])),
        ),
        "mean over the candidates": (
            "All candidates share one number then, so there is nothing to choose by.",
            "Keep one number per text.",
            _one_for_all,
        ),
    },
)
