"""What `make browser` starts where playwright is: `python -m lab.reach.trial book FOLDER OUTPUT`.

It prints a line for each page, keeps reports and pictures, and ends with 1 where there is a fault.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from lab.reach import live, pages

TRIALS = {"book": pages.book, "slides": pages.decks, "notebooks": live.notebooks}


def line(report: pages.Report) -> str:
    """Return a report as it is printed: what was counted, and below it each fault."""
    faults = "".join(f"\n    {fault}" for fault in report.faults)
    return f"{'FAULTS' if faults else 'ok':7} {report.page:45} {listed(report.counts)}{faults}"


def listed(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {what}" for what, n in counts.items())


def main() -> int:
    """The exit status: 1 where a page has a fault."""
    what, *paths = sys.argv[1:]
    given = [Path(path).resolve() for path in paths]
    if what == "pdf":
        found, output = pages.pdf(given), None
    else:
        folder, output = given
        output.mkdir(parents=True, exist_ok=True)
        found = TRIALS[what](folder, output)
    reports, counts = [], Counter()
    for report in found:
        print(line(report), flush=True)
        reports.append(vars(report))
        counts.update(report.counts)
    if output:
        text = json.dumps(reports, indent=1)
        (output / "report.json").write_text(text, encoding="utf-8")
    faults = sum(len(report["faults"]) for report in reports)
    print(f"{len(reports)} looked at: {faults} faults; {listed(counts)}")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
