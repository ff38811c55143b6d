"""What a learner turns by hand: explorers of attention, variations and edits, beside a still."""

from dsd_tutorial.course.widgets.attention import Recording, explorer, record_attention, still
from dsd_tutorial.course.widgets.edits import Edits, edit_explorer, edit_still, record_edits
from dsd_tutorial.course.widgets.pages import browse, page
from dsd_tutorial.course.widgets.variations import (
    Variations,
    record_variations,
    variation_explorer,
    variation_still,
)

__all__ = [
    "Edits",
    "Recording",
    "Variations",
    "browse",
    "edit_explorer",
    "edit_still",
    "explorer",
    "page",
    "record_attention",
    "record_edits",
    "record_variations",
    "still",
    "variation_explorer",
    "variation_still",
]
