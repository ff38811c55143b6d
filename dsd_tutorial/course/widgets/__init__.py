"""What a learner turns by hand: attention, variations and edits to explore, beside a still."""

from dsd_tutorial.course.widgets.attention import Recording, record_attention
from dsd_tutorial.course.widgets.browsing import browse, page
from dsd_tutorial.course.widgets.samples import (
    Edits,
    Variations,
    record_edits,
    record_variations,
)

__all__ = [
    "Edits",
    "Recording",
    "Variations",
    "browse",
    "page",
    "record_attention",
    "record_edits",
    "record_variations",
]
