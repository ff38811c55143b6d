"""How well a text fits an image, by cross-attention, by prediction error, or by both."""

from dsd_tutorial.matching.metrics import (
    Interval,
    accuracy,
    paired_difference,
    recall_at_k,
    seeds_difference,
)
from dsd_tutorial.matching.parts import Components
from dsd_tutorial.matching.passes import pass_components
from dsd_tutorial.matching.prior import TextPrior, reference_images
from dsd_tutorial.matching.ranking import Ranking, rank
from dsd_tutorial.matching.scoring import components, score
from dsd_tutorial.matching.spreads import Spreads, item_scores, learn_spreads

__all__ = [
    "Components",
    "Interval",
    "Ranking",
    "Spreads",
    "TextPrior",
    "accuracy",
    "components",
    "item_scores",
    "learn_spreads",
    "paired_difference",
    "pass_components",
    "rank",
    "recall_at_k",
    "reference_images",
    "score",
    "seeds_difference",
]
