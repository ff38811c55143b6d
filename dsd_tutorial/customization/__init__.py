"""Customisation: a domain from about a hundred images (FT), a reference in thirty steps (CT).

custom = customize(model, image)                         # a converted prompt, tuned on its image
domain = fit_domain(model, images, text="a heart")       # deep visual prompts, keys and values
"""

from dsd_tutorial.customization.deep_prompts import DeepPrompts
from dsd_tutorial.customization.denoising import Denoising, training_pass, usual_time_steps
from dsd_tutorial.customization.domain import Domain, KeyValues, load_domain
from dsd_tutorial.customization.files import CustomizationMismatch
from dsd_tutorial.customization.fitting import fit_domain
from dsd_tutorial.customization.references import Custom, Tuned, customize, load_custom
from dsd_tutorial.customization.tuning import Tuning
from dsd_tutorial.customization.words import LearnedWord, textual_inversion

__all__ = [
    "Custom",
    "CustomizationMismatch",
    "DeepPrompts",
    "Denoising",
    "Domain",
    "KeyValues",
    "LearnedWord",
    "Tuned",
    "Tuning",
    "customize",
    "fit_domain",
    "load_custom",
    "load_domain",
    "textual_inversion",
    "training_pass",
    "usual_time_steps",
]
