"""Csv tables of results: rows that survive kill -9, each with the weights it was measured on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from dsd_tutorial.course.records import SHA, ResultsError
from dsd_tutorial.matching.metrics import Interval
from dsd_tutorial.saving import replacing, require_writable_file

Row = dict[str, Any]
HIT, MISS = "x", "."  # not 1 and 0: a row of digits would be read as one large number


def letters_of(hits: Sequence[int]) -> str:
    """Return hits as the tables write them."""
    return "".join(HIT if hit else MISS for hit in hits)


class Table:
    """A csv file to which measurements are added, all rows of one at once.

    Args:
        path: The file. Rows of other weights are moved to `<name>.stale.csv` when it is opened.
        columns: Its columns; the weights' digest is added as the last one.
        keys: The columns that name a row.
        sha256: The weights' digest.
        settings: What the column `settings` says in every row, where there is one.
        part: What it is of a table of several files, such as "items".

    Raises:
        ResultsError: The file has other columns, or rows with other settings.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        keys: Sequence[str],
        sha256: str,
        settings: str | None = None,
        part: str = "",
    ):
        self.part = part
        self.path, self.keys, self.columns = Path(path), tuple(keys), [*columns, SHA]
        self._stamp = {SHA: sha256} | ({} if settings is None else {"settings": settings})
        require_writable_file(self.path)
        rows = self._read()
        fresh = rows[rows[SHA] == sha256]
        if len(fresh) < len(rows):
            self._move_aside(rows[rows[SHA] != sha256])
            self._write(self.path, fresh)
        if settings is not None and len(other := fresh[fresh["settings"] != settings]):
            raise ResultsError(
                f"{self.path} holds rows with {other['settings'].iloc[0]!r}; requested is "
                f"{settings!r}: give another output, or move that file away"
            )
        self._rows = {self._key(row): row for row in fresh.to_dict("records")}

    def has(self, **key: Any) -> bool:
        """Return whether there is a row of this key."""
        return self._key(key) in self._rows

    def add(self, rows: Iterable[Row]) -> None:
        """Write rows, all or none; a row that is there already stays as it is.

        Raises:
            ResultsError: A row has a column too many or too few.
        """
        new = [self._stamp | row for row in rows]
        for row in new:
            if wrong := sorted(set(row) ^ set(self.columns)):
                raise ResultsError(f"a row needs exactly {', '.join(self.columns)}; not so {wrong}")
        found = {self._key(row): {k: str(written(v)) for k, v in row.items()} for row in new}
        if lacking := {key: row for key, row in found.items() if key not in self._rows}:
            self._rows |= lacking
            self._write(self.path, pd.DataFrame(self._rows.values(), columns=self.columns))

    def frame(self) -> pd.DataFrame:
        """Return the table as it stands, with numbers as numbers."""
        return pd.read_csv(self.path) if self._rows else pd.DataFrame(columns=self.columns)

    def _key(self, row: Row) -> tuple[str, ...]:
        return tuple(str(written(row[name])) for name in self.keys)

    def _read(self) -> pd.DataFrame:
        """Return the rows as they are written; a line that was cut off is none."""
        if not self.path.exists():
            return pd.DataFrame(columns=self.columns)
        rows = pd.read_csv(self.path, dtype=str, keep_default_na=False)
        if list(rows.columns) != self.columns:
            raise ResultsError(
                f"{self.path} has the columns {list(rows.columns)}, not {self.columns}; "
                "move it away to start anew"
            )
        return rows.dropna()

    def _move_aside(self, rows: pd.DataFrame) -> None:
        number, aside = 1, self.path.with_suffix(".stale.csv")
        while aside.exists():  # those of a change before
            number += 1
            aside = self.path.with_suffix(f".{number}.stale.csv")
        self._write(aside, rows)
        tqdm.write(f"{self.path.name}: {len(rows)} rows of other weights moved to {aside.name}")

    @staticmethod
    def _write(path: Path, rows: pd.DataFrame) -> None:
        with replacing(path) as partial:
            rows.to_csv(partial, index=False, lineterminator="\n")


def bounds(name: str, found: Interval) -> Row:
    """Return the columns `name`, `name`_low and `name`_high."""
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def publish(path: Path, rows: Iterable[Row], sha256: str) -> None:
    """Write a table that is made from others, as a whole; its columns are those of the rows."""
    if found := [{k: written(v) for k, v in row.items()} | {SHA: sha256} for row in rows]:
        with replacing(path) as partial:
            pd.DataFrame(found, dtype=object).to_csv(partial, index=False, lineterminator="\n")


def require_results_file(path: Path) -> None:
    """Raise, before anything is measured, where `path` cannot be a table of ours.

    Raises:
        OutputError: It cannot be written.
        ResultsError: It holds something else.
    """
    require_writable_file(path)
    if path.exists() and SHA not in pd.read_csv(path, nrows=0).columns:
        raise ResultsError(f"{path} is no table of results: give another output, or move it away")


def written(value: Any) -> Any:
    """Return a number as a reader wants it: six significant digits, and 2 for an integer."""
    return f"{value:.6g}" if isinstance(value, float) else value
