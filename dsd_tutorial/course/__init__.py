"""What makes the notebooks a course: parameters, claims, checks, figures, widgets, records, runs.

Notebooks take all of it from here; each name is imported at its first use.
"""

# ruff: noqa: F401 (`lazily` offers what is imported for type checkers)
from typing import TYPE_CHECKING

from dsd_tutorial.lazy import lazily

if TYPE_CHECKING:
    from dsd_tutorial.course import checks
    from dsd_tutorial.course.again import measured_again
    from dsd_tutorial.course.claims import claim, end_without_closed_form
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
    )
    from dsd_tutorial.course.figures.diagrams import draw_model
    from dsd_tutorial.course.material import closed_forms, few_shot_items, image_set
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
    from dsd_tutorial.course.widgets.attention import record_attention
    from dsd_tutorial.course.widgets.browsing import browse, page
    from dsd_tutorial.course.widgets.samples import record_edits, record_variations

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
