"""How well a text fits an image, by cross-attention, by prediction error, or by both."""

from dsd_tutorial.matching.parts import Components, components, pass_components
from dsd_tutorial.matching.scoring import score, score_pairs

__all__ = ["Components", "components", "pass_components", "score", "score_pairs"]
