"""What became of planted faults: kept in a file, counted, and compared with `docs/mutants.md`."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from lab.upkeep.blocks import ROOT
from lab.upkeep.mutant_sites import (
    PACKAGE,
    Mutant,
    digest,
    files_of,
    mutants_of,
    tests_of,
)

STATE = ROOT / "build" / "mutants"
REASONS = ROOT / "docs" / "mutants.md"
LEAST = 0.9  # share of a room's mutants that tests must notice


class Known:
    """Results so far of the modules in `tree`, a line each in a file: a stopped run goes on."""

    def __init__(self, path: Path, tree: Path):
        self.path, self.tree, self.rows = path, tree, {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self.rows[row["key"]] = row

    def add(self, room: str, key: str, outcome: str, seconds: float, tests: int) -> None:
        row = {
            "key": key, "outcome": outcome, "seconds": round(seconds, 2), "tests": tests,
            "against": self._tests(room),
        }  # fmt: skip
        self.rows[key] = row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def outcome(self, mutant: Mutant) -> str | None:
        """Return what is known of a mutant; None also of a survivor of other tests than today's."""
        row = self.rows.get(mutant.key(), {"outcome": None})
        stale = row["outcome"] == "survived" and row["against"] != self._tests(mutant.room)
        return None if stale else row["outcome"]

    def _tests(self, room: str) -> str:
        return digest(self.tree, *tests_of(self.tree, room))


ROW = re.compile(r"^- `([^`]+)` `([^`]*)`: `(.+?)` → `(.*?)`: (.+)$")


def row_of(mutant: Mutant, reason: str) -> str:
    """Return the line of `docs/mutants.md` for a survivor."""
    file, function, before, after = mutant.place()
    return f"- `{file.removeprefix(PACKAGE + '/')}` `{function}`: `{before}` → `{after}`: {reason}"


def reasons() -> dict[tuple[str, ...], str]:
    """Return the reasons of `docs/mutants.md`, by `Mutant.place`."""
    if not REASONS.exists():
        return {}
    rows = [ROW.match(line) for line in REASONS.read_text(encoding="utf-8").splitlines()]
    return {(f"{PACKAGE}/{r[1]}", r[2], r[3], r[4]): r[5].strip() for r in rows if r}


def report(rooms: list[str], known: Known) -> int:
    """Print shares and survivors, write the latter to a file; return the exit status."""
    given, used, wrong, open_rows = reasons(), set(), False, []
    written = ["# Survivors, by `python -m lab.upkeep.mutants`"]
    for room in rooms:
        counts: Counter[str] = Counter()
        survivors, total = [], 0
        for mutant in mutants_of(known.tree, room):
            total += 1
            outcome = known.outcome(mutant)
            counts[outcome or "unknown"] += 1
            if outcome == "survived":
                survivors.append(mutant)
        broken, unknown = counts["broken"], counts["unknown"]
        killed = counts["killed"] + counts["timeout"]
        run = killed + len(survivors)
        if not run:
            print(f"{room:16} nothing run yet of {total}")
            continue
        line = f"{room:16} {killed:4} of {run:4} killed = {killed / run:6.1%}"
        line += f"; {unknown} of {total} not run" if unknown else ""
        missing = [m for m in survivors if m.place() not in given]
        print(
            f"{line}; {len(survivors)} survive, {len(missing)} without a reason; {broken} no code"
        )
        wrong |= killed / run < LEAST or bool(missing)
        written += ["", f"## {room}", ""]
        for mutant in sorted(survivors, key=lambda m: (m.file, m.line)):
            reason = given.get(mutant.place(), "")
            used.add(mutant.place())
            where = f"{mutant.file}:{mutant.line}"
            written.append(f"{where} [{mutant.operator}]\n{row_of(mutant, reason or '?')}")
            open_rows += [] if reason else [f"{where}: {' -> '.join(mutant.change())}"]
        if not unknown:
            own = set(files_of(known.tree, room))
            for place in sorted(p for p in given if p[0] in own and p not in used):
                print(f"  no survivor any more: {place[0]} {place[1]}: {place[2]}")
    path = STATE / "survivors.md"
    path.write_text("\n".join(written) + "\n", encoding="utf-8")
    for row in open_rows:
        print(f"  no reason: {row}")
    print(f"rows for {REASONS.relative_to(ROOT)} are in {path.relative_to(ROOT)}")
    return int(wrong)
