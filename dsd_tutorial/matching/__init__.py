"""How well a text fits an image, by cross-attention, by prediction error, or by both."""

from dsd_tutorial.matching.metrics import (
    Interval,
    accuracy,
    paired_difference,
    recall_at_k,
    seeds_difference,
)
from dsd_tutorial.matching.parts import Components
from dsd_tutorial.matching.prior import TextPrior, reference_images
from dsd_tutorial.matching.scoring import components, pass_components, score

__all__ = [
    "Components",
    "Interval",
    "TextPrior",
    "accuracy",
    "components",
    "paired_difference",
    "pass_components",
    "recall_at_k",
    "reference_images",
    "score",
    "seeds_difference",
]
