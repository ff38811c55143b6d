"""What `make browser` starts where playwright is: `python -m lab.reach.trial book FOLDER OUTPUT`.

It prints a line for each page, keeps reports and pictures, and ends with 1 where there is a fault.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lab.reach import live, pages


def main() -> int:
    """The exit status: 1 where a page has a fault."""
    what, *paths = sys.argv[1:]
    given = [Path(path).resolve() for path in paths]
    if what == "pdf":
        reports = pages.pdf(given)
    else:
        folder, output = given
        output.mkdir(parents=True, exist_ok=True)
        if what == "notebooks":
            reports = live.notebooks(folder, output, Path(os.environ["COURSE_PYTHON"]))
        else:
            reports = {"book": pages.book, "slides": pages.decks}[what](folder, output)
        pages.keep(reports, output / "report.json")
    counts: dict[str, int] = {}
    for report in reports:
        for what, n in report.counts.items():
            counts[what] = counts.get(what, 0) + n
    faults = sum(len(report.faults) for report in reports)
    told = ", ".join(f"{n} {what}" for what, n in counts.items())
    print(f"{len(reports)} looked at: {faults} faults; {told}")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
