"""Settings of the laboratory that are checked when they are made."""

from typing import Any

from pydantic import BaseModel, ValidationError


class Checked(BaseModel, frozen=True, extra="forbid"):
    """A pydantic model whose complaint is one line: every bad value, and what is allowed."""

    def __init__(self, **values: Any):
        """Raise ValueError for values that are not allowed."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            said = [
                f"{e['loc'][0]}={e['input']!r}: {e['msg']}" if e["loc"] else f"{e['ctx']['error']}"
                for e in error.errors()
            ]
            raise ValueError("; ".join(said)) from None
