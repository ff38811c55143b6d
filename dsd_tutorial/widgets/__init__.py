"""What a learner turns by hand: explorers of attention and of variations, each beside a still."""

from dsd_tutorial.widgets.attention import Recording, explorer, record_attention, still
from dsd_tutorial.widgets.pages import browse, page
from dsd_tutorial.widgets.variations import (
    Variations,
    record_variations,
    variation_explorer,
    variation_still,
)

__all__ = [
    "Recording",
    "Variations",
    "browse",
    "explorer",
    "page",
    "record_attention",
    "record_variations",
    "still",
    "variation_explorer",
    "variation_still",
]
