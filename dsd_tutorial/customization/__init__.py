"""Customisation: a domain from about a hundred pictures (FT), a reference in thirty steps (CT).

custom = customize(model, picture)                       # a converted prompt, tuned on its picture
domain = fit_domain(model, pictures, text="a heart")     # deep visual prompts, keys and values
"""

from dsd_tutorial.customization.deep_prompts import DeepPrompts
from dsd_tutorial.customization.denoising import Denoising, training_pass, usual_time_steps
from dsd_tutorial.customization.domain import Domain, load_domain
from dsd_tutorial.customization.files import CustomizationMismatch
from dsd_tutorial.customization.fitting import fit_domain
from dsd_tutorial.customization.key_values import KeyValues
from dsd_tutorial.customization.references import STARTS, WHATS, Custom, customize, load_custom
from dsd_tutorial.customization.sequences import ALPHA, Frame, edit_frame, image_frame
from dsd_tutorial.customization.tuned import Tuned
from dsd_tutorial.customization.tuning import Tuning
from dsd_tutorial.customization.words import LearnedWord, textual_inversion

__all__ = [
    "ALPHA",
    "STARTS",
    "WHATS",
    "Custom",
    "CustomizationMismatch",
    "DeepPrompts",
    "Denoising",
    "Domain",
    "Frame",
    "KeyValues",
    "LearnedWord",
    "Tuned",
    "Tuning",
    "customize",
    "edit_frame",
    "fit_domain",
    "image_frame",
    "load_custom",
    "load_domain",
    "textual_inversion",
    "training_pass",
    "usual_time_steps",
]
