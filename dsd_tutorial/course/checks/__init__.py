"""Checks that take the learner's own function, name the mistake in it and give hints, step by step.

Each check is called with the function and returns a `Result`. Notebook 01: `tokens`, `noise`,
`structure`. Notebook 02: `prompts`, `learning`. Notebook 03: `projection`,
`image_prompts`. Notebook 04: `editing`, `customizing`, `tuning`. Notebook 05: `grounding`,
`information`, `features`, `ranks`.
"""

from dsd_tutorial.course.checks.customizing import insert_prompts, trained
from dsd_tutorial.course.checks.editing import edit_states, joint_score
from dsd_tutorial.course.checks.exercise import Exercise, Result
from dsd_tutorial.course.checks.features import sparse_codes, unit_f1
from dsd_tutorial.course.checks.grounding import elect
from dsd_tutorial.course.checks.image_prompts import fill_prompt, one_for_many
from dsd_tutorial.course.checks.information import nats_map
from dsd_tutorial.course.checks.learning import best_step, hardest_hinge
from dsd_tutorial.course.checks.noise import noise_average
from dsd_tutorial.course.checks.projection import cut_inverse, to_states
from dsd_tutorial.course.checks.prompts import gated_partition, prompted_states
from dsd_tutorial.course.checks.ranks import ranks_agree
from dsd_tutorial.course.checks.structure import nouns_apart, text_wins, without_prior
from dsd_tutorial.course.checks.tokens import caption_scores, soft_maximum
from dsd_tutorial.course.checks.tuning import tune

__all__ = [
    "Exercise", "Result", "best_step", "caption_scores", "cut_inverse",
    "edit_states", "elect", "fill_prompt", "gated_partition", "hardest_hinge", "insert_prompts",
    "joint_score", "nats_map", "noise_average", "nouns_apart", "one_for_many", "prompted_states",
    "ranks_agree", "soft_maximum", "sparse_codes", "text_wins", "to_states", "trained", "tune",
    "unit_f1", "without_prior",
]  # fmt: skip
