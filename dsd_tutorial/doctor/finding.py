"""One point that the doctor looked at, and how a look that fails itself is told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One point that was looked at: status OK, WARN or FAIL, what was seen, and what to do."""

    status: str
    what: str
    seen: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.status:5}{self.what:18}{self.seen}"
        return f"{line}\n     {'':18}-> {self.remedy}" if self.remedy else line


def looked_at(what: str, check: Callable[..., Finding], *given: Any) -> Finding:
    """What a check finds; a failure where the machine is so odd that the check itself fails."""
    try:
        return check(*given)
    except Exception as error:
        seen = f"could not be looked at: {type(error).__name__}: {error}"
        return Finding("FAIL", what, seen, "mend what the other lines say, and try again")
