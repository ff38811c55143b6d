"""What each notebook accepts: names, types and ranges, checked before any work starts.

A notebook has one cell tagged `parameters` with its defaults, then one line:

    from dsd_tutorial.course import check_parameters
    p = check_parameters("01_attention_scores", globals())

`dsd-tutorial run` makes the same check before a kernel starts. A new notebook adds a class and a
line to `classes.PARAMETERS`. Defaults live in the notebook only; a test holds both sides together.
"""

from dsd_tutorial.course.parameters.checking import (
    ParameterError,
    check_overrides,
    check_parameters,
    defaults,
    located,
    parameters_of,
    quick_values,
    validate,
)
from dsd_tutorial.course.parameters.classes import DOMAINS, PARAMETERS
from dsd_tutorial.course.parameters.reading import ParameterFileError, read_parameter_file

__all__ = [
    "DOMAINS", "PARAMETERS", "ParameterError", "ParameterFileError", "check_overrides",
    "check_parameters", "defaults", "located", "parameters_of", "quick_values",
    "read_parameter_file", "validate",
]  # fmt: skip
