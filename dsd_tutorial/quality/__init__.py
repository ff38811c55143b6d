"""How good is an image, with nothing to compare it with? Read from attention to quality prompts.

known = degraded_scenes(sd, 200, seed=1)                  # blurred, noisy, blocky, miscoloured
prompts = fit_prompts(sd, known)                          # or any texts
read = quality_readings(sd, known.images, prompts)        # (images, features)
regression().fit(read, known.strengths)
"""

from dsd_tutorial.quality.degrading import KINDS, Degraded, degrade, degraded_scenes
from dsd_tutorial.quality.learning import fit_prompts
from dsd_tutorial.quality.prompts import WORDS, encode_prompts, quality_readings
from dsd_tutorial.quality.regression import pixel_statistics, rank_correlation, regression

__all__ = [
    "Degraded",
    "KINDS",
    "WORDS",
    "degrade",
    "degraded_scenes",
    "encode_prompts",
    "fit_prompts",
    "pixel_statistics",
    "quality_readings",
    "rank_correlation",
    "regression",
]
