"""Images as prompts: variations of an image, edits with words, and two ways to edit without CLIP.

inverse = fit_inverse(model)
vary(model, images, 4, inverse)                          # (images x 4, 3, height, width)
edit(model, images, "a blue object", inverse, alpha=0.7)
"""

from dsd_tutorial.variation.edit_items import make_edits
from dsd_tutorial.variation.edit_prompting import (
    edit_prompt,
    nearest_text,
    source_prompts,
    states_to_edit,
)
from dsd_tutorial.variation.fidelity import fidelity, kept
from dsd_tutorial.variation.img2img import sdedit
from dsd_tutorial.variation.prompt_to_prompt import prompt_to_prompt
from dsd_tutorial.variation.prompting import image_to_prompt, states_to_prompt
from dsd_tutorial.variation.varying import edit, edit_sweep, vary

__all__ = [
    "edit",
    "edit_prompt",
    "edit_sweep",
    "fidelity",
    "image_to_prompt",
    "kept",
    "make_edits",
    "nearest_text",
    "prompt_to_prompt",
    "sdedit",
    "source_prompts",
    "states_to_edit",
    "states_to_prompt",
    "vary",
]
