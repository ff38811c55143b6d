"""Observe and alter the cross-attention of a U-Net; pool what was seen.

with observe(model, layers=["mid.0", "up"]) as seen:
    model.predict_noise(noisy, 500, model.encode_text(["a red circle"]))
seen.scores["mid.0"]                                     # (batch, heads, pixels)
"""

from dsd_tutorial.attention.layers import (
    choose_layers,
    cross_attention_layers,
    cross_attention_paths,
)
from dsd_tutorial.attention.observing import NothingCaptured, alter, observe
from dsd_tutorial.attention.processors import AlteredAttnProcessor, Prefix
from dsd_tutorial.attention.watching import Observation

__all__ = [
    "AlteredAttnProcessor",
    "NothingCaptured",
    "Observation",
    "Prefix",
    "alter",
    "choose_layers",
    "cross_attention_layers",
    "cross_attention_paths",
    "observe",
]
