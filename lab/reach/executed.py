"""The notebooks as `make run` executed them; nothing here starts a kernel."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsd_tutorial.course.notebooks import Notebook, all_notebooks, read_notebook
from lab.reach.tools import BUILD

VIEWS = "application/vnd.jupyter.widget-view+json"
NOT_SHOWN = {"parameters", "remove-cell"}  # cells whose outputs nobody needs


class NotExecuted(RuntimeError):
    """A notebook has no executed copy, or that of another text; the message names it."""


def source_of(cell: dict[str, Any]) -> str:
    """Return the source of a cell as one text."""
    return "".join(cell["source"])


def outputs_of(source: Path, executed: Path) -> dict[str, list[Any]]:
    """Return {cell id of the source: its outputs} from an executed copy.

    Cells are known by their text, so that other metadata need no new run. Raises NotExecuted where
    the copy is not there, or lacks a cell of the source.
    """
    if not executed.is_file():
        raise NotExecuted(f"{executed} is not there")
    done: dict[str, list[list[Any]]] = {}
    for cell in read_notebook(executed)["cells"]:
        if cell["cell_type"] == "code":
            done.setdefault(source_of(cell), []).append(cell["outputs"])
    found = {}
    for cell in read_notebook(source)["cells"]:
        if cell["cell_type"] != "code" or NOT_SHOWN & set(cell["metadata"].get("tags", [])):
            continue
        if not done.get(source_of(cell)):
            raise NotExecuted(f"{executed} is of another text than {source.name} has today")
        found[cell["id"]] = joined(done[source_of(cell)].pop(0))
    return found


def joined(outputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return outputs with printed text in one piece, however it came in, and without warnings."""
    found: list[dict[str, Any]] = []
    for output in outputs:
        printed = output["output_type"] == "stream"
        if printed and output["name"] == "stderr":
            continue
        if printed and found and found[-1]["output_type"] == "stream":
            text = "".join(found[-1]["text"]) + "".join(output["text"])
            found[-1] = found[-1] | {"text": text}
        else:
            found.append(output)
    return found


def stale(folder: Path) -> dict[str, str]:
    """Return {notebook: why its executed copy cannot be taken}; empty where all can."""
    found = {}
    for notebook in all_notebooks():
        try:
            outputs_of(notebook.path, folder / notebook.path.name)
        except NotExecuted as error:
            found[notebook.name] = str(error)
    return found


def all_outputs(folder: Path) -> list[tuple[Notebook, dict[str, list[Any]]]]:
    """Return each notebook of the course with its outputs, from the folder of a run.

    Raises NotExecuted, with the command that helps, before anything is made of them.
    """
    if missing := stale(folder):
        names = " ".join(name[:2] for name in missing)
        raise NotExecuted(f"{'; '.join(missing.values())}. Run: `make run ARGS='{names}'`.")
    return [(x, outputs_of(x.path, folder / x.path.name)) for x in all_notebooks()]


def is_progress(output: dict[str, Any]) -> bool:
    """Whether an output is a progress bar drawn by a widget: over, and nothing to look at."""
    data = output.get("data", {})
    return VIEWS in data and "%|" in "".join(data.get("text/plain", ""))


def widget_html(executed: Path, outputs: Sequence[dict[str, Any]]) -> str | None:
    """Return what the widget among `outputs` showed at first, as HTML; None where there is none."""
    shown = [
        output["data"][VIEWS]["model_id"]
        for output in outputs
        if VIEWS in output.get("data", {}) and not is_progress(output)
    ]
    if not shown:
        return None
    saved = json.loads(executed.read_text("utf-8"))["metadata"].get("widgets", {})
    states = saved.get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    return _html_below(states, shown[0])


def _html_below(states: dict[str, Any], model: str) -> str | None:
    entry = states.get(model, {})
    state = entry.get("state", {})
    # a kernel's client saves every value, JupyterLab leaves out those that are as always
    if "HTMLModel" in (entry.get("model_name"), state.get("_model_name")):
        return state["value"]
    for child in state.get("children", []):
        found = _html_below(states, child.removeprefix("IPY_MODEL_"))
        if found:
            return found
    return None


if __name__ == "__main__":
    print(*stale(BUILD))
