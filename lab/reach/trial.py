"""What `make browser` starts in the book's environment: `python -m lab.reach.trial book FOLDER ...`.

It prints a line for each page, keeps reports and pictures, and ends with 1 where something is wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lab.reach import pages


def main() -> int:
    """The exit status: 1 where a page has a fault."""
    what, *paths = sys.argv[1:]
    given = [Path(path).resolve() for path in paths]
    if what == "pdf":
        reports = pages.pdf(given)
    else:
        folder, output = given
        reports = {"book": pages.book, "slides": pages.decks}[what](folder, output)
        pages.keep(reports, output / "report.json")
    return int(any(report.faults for report in reports))


if __name__ == "__main__":
    sys.exit(main())
