"""What each notebook accepts: names, types and ranges, checked before any work starts.

A notebook has one cell tagged `parameters` with its defaults, then one line:

    from dsd_tutorial.parameters import check_parameters
    p = check_parameters("01_attention_scores", globals())

`dsd-tutorial run` makes the same check before a kernel starts. A new notebook adds a class and a
line to `classes.PARAMETERS`. Defaults live in the notebook only; a test holds both sides together.
"""

from dsd_tutorial.course.parameters.checking import (
    ParameterError,
    allowed,
    check_overrides,
    check_parameters,
    defaults,
    located,
    parameters_of,
    validate,
)
from dsd_tutorial.course.parameters.classes import (
    DOMAINS,
    PARAMETERS,
    PICTURES,
    AttentionParameters,
    EditingParameters,
    FewShotParameters,
    OrientationParameters,
    Parameters,
    ProjectionParameters,
    picture_files,
)
from dsd_tutorial.course.parameters.reading import ParameterFileError, read_parameter_file

__all__ = [
    "DOMAINS",
    "PARAMETERS",
    "PICTURES",
    "AttentionParameters",
    "EditingParameters",
    "FewShotParameters",
    "OrientationParameters",
    "ParameterError",
    "ParameterFileError",
    "Parameters",
    "ProjectionParameters",
    "allowed",
    "check_overrides",
    "check_parameters",
    "defaults",
    "located",
    "parameters_of",
    "picture_files",
    "read_parameter_file",
    "validate",
]
