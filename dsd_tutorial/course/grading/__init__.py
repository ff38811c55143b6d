"""Hand-ins, judged: each in a process of its own, by the package's checks and never by its word.

`dsd-tutorial grade` calls `grade`; `dsd-tutorial export --nbgrader` calls `write_assignments`.
"""

# ruff: noqa: F401 (`lazily` offers what is imported for type checkers)
from typing import TYPE_CHECKING

from dsd_tutorial.lazy import lazily

if TYPE_CHECKING:
    from dsd_tutorial.course.grading.grade import grade
    from dsd_tutorial.course.grading.nbgrader import write_assignments
    from dsd_tutorial.course.grading.process import Limits

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
