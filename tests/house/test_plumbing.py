"""How much of what a notebook shows is plumbing: at most 12 % of its visible lines of code.

A visible line counts as plumbing when it belongs to a statement that reads, sorts or reshapes a
table (`TABLES`), touches matplotlib itself (`FIGURES`) or keeps books of the run (`BOOKS`); and
when it holds nothing but the labels, scales and sizes of a chart that one call draws (`LAYOUT`).
A chart's data and alt text are no plumbing; nor are imports (they have a limit of their own), blank
lines and comments. Of a block, the head alone is a statement here.
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
MOST = 0.12
TABLES = {
    "read_results", "read_table", "rows_of", "row_of", "DataFrame", "history", "set_index",
    "reset_index", "unstack", "pivot_table", "groupby", "drop_duplicates", "sort_values", "dropna",
    "itertuples", "to_string", "to_numpy", "rolling", "isin", "iloc", "loc", "insert", "nunique",
}  # fmt: skip
FIGURES = {"plt", "fig", "axis", "axes", "figure", "subplots"}
BOOKS = {"check_parameters", "Spent", "spent", "set_grad_enabled", "tqdm", "TemporaryDirectory"}
LAYOUT = {
    "xlabel", "ylabel", "xlim", "ylim", "xscale", "yscale", "size", "side", "columns", "sharey",
    "edges", "reference_label",
}  # fmt: skip
NO_STATEMENTS = ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom


def layout_lines(call: ast.Call) -> set[int]:
    """The lines of a chart's call on which there is layout, perhaps alt text, and nothing else."""
    layout: set[int] = set()
    content = {call.lineno}
    for part in [*call.args, *call.keywords]:
        name = part.arg if isinstance(part, ast.keyword) else None
        if name != "alt":
            lines = layout if name in LAYOUT else content
            lines.update(range(part.lineno, part.end_lineno + 1))
    return layout - content


def last(node: ast.AST) -> int:
    return getattr(node, "end_lineno", 0)


def plumbing(source: str) -> set[int]:
    """The lines of a cell that are plumbing."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, NO_STATEMENTS) or not isinstance(node, ast.stmt):
            continue
        parts = [part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.stmt)]
        inside = [n for part in parts for n in ast.walk(part)]
        if {getattr(n, "attr", getattr(n, "id", "")) for n in inside} & (TABLES | FIGURES | BOOKS):
            found.update(line for n in inside for line in range(node.lineno, last(n) + 1))
        calls = [n for n in inside if isinstance(n, ast.Call)]
        for call in (c for c in calls if getattr(c.func, "id", "").startswith("show_")):
            found |= layout_lines(call)
    return found


def visible(notebook: Path) -> Iterator[str]:
    """The code of the cells that are not folded, without magic."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        hidden = cell["metadata"].get("jupyter", {}).get("source_hidden")
        if cell["cell_type"] == "code" and not hidden:
            lines = "".join(cell["source"]).splitlines()
            yield "\n".join("" if x.startswith(("%", "!")) else x for x in lines)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_little_plumbing(notebook):
    shown, every = [], 0
    for source in visible(notebook):
        lines = source.splitlines()
        code = {i for i, x in enumerate(lines, 1) if x.strip() and not x.strip().startswith("#")}
        every += len(code)
        shown += [lines[i - 1] for i in sorted(plumbing(source) & code)]
    assert len(shown) <= MOST * every, f"{len(shown)} of {every}:\n" + "\n".join(shown)


def test_tables_layout_and_books_count_and_ideas_do_not():
    source = """
gains = read_results("customization", sd).set_index("metric")
logits = query @ key.T
for name, row in gains.iterrows():
    print(name, row.value)
show_lines({"gain": curve}, alt="A curve.",
           xlabel="step", ylim=(0, 1))
import tqdm
for step in tqdm(
        range(3)):
    state = state - slope
"""
    assert plumbing(source) == {2, 7, 9, 10}
