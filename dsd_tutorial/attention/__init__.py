"""Observe and alter the cross-attention of a U-Net; pool what was seen.

with observe(model, layers=["mid.0", "up"]) as seen:
    model.predict_noise(noisy, 500, model.encode_text(["a red circle"]))
seen.scores["mid.0"]                                     # (batch, heads, pixels)

with observe(model, heat=True) as seen:
    model.sample(["a red circle"])
seen.heat_map("circle")                                  # (images, height, width)
"""

from dsd_tutorial.attention.heat import token_heat
from dsd_tutorial.attention.heatmaps import area_iou, heat_maps, pointing_game
from dsd_tutorial.attention.layers import (
    choose_layers,
    cross_attention_layers,
    cross_attention_paths,
)
from dsd_tutorial.attention.observing import NothingCaptured, alter, observe
from dsd_tutorial.attention.pooling import log_sum_exp
from dsd_tutorial.attention.processors import Prefix
from dsd_tutorial.attention.readings import READINGS, readings_of
from dsd_tutorial.attention.roles import Roles, roles_of
from dsd_tutorial.attention.sentences import Sentence, read_sentence
from dsd_tutorial.attention.sharing import shared_rows
from dsd_tutorial.attention.token_masks import token_mask, word_positions
from dsd_tutorial.attention.watching import Observation

__all__ = [
    "area_iou",
    "heat_maps",
    "pointing_game",
    "token_heat",
    "NothingCaptured",
    "Observation",
    "Prefix",
    "READINGS",
    "Roles",
    "Sentence",
    "alter",
    "choose_layers",
    "cross_attention_layers",
    "cross_attention_paths",
    "log_sum_exp",
    "observe",
    "read_sentence",
    "readings_of",
    "roles_of",
    "shared_rows",
    "token_mask",
    "word_positions",
]
