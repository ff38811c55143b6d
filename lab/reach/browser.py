"""`make browser`: the book, the slides and the live notebooks in the system's Chromium.

Every page of build/book and every deck of build/slides is opened with the network cut; every
notebook runs in JupyterLab at small parameters, and its controls are turned by mouse and keyboard.
Reports and pictures of all pages and figures stay in build/browser. Where there is no Chromium it
says so and ends well.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from lab.reach.tools import BUILD, ROOT, MissingTool, book_python, chromium, node_package

OUTPUT = BUILD / "browser"
WIDGETS = """from dsd_tutorial.course import browse, record_attention
from dsd_tutorial.shapes import full_description, random_scenes, render
from dsd_tutorial.stable_diffusion import load_model

sd, (scene,) = load_model("shapes-sd"), random_scenes(1, seed=3)
text = full_description(scene).text()
record_attention(sd, render([scene], sd.resolution)[0][0], text, steps=[400, 700]).explore()
"""


def in_browser(what: str, *paths: Path) -> int:
    """Return the status of one trial, run where playwright is. Raises MissingTool."""
    chromium()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COURSE_PYTHON": sys.executable}
    command = [book_python(), "-m", "lab.reach.trial", what, *paths]
    return subprocess.call([str(part) for part in command], cwd=ROOT, env=environment)


def live_copies(folder: Path) -> None:
    """Write the notebooks with small parameters, and one with the widgets they leave out."""
    import nbformat
    import papermill

    from dsd_tutorial.course.notebooks import all_notebooks
    from dsd_tutorial.course.parameters import quick_values
    from lab.upkeep.strip import KERNEL

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for notebook in all_notebooks():
        papermill.execute_notebook(
            str(notebook.path), str(folder / notebook.path.name), quick_values(notebook.name),
            prepare_only=True, progress_bar=False, kernel_name="python3", language="python",
        )  # fmt: skip
    cells = [nbformat.v4.new_code_cell(WIDGETS)]
    extra = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    nbformat.write(extra, folder / "widgets.ipynb")


def wrong_stills(folder: Path, output: Path) -> int:
    """Return how many notebooks' saved widgets, as the book takes them, are not what was shown."""
    from lab.reach.executed import widget_html

    wrong = 0
    for file in sorted(folder.glob("*.ipynb")):
        shown = json.loads((output / f"{file.stem}-widgets.json").read_text("utf-8"))
        cells = json.loads(file.read_text("utf-8"))["cells"]
        stills = (widget_html(file, cell.get("outputs", [])) for cell in cells)
        saved = [still for still in stills if still]
        agree = len(saved) == len(shown) and all(
            image in still for still, image in zip(saved, shown, strict=True)
        )
        print(f"{'ok' if agree else 'FAULTS':7} {file.stem}: {len(saved)} stills, as shown live")
        wrong += not agree
    return wrong


def main() -> int:
    """The exit status: 1 where a page, a deck or a notebook has a fault."""
    parser = argparse.ArgumentParser(prog="make browser", description=__doc__)
    parser.add_argument("parts", nargs="*", help="book, slides, notebooks (default: all three)")
    folders = {"book": BUILD / "book", "slides": BUILD / "slides", "notebooks": OUTPUT / "live"}
    parts = parser.parse_args().parts or [*folders]
    try:
        chromium()
    except MissingTool as error:
        print(f"skipped: {error}")
        return 0
    missing = [part for part in parts if part != "notebooks" and not folders[part].is_dir()]
    if missing:
        print(f"build/{missing[0]} is not there: run `make {' '.join(missing)}` first.")
        return 2
    try:
        node_package("axe-core")
        if "notebooks" in parts:
            live_copies(folders["notebooks"])
        found = [in_browser(part, folders[part], OUTPUT / part) for part in parts]
    except MissingTool as error:
        print(error, file=sys.stderr)
        return 2
    if "notebooks" in parts:
        found.append(wrong_stills(folders["notebooks"], OUTPUT / "notebooks"))
    print(f"Reports and pictures: {OUTPUT.relative_to(ROOT)}")
    return int(any(found))


if __name__ == "__main__":
    sys.exit(main())
