"""What makes the notebooks a course: parameters, claims, checks, figures, widgets, records, runs.

Notebooks take all of it from here; nothing is imported before it is asked for.
"""

from typing import TYPE_CHECKING

from dsd_tutorial.lazy import lazily

if TYPE_CHECKING:
    from dsd_tutorial.course import checks
    from dsd_tutorial.course.applies import end_without_closed_form
    from dsd_tutorial.course.claims import claim
    from dsd_tutorial.course.few_shot import chosen_adapter, hits_of, verdicts
    from dsd_tutorial.course.figures import (
        band,
        bars,
        figure,
        overlay_heat,
        show_images,
        show_latents,
    )
    from dsd_tutorial.course.figures.diagrams import draw_model
    from dsd_tutorial.course.parameters import check_parameters
    from dsd_tutorial.course.quizzes import quiz
    from dsd_tutorial.course.records import ResultsError, read_table, recorded_alternative
    from dsd_tutorial.course.widgets import (
        browse,
        edit_explorer,
        edit_still,
        explorer,
        page,
        record_attention,
        record_edits,
        record_variations,
        still,
        variation_explorer,
        variation_still,
    )

__all__ = [
    "ResultsError",
    "band",
    "bars",
    "browse",
    "check_parameters",
    "checks",
    "chosen_adapter",
    "claim",
    "draw_model",
    "edit_explorer",
    "edit_still",
    "end_without_closed_form",
    "explorer",
    "figure",
    "hits_of",
    "overlay_heat",
    "page",
    "quiz",
    "read_table",
    "record_attention",
    "record_edits",
    "record_variations",
    "recorded_alternative",
    "show_images",
    "show_latents",
    "still",
    "variation_explorer",
    "variation_still",
    "verdicts",
]

__getattr__, __dir__, _ = lazily(
    __name__,
    {
        "ResultsError": "dsd_tutorial.course.records",
        "band": "dsd_tutorial.course.figures",
        "bars": "dsd_tutorial.course.figures",
        "browse": "dsd_tutorial.course.widgets",
        "check_parameters": "dsd_tutorial.course.parameters",
        "checks": "dsd_tutorial.course.checks",
        "chosen_adapter": "dsd_tutorial.course.few_shot",
        "claim": "dsd_tutorial.course.claims",
        "draw_model": "dsd_tutorial.course.figures.diagrams",
        "edit_explorer": "dsd_tutorial.course.widgets",
        "edit_still": "dsd_tutorial.course.widgets",
        "end_without_closed_form": "dsd_tutorial.course.applies",
        "explorer": "dsd_tutorial.course.widgets",
        "figure": "dsd_tutorial.course.figures",
        "hits_of": "dsd_tutorial.course.few_shot",
        "overlay_heat": "dsd_tutorial.course.figures",
        "page": "dsd_tutorial.course.widgets",
        "quiz": "dsd_tutorial.course.quizzes",
        "read_table": "dsd_tutorial.course.records",
        "record_attention": "dsd_tutorial.course.widgets",
        "record_edits": "dsd_tutorial.course.widgets",
        "record_variations": "dsd_tutorial.course.widgets",
        "recorded_alternative": "dsd_tutorial.course.records",
        "show_images": "dsd_tutorial.course.figures",
        "show_latents": "dsd_tutorial.course.figures",
        "still": "dsd_tutorial.course.widgets",
        "variation_explorer": "dsd_tutorial.course.widgets",
        "variation_still": "dsd_tutorial.course.widgets",
        "verdicts": "dsd_tutorial.course.few_shot",
    },
)
