"""What makes the notebooks a course: parameters, claims, checks, figures, widgets, records, runs.

Notebooks take all of it from here; each name is imported at its first use.
"""

# What is imported for type checkers is what `lazily` offers; "as" tells them that it is offered.
from typing import TYPE_CHECKING

from dsd_tutorial.lazy import lazily

if TYPE_CHECKING:
    from dsd_tutorial.course import checks as checks
    from dsd_tutorial.course.again import measured_again as measured_again
    from dsd_tutorial.course.claims import claim as claim
    from dsd_tutorial.course.claims import end_without_closed_form as end_without_closed_form
    from dsd_tutorial.course.figures import band as band
    from dsd_tutorial.course.figures import bars as bars
    from dsd_tutorial.course.figures import figure as figure
    from dsd_tutorial.course.figures import overlay_heat as overlay_heat
    from dsd_tutorial.course.figures import show_bars as show_bars
    from dsd_tutorial.course.figures import show_costs as show_costs
    from dsd_tutorial.course.figures import show_heats as show_heats
    from dsd_tutorial.course.figures import show_histograms as show_histograms
    from dsd_tutorial.course.figures import show_images as show_images
    from dsd_tutorial.course.figures import show_intervals as show_intervals
    from dsd_tutorial.course.figures import show_latents as show_latents
    from dsd_tutorial.course.figures import show_lines as show_lines
    from dsd_tutorial.course.figures import show_matrix as show_matrix
    from dsd_tutorial.course.figures import show_rows as show_rows
    from dsd_tutorial.course.figures.diagrams import draw_model as draw_model
    from dsd_tutorial.course.material import closed_forms as closed_forms
    from dsd_tutorial.course.material import few_shot_items as few_shot_items
    from dsd_tutorial.course.material import image_set as image_set
    from dsd_tutorial.course.parameters import check_parameters as check_parameters
    from dsd_tutorial.course.quizzes import quiz as quiz
    from dsd_tutorial.course.recording import record as record
    from dsd_tutorial.course.recording import record_table as record_table
    from dsd_tutorial.course.records import ResultsError as ResultsError
    from dsd_tutorial.course.records import read_results as read_results
    from dsd_tutorial.course.records import read_table as read_table
    from dsd_tutorial.course.records import recorded_alternative as recorded_alternative
    from dsd_tutorial.course.records import row_of as row_of
    from dsd_tutorial.course.records import rows_by as rows_by
    from dsd_tutorial.course.records import rows_of as rows_of
    from dsd_tutorial.course.reporting import Spent as Spent
    from dsd_tutorial.course.reporting import apart as apart
    from dsd_tutorial.course.reporting import print_table as print_table
    from dsd_tutorial.course.reporting import tolerance as tolerance
    from dsd_tutorial.course.reporting import verdict as verdict
    from dsd_tutorial.course.widgets.attention import record_attention as record_attention
    from dsd_tutorial.course.widgets.browsing import browse as browse
    from dsd_tutorial.course.widgets.browsing import page as page
    from dsd_tutorial.course.widgets.samples import record_edits as record_edits
    from dsd_tutorial.course.widgets.samples import record_variations as record_variations

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
