"""Statements about what a model does, as against what its mathematics is.

An identity holds for every model, and a notebook asserts it. That a picture shows its caption was
measured on the embedded model: there it is asserted, for any other model it is reported.
"""

from __future__ import annotations

from typing import Any


class ClaimFailed(AssertionError):
    """The embedded model does not do what the notebook says of it."""


def claim(model: Any, statement: str, holds: Any) -> None:
    """Print the statement with a tick or a cross.

    `holds` is a bool or a tensor of one. Raises `ClaimFailed` if it does not hold and `model` is
    the embedded one.
    """
    true = bool(holds)
    suffix = "" if model.is_embedded else f"   (reported only: {model.name} is not the course's)"
    print(f"{'✓' if true else '✗'} {statement}{suffix}")
    if model.is_embedded and not true:
        raise ClaimFailed(
            f"does not hold for {model.name}: {statement}. With unusual parameters (few steps, "
            "extreme guidance) that may be so; with the defaults it is a fault worth reporting."
        )
