"""Checks that take the learner's own function, name the mistake in it and give hints, step by step.

Each check is called with the function and returns a `Result`. Notebook 01: `tokens`, `noise`,
`decisions`.
"""

from dsd_tutorial.checks.decisions import image_scores, text_wins
from dsd_tutorial.checks.exercise import Exercise, Mistake, Result
from dsd_tutorial.checks.noise import noise_average
from dsd_tutorial.checks.tokens import caption_scores, soft_maximum

__all__ = [
    "Exercise", "Mistake", "Result", "caption_scores", "image_scores", "noise_average",
    "soft_maximum", "text_wins",
]  # fmt: skip
