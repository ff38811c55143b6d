"""What a model lacks for the closed form, in one line, and a notebook that then ends in peace.

Stable Diffusion 2.x reads another text layer than the closed form inverts, and a folder of 1.x may
have no CLIP beside it. Neither is an error of the reader's: the notebook says so and stops, and a
run of the whole course goes on.
"""

from __future__ import annotations

import sys
from typing import Any


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
        _pass_over_the_rest()


def _pass_over_the_rest() -> None:
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        sys.exit(0)
    # the running cell was read already; every later one is read as nothing
    shell.input_transformers_post.append(lambda lines: [])
