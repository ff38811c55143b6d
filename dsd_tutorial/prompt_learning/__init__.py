"""What is learned from a few examples, and how: soft prompts, attention prompts, weights, LoRA.

    fitted = fit(model, AttentionPrompt(model), "comvg", shots=16)
    fitted.scores(model, make_task("comvg", 300))        # (items, candidates)

Every `Adapter` begins at the zero-shot score exactly, and is fitted on a frozen model.
"""

from dsd_tutorial.matching.items import decisions
from dsd_tutorial.prompt_learning.adapters import Adapter, Scoring
from dsd_tutorial.prompt_learning.attention_prompts import AttentionPrompt
from dsd_tutorial.prompt_learning.choosing import choose, choose_scoring
from dsd_tutorial.prompt_learning.files import AdapterMismatch, load, save
from dsd_tutorial.prompt_learning.fit import Fit, fit
from dsd_tutorial.prompt_learning.lora import LoRA
from dsd_tutorial.prompt_learning.methods import make_method
from dsd_tutorial.prompt_learning.objectives import hinge, infonce
from dsd_tutorial.prompt_learning.reading_sums import (
    ReadingWeights,
    choose_readings,
    reading_components,
)
from dsd_tutorial.prompt_learning.reading_weights import fit_readings
from dsd_tutorial.prompt_learning.scoring import evaluate_items, item_components, pass_scores
from dsd_tutorial.prompt_learning.soft_prompts import SoftPrompt
from dsd_tutorial.prompt_learning.weights import HeadWeights, gradient_guided

__all__ = [
    "Adapter",
    "AdapterMismatch",
    "AttentionPrompt",
    "Fit",
    "HeadWeights",
    "LoRA",
    "ReadingWeights",
    "Scoring",
    "SoftPrompt",
    "choose",
    "choose_readings",
    "choose_scoring",
    "decisions",
    "evaluate_items",
    "fit",
    "fit_readings",
    "gradient_guided",
    "hinge",
    "infonce",
    "item_components",
    "load",
    "make_method",
    "pass_scores",
    "reading_components",
    "save",
]
