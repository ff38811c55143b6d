"""Tables of results: one row at a time, resumable, each row with the weights it was measured on.

`python -m lab measure ...` writes them to `results/`; notebooks and documents read them. A row that
was measured on other weights is worth nothing beside the shipped ones, so it never stays in a table
that is being continued.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from dsd_tutorial.saving import replacing, require_writable_file

if TYPE_CHECKING:
    import pandas as pd

SHA = "model_sha256"
COMMANDS = {"few_shot": "few-shot"}  # where the command's name is not the table's


class ResultsError(ValueError):
    """A results table is missing, has other columns, or belongs to other weights."""


def results_folder() -> Path:
    """Return the repository's `results/`.

    Raises:
        ResultsError: the package was installed without the repository.
    """
    folder = Path(__file__).resolve().parents[2] / "results"
    if not folder.is_dir():
        raise ResultsError(
            f"no folder {folder}; results come with the repository: clone it, or pass the file"
        )
    return folder


class Table:
    """A csv file that grows row by row: what was measured survives Ctrl-C and is not repeated.

    Args:
        path: of the file; rows of other weights in it are moved to `<name>.stale.csv`.
        columns: of a row.
        keys: the columns that name a measurement.
        sha256: of the model's weights.

    Raises:
        ResultsError: the file has other columns.
    """

    def __init__(self, path: Path | str, columns: Sequence[str], keys: Sequence[str], sha256: str):
        self.path, self.keys, self.sha256 = Path(path), tuple(keys), sha256
        self.columns = (*(c for c in columns if c != SHA), SHA)
        require_writable_file(self.path)
        rows = self._read()
        fresh = [row for row in rows if row[SHA] == sha256]
        if len(fresh) < len(rows):
            self._move_aside([row for row in rows if row[SHA] != sha256])
        if self.path.exists():
            self._write(self.path, fresh)  # without other weights' rows and half-written lines
        self._done = {self._key(row) for row in fresh}

    def has(self, **key: Any) -> bool:
        """Return whether the measurement with these keys is in the table."""
        return self._key(key) in self._done

    def add(self, **row: Any) -> None:
        """Append one row and write it to disk at once.

        Raises:
            ResultsError: a column is missing or unknown, or the key is there already.
        """
        row = {**row, SHA: self.sha256}
        if set(row) != set(self.columns):
            wrong = sorted(set(row) ^ set(self.columns))
            raise ResultsError(f"a row needs exactly {', '.join(self.columns)}; not so {wrong}")
        key = self._key(row)
        if key in self._done:
            raise ResultsError(
                f"{self.path.name} already holds {dict(zip(self.keys, key, strict=True))}"
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow({k: _written(v) for k, v in row.items()})
        self._done.add(key)

    def frame(self) -> pd.DataFrame:
        """Return the table as it stands, with numbers as numbers."""
        import pandas as pd

        return pd.read_csv(self.path) if self.path.exists() else pd.DataFrame(columns=self.columns)

    def _key(self, row: dict) -> tuple[str, ...]:
        return tuple(str(_written(row[k])) for k in self.keys)

    def _read(self) -> list[dict]:
        if not self.path.exists():
            return []
        with open(self.path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != self.columns:
                raise ResultsError(
                    f"{self.path} has the columns {reader.fieldnames}, not {list(self.columns)}; "
                    "move it away to start anew"
                )
            return [row for row in reader if None not in row.values()]  # a half-written last line

    def _move_aside(self, rows: list[dict]) -> None:
        number, aside = 1, self.path.with_suffix(".stale.csv")
        while aside.exists():  # those of a change before
            number += 1
            aside = self.path.with_suffix(f".{number}.stale.csv")
        self._write(aside, rows)
        tqdm.write(f"{self.path.name}: {len(rows)} rows of other weights moved to {aside.name}")

    def _write(self, path: Path, rows: list[dict]) -> None:
        with replacing(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def read_table(name: str, sha256: str | None = None) -> pd.DataFrame:
    """Return the table `results/<name>.csv`.

    Raises:
        ResultsError: it is missing, or a row was not measured on the weights with this `sha256`;
            the message says which command measures it.
    """
    import pandas as pd

    path = results_folder() / f"{name}.csv"
    command = f"python -m lab measure {COMMANDS.get(name, name)}"
    if not path.is_file():
        raise ResultsError(f"{path} is missing; `{command}` makes it")
    table = pd.read_csv(path)
    if sha256 is not None and set(table[SHA]) != {sha256}:
        raise ResultsError(f"{path} holds rows of other weights; `{command}` measures them anew")
    return table


def read_results(name: str, model: Any, **chosen: Any) -> pd.DataFrame:
    """Return the rows of `results/<name>.csv` that were measured on the course's own model.

    With another model loaded they are still the course's, and a printed line says so.

    Args:
        name: of the table.
        model: what the notebook has loaded.
        chosen: see `rows_of`.

    Raises:
        ResultsError: as in `read_table`.
    """
    if not model.is_embedded:
        print(f"results/{name}.csv was measured on the course's own model, not on {model.name}")
    return rows_of(read_table(name, model.sha256 if model.is_embedded else None), **chosen)


def rows_of(table: pd.DataFrame, **chosen: Any) -> pd.DataFrame:
    """Return the rows whose columns have these values; a list allows each of its entries."""
    for column, value in chosen.items():
        wanted = list(value) if isinstance(value, list | tuple | set) else [value]
        table = table.loc[table[column].isin(wanted)]
    return table


def row_of(table: pd.DataFrame, **chosen: Any) -> Any:
    """Return the first of `rows_of`, with its columns as attributes: `row.value`, `row.low`, ...

    Raises:
        ResultsError: there is none.
    """
    row = next(iter(rows_of(table, **chosen).itertuples(index=False)), None)
    if row is None:
        raise ResultsError(f"the table has no row with {chosen}")
    return row


def _written(value: Any) -> Any:
    """Return a number as a reader wants it: six significant digits."""
    return f"{value:.6g}" if isinstance(value, float) else value


def recorded_alternative(model: Any) -> str | None:
    """Return the inverse beside the paper's own that results/projection.csv says was chosen.

    None where the table was measured on other weights.
    """
    try:
        table = read_table("projection", model.sha256)
    except ResultsError:
        return None
    rows = table[table.metric == "chosen"]
    return None if rows.empty else str(rows.method.iloc[0])
