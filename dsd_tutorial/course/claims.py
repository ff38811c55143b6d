"""What holds for which model: statements about what a model does, and where the closed form ends.

An identity holds for every model, and a notebook asserts it. That an image shows its caption was
measured on the embedded model: there it is asserted, for any other model it is reported. And
Stable Diffusion 2.x reads another text layer than the closed form inverts, and a folder of 1.x may
have no CLIP beside it: neither is an error of the reader's. The notebook says so and stops, and a
run of the whole course goes on.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from dsd_tutorial.course.recording import record

REPORT = "DSD_TUTORIAL_REPORT_CLAIMS"  # set where notebooks run with parameters of all kinds


class ClaimFailed(AssertionError):
    """The embedded model does not do what the notebook says of it."""


def claim(model: Any, statement: str, holds: Any) -> None:
    """Print the statement with a tick or a cross.

    `holds` is a bool or a tensor of one. Raises `ClaimFailed` if it does not hold and `model` is
    the embedded one. In a sweep, whose parameters nobody has promised anything for, it is recorded
    instead.
    """
    true, in_a_sweep = bool(holds), os.environ.get(REPORT) == "1"
    if in_a_sweep:
        record(f"claims/{statement.replace('/', ' or ')}", float(true))
    suffix = "" if model.is_embedded else f"   (reported only: {model.name} is not the course's)"
    print(f"{'✓' if true else '✗'} {statement}{suffix}")
    if model.is_embedded and not true and not in_a_sweep:
        raise ClaimFailed(
            f"does not hold for {model.name}: {statement}. With unusual parameters (few steps, "
            "extreme guidance) that may be so; with the defaults it is a fault worth reporting."
        )


def closed_form_lacks(model: Any) -> str:
    """Return why W_t cannot be inverted for a model's U-Net, in one line; "" where it can."""
    from dsd_tutorial.projection import text_weight

    try:
        text_weight(model)
    except ValueError as error:  # PenultimateLayerError is one
        return " ".join(str(error).split())
    return ""


def end_without_closed_form(model: Any) -> None:
    """Print why the closed form does not apply to `model` and end the notebook; else do nothing.

    The cells behind the one that calls this are passed over, without an error, until the kernel
    starts anew. A plain Python program exits with status 0.
    """
    reason = closed_form_lacks(model)
    if reason:
        print(f"{reason} This notebook ends here; with another model, restart the kernel.")
        from IPython import get_ipython

        shell = get_ipython()
        if shell is None:
            sys.exit(0)
        # the running cell was read already; every later one is read as nothing
        shell.input_transformers_post.append(lambda lines: [])
