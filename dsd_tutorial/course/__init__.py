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
        show_bars,
        show_costs,
        show_heats,
        show_histograms,
        show_images,
        show_intervals,
        show_latents,
        show_lines,
        show_matrix,
        show_rows,
        show_shares,
    )
    from dsd_tutorial.course.figures.diagrams import draw_model
    from dsd_tutorial.course.parameters import check_parameters
    from dsd_tutorial.course.quizzes import quiz
    from dsd_tutorial.course.records import (
        ResultsError,
        read_results,
        read_table,
        recorded_alternative,
        row_of,
        rows_of,
    )
    from dsd_tutorial.course.reporting import Spent, apart, print_table, tolerance, verdict
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
    "Spent",
    "apart",
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
    "print_table",
    "quiz",
    "read_results",
    "read_table",
    "record_attention",
    "record_edits",
    "record_variations",
    "recorded_alternative",
    "row_of",
    "rows_of",
    "show_bars",
    "show_costs",
    "show_heats",
    "show_histograms",
    "show_images",
    "show_intervals",
    "show_latents",
    "show_lines",
    "show_matrix",
    "show_rows",
    "show_shares",
    "still",
    "tolerance",
    "variation_explorer",
    "variation_still",
    "verdict",
    "verdicts",
]

__getattr__, __dir__, _ = lazily(
    __name__,
    {
        "ResultsError": "dsd_tutorial.course.records",
        "Spent": "dsd_tutorial.course.reporting",
        "apart": "dsd_tutorial.course.reporting",
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
        "print_table": "dsd_tutorial.course.reporting",
        "quiz": "dsd_tutorial.course.quizzes",
        "read_results": "dsd_tutorial.course.records",
        "read_table": "dsd_tutorial.course.records",
        "record_attention": "dsd_tutorial.course.widgets",
        "record_edits": "dsd_tutorial.course.widgets",
        "record_variations": "dsd_tutorial.course.widgets",
        "recorded_alternative": "dsd_tutorial.course.records",
        "row_of": "dsd_tutorial.course.records",
        "rows_of": "dsd_tutorial.course.records",
        "show_bars": "dsd_tutorial.course.figures",
        "show_costs": "dsd_tutorial.course.figures",
        "show_heats": "dsd_tutorial.course.figures",
        "show_histograms": "dsd_tutorial.course.figures",
        "show_images": "dsd_tutorial.course.figures",
        "show_intervals": "dsd_tutorial.course.figures",
        "show_latents": "dsd_tutorial.course.figures",
        "show_lines": "dsd_tutorial.course.figures",
        "show_matrix": "dsd_tutorial.course.figures",
        "show_rows": "dsd_tutorial.course.figures",
        "show_shares": "dsd_tutorial.course.figures",
        "still": "dsd_tutorial.course.widgets",
        "tolerance": "dsd_tutorial.course.reporting",
        "variation_explorer": "dsd_tutorial.course.widgets",
        "variation_still": "dsd_tutorial.course.widgets",
        "verdict": "dsd_tutorial.course.reporting",
        "verdicts": "dsd_tutorial.course.few_shot",
    },
)
