"""Images as prompts: variations of a picture, paths between pictures and captions.

inverse = fit_inverse(model)
vary(model, images, 4, inverse)                          # (images x 4, 3, height, width)
"""

from dsd_tutorial.variation.prompting import (
    FILLS,
    copy_bonus,
    image_to_prompt,
    slerp,
    states_to_prompt,
)
from dsd_tutorial.variation.varying import interpolate, prompt_path, vary

__all__ = [
    "FILLS",
    "copy_bonus",
    "image_to_prompt",
    "interpolate",
    "prompt_path",
    "slerp",
    "states_to_prompt",
    "vary",
]
