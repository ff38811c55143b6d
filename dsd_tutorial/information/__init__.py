"""How many nats a caption, or one of its words, says about an image, and where in the image.

found = information(model, images, texts)                       # against no caption
found = information(model, images, texts, given=[replace_word(t, "red") for t in texts])
found.total()                                                   # nats, (pairs,)
found.map()                                                     # nats, (pairs, height, width)

Kong et al., arXiv 2310.07972 (Interpretable Diffusion via Information Decomposition).
"""

from dsd_tutorial.information.estimates import Information, integrands
from dsd_tutorial.information.gaussian import LinearGaussian
from dsd_tutorial.information.levels import (
    Levels,
    level_grid,
    log_snr,
    logistic_levels,
    trapezoid,
)
from dsd_tutorial.information.passes import decompose, information
from dsd_tutorial.information.scoring import error_term, error_weights, information_scores
from dsd_tutorial.information.words import replace_word

__all__ = [
    "Information",
    "Levels",
    "LinearGaussian",
    "decompose",
    "error_term",
    "error_weights",
    "information",
    "information_scores",
    "integrands",
    "level_grid",
    "log_snr",
    "logistic_levels",
    "replace_word",
    "trapezoid",
]
