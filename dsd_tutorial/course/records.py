"""Tables of results as notebooks read them: each row names the weights it was measured on.

`python -m lab measure ...` writes them to `results/`. A row that was measured on other weights is
worth nothing beside the shipped ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

SHA = "model_sha256"
CLONE = Path(__file__).resolve().parents[2]  # where the package stands, as in a clone
CARRIED = CLONE / "dsd_tutorial" / "data" / "course"  # the same folders, as setup.py put them here
COMMANDS = {"few_shot": "few-shot"}  # where the command's name is not the table's


class ResultsError(ValueError):
    """A results table is missing, has other columns, or belongs to other weights."""


def results_folder() -> Path:
    """Return the folder of results: the repository's, or the one that the wheel carries.

    Raises:
        ResultsError: the package came neither with a clone nor as a whole wheel.
    """
    for root in (CARRIED, CLONE):
        if (root / "results").is_dir():
            return root / "results"
    raise ResultsError(
        f"no folder {CLONE / 'results'}; results come with the wheel and with a clone: install "
        "the package anew, or pass the file"
    )


def read_table(name: str, sha256: str | None = None) -> pd.DataFrame:
    """Return the table `results/<name>.csv`.

    Raises:
        ResultsError: it is missing, or a row was not measured on the weights with this `sha256`;
            the message says which command measures it.
    """
    import pandas as pd

    path = results_folder() / f"{name}.csv"
    command = f"python -m lab measure {COMMANDS.get(name, name.replace('sweep_', 'sweep sweeps/'))}"
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


def rows_by(table: pd.DataFrame, *columns: str, **chosen: Any) -> dict[Any, Any]:
    """Return `rows_of` as a tree: {value of the first column: {value of the next: row}}.

    Rows are as in `row_of`, so that a chart takes the tree as it is. Of equal rows the last counts.
    """
    tree: dict[Any, Any] = {}
    for row in rows_of(table, **chosen).itertuples(index=False):
        *path, last = (getattr(row, column) for column in columns)
        branch = tree
        for value in path:
            branch = branch.setdefault(value, {})
        branch[last] = row
    return tree


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
