"""Small notebooks and a small clone, made in a test's own folder."""

from pathlib import Path

import nbformat

PARAMETERS = {
    "00_orientation": (
        'model: str = "shapes-sd"  # which model\n'
        'device: str = "auto"\n'
        'dtype: str = "float32"\n'
        "seed: int = 0\n"
        'prompt: str = "a red circle"\n'
        "steps: int = 25  # denoising steps\n"
        "guidance: float = 3.0\n"
        "n_images: int = 8"
    )
}


def write_notebook(path: Path, *sources: str, tags: dict[int, str] | None = None) -> Path:
    """The path of a notebook with these code cells; `tags` maps a cell's position to its tag."""
    notebook = nbformat.v4.new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        }
    )
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    for position, tag in (tags or {}).items():
        notebook.cells[position].metadata["tags"] = [tag]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def small_clone(root: Path, *sources: str) -> Path:
    """A folder that looks like a clone, with notebook 00 and nothing else; returns the notebook."""
    (root / "pyproject.toml").write_text("")
    return write_notebook(
        root / "notebooks" / "00_orientation.ipynb",
        PARAMETERS["00_orientation"],
        *sources,
        tags={0: "parameters"},
    )
