"""The exercise on shared noise: not what a function returns is judged, but what it asked for.

A recorder stands in for the U-Net and writes down every (text, time step, noise) it is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.course.checks.exercise import Exercise, Mistake, Unanswerable, guarded, same
from dsd_tutorial.stable_diffusion.noising import shared_noise

TEXTS = ["a red circle", "a blue square", "a green star"]
SHAPE = (4, 8, 8)
STEPS = [100, 500, 900]


@dataclass
class Recorder:
    """Stands in for one U-Net pass: a number for (text, t, noise), and a note of what was asked."""

    asked: list[tuple[str, int, Tensor, float]]

    def __call__(self, text: str, t: int, noise: Tensor) -> float:
        if text not in TEXTS or int(t) not in STEPS:
            words = f"score_once was asked for text {text!r} at time step {t}, which is not given."
            raise Unanswerable("text or time step that is not given", words)
        if not isinstance(noise, Tensor) or tuple(noise.shape) not in (SHAPE, (1, *SHAPE)):
            shape = tuple(getattr(noise, "shape", ()))
            words = f"score_once got a noise of shape {shape}; the latent has {SHAPE}."
            raise Unanswerable("noise of the wrong shape", words)
        value = TEXTS.index(text) + 0.01 * int(t) + float(noise.mean())
        self.asked.append((text, int(t), noise.detach().clone().view(SHAPE), value))
        return value

    def noises(self, text: str) -> dict[int, list[Tensor]]:
        """Return {time step: noises} of one text, in the order in which they were asked."""
        found: dict[int, list[Tensor]] = {}
        for name, t, noise, _ in self.asked:
            if name == text:
                found.setdefault(t, []).append(noise)
        return found

    def mean(self, values: list[float], text: str) -> float:
        """Return the mean of `values` over the questions about one text."""
        mine = [v for v, (name, *_) in zip(values, self.asked, strict=True) if name == text]
        return sum(mine) / len(mine)


def observed(function: Callable[..., Any], seed: int) -> tuple[Tensor, Recorder]:
    """Return the function's answer (texts,) and what it asked the recorder."""
    recorder = Recorder([])
    answer = guarded(function, (recorder, list(TEXTS), SHAPE, list(STEPS), seed))
    try:
        return torch.as_tensor(answer, dtype=torch.float64).detach(), recorder
    except (TypeError, ValueError, RuntimeError):
        words = f"It returned a {type(answer).__name__}; one number per text is asked for."
        raise Unanswerable("no tensor", words) from None


class NoiseExercise(Exercise):
    """Judges f(score_once, texts, shape, steps, seed) -> (texts,) by its questions and answer."""

    def diagnose(self, function: Callable[..., Any]) -> tuple[Mistake | None, str]:
        """Return the first mistake found and the evidence; (None, "") for a right function."""
        answer, first = observed(function, 0)
        _, again = observed(function, 0)
        _, other = observed(function, 1)
        name, evidence = _verdict(answer, first, again, other)
        if name == "not recognised":
            return None, evidence
        return next((m for m in self.mistakes if m.name == name), None), evidence


def _verdict(answer: Tensor, first: Recorder, again: Recorder, other: Recorder) -> tuple[str, str]:
    grids = [first.noises(text) for text in TEXTS]
    if any(set(grid) != set(STEPS) for grid in grids):
        return "a time step left out", "Not every text was scored at every time step."
    if not all(_equal(grid, grids[0]) for grid in grids):
        return "noise not shared between candidates", (
            "At one time step, two texts were scored under different noises."
        )
    stack = torch.stack([grids[0][t][0] for t in STEPS])
    if bool((stack == stack[0]).all()):
        return "one noise for all time steps", "Every time step got the same noise."
    if not _equal(first.noises(TEXTS[0]), again.noises(TEXTS[0])):
        return "not reproducible", "The same seed gave two different noises."
    if _equal(first.noises(TEXTS[0]), other.noises(TEXTS[0])):
        return "seed ignored", "Seeds 0 and 1 gave the same noise."
    if abs(float(stack.mean())) > 0.2 or abs(float(stack.std()) - 1) > 0.2:
        return "noise that is not standard normal", (
            f"The noise has mean {float(stack.mean()):.2f} and spread {float(stack.std()):.2f}."
        )
    return _answer(answer, first)


def _answer(answer: Tensor, seen: Recorder) -> tuple[str, str]:
    values = [value for *_, value in seen.asked]
    means = torch.tensor([seen.mean(values, text) for text in TEXTS], dtype=torch.float64)
    if same(answer, means):
        return "", ""
    evidence = f"{answer.numel()} number(s) came back for {len(TEXTS)} texts."
    if answer.shape == means.shape:
        evidence = f"The first text got {float(answer[0]):.4g}, not {float(means[0]):.4g}."
        counts = torch.tensor([sum(n == text for n, *_ in seen.asked) for text in TEXTS])
        if same(answer, means * counts):
            return "sum instead of mean over time steps", evidence
        last = {text: value for text, _, _, value in seen.asked}
        if same(answer, torch.tensor([last[text] for text in TEXTS])):
            return "only the last time step counts", evidence
    if same(answer, means.mean()) or same(answer, means.mean().expand(len(TEXTS))):
        return "mean over the candidates", evidence
    return "not recognised", evidence


def _equal(a: dict[int, list[Tensor]], b: dict[int, list[Tensor]]) -> bool:
    return a.keys() == b.keys() and all(
        len(a[t]) == len(b[t]) and all(torch.equal(x, y) for x, y in zip(a[t], b[t], strict=True))
        for t in a
    )


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
    mistakes=[
        Mistake(
            "noise not shared between candidates",
            "Two noises differ more than two captions do: the ranking would be luck.",
            "Draw the noise once per time step, before the loop over the texts.",
        ),
        Mistake(
            "one noise for all time steps",
            "One draw then decides every step, and averaging over steps steadies nothing.",
            "Draw inside the loop over time steps; make the generator before it.",
        ),
        Mistake(
            "not reproducible",
            "A result that cannot be had again cannot be checked.",
            "Pass generator=torch.Generator().manual_seed(seed) to torch.randn.",
        ),
        Mistake(
            "seed ignored",
            "Repeating with another seed is how the luck of the noise is measured.",
            "Seed the generator with `seed`, not with a number of your own.",
        ),
        Mistake(
            "noise that is not standard normal",
            "The U-Net was trained on normal noise of mean 0 and spread 1.",
            "Use torch.randn (normal), not torch.rand (uniform), and do not rescale it.",
        ),
        Mistake(
            "a time step left out",
            "Candidates seen at different time steps cannot be compared.",
            "Loop over all of `steps` for every text.",
        ),
        Mistake(
            "sum instead of mean over time steps",
            "A sum grows with the number of time steps, so two settings cannot be compared.",
            "Divide by len(steps).",
        ),
        Mistake(
            "only the last time step counts",
            "The result is overwritten in every round of the loop.",
            "Add up (+=) and divide at the end.",
        ),
        Mistake(
            "mean over the candidates",
            "All candidates share one number then, so there is nothing to choose by.",
            "Keep one number per text.",
        ),
    ],
)
