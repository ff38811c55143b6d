"""Notebooks in a real JupyterLab, driven by mouse and keyboard; run by `make browser`.

Each notebook opens, *Run All Cells* finishes without an error, every control of a widget changes
its figure, by mouse and by keyboard, and a wrong answer to an exercise gets its hint.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Locator, Page

from lab.reach.pages import PATIENCE as PATIENCE_MS
from lab.reach.pages import Report, keep_images, started

PATIENCE = 1800  # seconds that a notebook may take at small parameters, on a busy machine
SETTINGS = {  # every cell is in the page, widgets are saved with it, and no news are asked for
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyter-widgets/jupyterlab-manager/plugin": {"saveState": True},
}
# notebook -> (exercise, a wrong answer, the name of its mistake); what `checks` knows
WRONG = {
    "01": ("soft_maximum", "return torch.logsumexp(lam * logits, dim=-1) / lam",
           "sum instead of mean"),
    "02": ("hardest_hinge", "right = scores.gather(1, positive[:, None])[:, 0]\n"
           "    return torch.relu(scores.amax(1) - right + margin).mean()",
           "among its own rivals"),
    "03": ("to_states", "u = embeddings @ inverse.T\n"
           "    return u / u.norm(dim=-1, keepdim=True)", "unit length"),
    "04": ("joint_score", "return changed.float().mean(1) * kept.all(-1).float().mean(1)",
           "product of two averages"),
    "05": ("elect", "return errors.mean((0, 2)).argmin()", "errors added without a softmax"),
}  # fmt: skip
WIDGET = ".jp-OutputArea .widget-vbox:has(> .widget-hbox)"
RUNNING = """() => [...document.querySelectorAll('.jp-CodeCell')]
  .filter(x => x.querySelector('.jp-InputPrompt').textContent.includes('*')).length"""
DONE = """() => [...document.querySelectorAll('.jp-CodeCell')]
  .filter(x => /\\[\\d+\\]/.test(x.querySelector('.jp-InputPrompt').textContent)).length"""


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Yield the address of a JupyterLab of the course's environment that serves `folder`."""
    own = folder.parent / "jupyter"
    for name, values in SETTINGS.items():
        file = own / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = {"ip": "127.0.0.1", "port": port, "open_browser": False, "root_dir": folder}
    python = os.environ["COURSE_PYTHON"]
    command = [python, "-m", "jupyterlab", "--allow-root", "--IdentityProvider.token="]
    command += [f"--ServerApp.{name}={value}" for name, value in options.items()]
    paths = {"JUPYTERLAB_SETTINGS_DIR": own / "settings", "JUPYTER_CONFIG_DIR": own / "config",
             "JUPYTERLAB_WORKSPACES_DIR": own / "workspaces"}  # fmt: skip
    environment = {**os.environ, **{name: str(path) for name, path in paths.items()}}
    with (folder.parent / "jupyter.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _wait_for(f"{address}/api", process)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(address: str, process: subprocess.Popen, seconds: int = 90) -> None:
    for _ in range(2 * seconds):
        if process.poll() is not None:
            raise RuntimeError("JupyterLab ended at once: see build/browser/jupyter.log")
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"JupyterLab does not answer within {seconds} s")


def run_all(page: Page, report: Report) -> None:
    """Press *Run All Cells* when the kernel is idle, and wait for its end.

    A click that a page under way did not take is repeated: nothing runs then.
    """
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
    start = pressed = time.monotonic()
    press_run_all(page)
    running, done = 0, 0
    while time.monotonic() - start < PATIENCE:
        page.wait_for_timeout(1000)
        running, done = page.evaluate(RUNNING), page.evaluate(DONE)
        if not running and done:
            break
        if not running and time.monotonic() - pressed > 20:
            pressed = time.monotonic()
            press_run_all(page)
    else:
        report.faults.append(f"not finished after {PATIENCE} s: {done} cells are")
    report.counts["cells"] = done
    report.counts["seconds"] = round(time.monotonic() - start)
    for error in page.locator("[data-mime-type='application/vnd.jupyter.error']").all():
        report.faults.append(f"a cell failed: {error.inner_text()[-300:]}")


def press_run_all(page: Page) -> None:
    """Choose *Run All Cells* from the menu."""
    page.keyboard.press("Escape")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()


def saved_stills(page: Page, file: Path) -> None:
    """Save the notebook, with what its widgets show."""
    page.keyboard.press("Escape")
    page.keyboard.press("Control+s")
    page.wait_for_timeout(3000)
    assert file.is_file()


def shown(widget: Locator) -> str:
    """Return the figure that a widget shows, or what it says instead."""
    image = widget.locator("img").last
    return image.get_attribute("src") if image.count() else widget.inner_text()


def changes(widget: Locator, page: Page, before: str, seconds: float = 60) -> str | None:
    """Return the new figure once a widget shows another one than before; None if it does not."""
    for _ in range(int(5 * seconds)):
        now = shown(widget)
        if now != before and now.startswith("data:image"):
            return now
        page.wait_for_timeout(200)
    return None


def slider(widget: Locator, control: Locator, page: Page) -> Iterator[tuple[str, bool]]:
    """Move a slider by keyboard and by mouse; yield what was done, whether the figure changed."""
    handle, track = control.locator(".noUi-handle"), control.locator(".noUi-base")
    at = float(handle.get_attribute("aria-valuenow") or 0)
    highest = float(handle.get_attribute("aria-valuemax") or 1)
    if highest == 0:  # a single entry
        return
    before = shown(widget)
    handle.focus()
    page.keyboard.press("ArrowRight" if at < highest else "ArrowLeft")
    yield "a key", changes(widget, page, before) is not None
    before, box = shown(widget), track.bounding_box()
    now = float(handle.get_attribute("aria-valuenow") or 0)
    end = 0.02 if now > highest / 2 else 0.98
    knob = handle.bounding_box()
    page.mouse.move(knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], box["y"] + box["height"] / 2, steps=8)
    page.mouse.up()
    yield "the mouse", changes(widget, page, before) is not None


def text(widget: Locator, control: Locator, page: Page) -> Iterator[tuple[str, bool]]:
    """Type other words; yield as `slider` does.

    Sliders go to their ends first: where alpha is 0, words change nothing, and rightly so.
    """
    for handle in widget.locator(".noUi-handle").all():
        handle.focus()
        page.keyboard.press("End")
        page.wait_for_timeout(2000)
    before = shown(widget)
    control.locator("input").click()
    page.keyboard.press("Control+a")
    page.keyboard.type("a green object")
    page.keyboard.press("Enter")
    yield "typing", changes(widget, page, before, 240) is not None


def turn_all(page: Page, report: Report) -> None:
    """Turn every control of every widget, and count what was done."""
    for widget in page.locator(WIDGET).all():
        report.counts["widgets"] += 1
        widget.scroll_into_view_if_needed()
        for kind, turn in TURNS.items():
            for control in widget.locator(kind).all():
                name = control.locator(".widget-label").first.inner_text()
                for how, changed in turn(widget, control, page):
                    report.counts["turns"] += 1
                    if not changed:
                        report.faults.append(f"{name}: {how} changes nothing")


TURNS = {".widget-slider": slider, ".widget-text": text}


def wrong_answer(page: Page, number: str, report: Report) -> None:
    """Give a wrong answer three times, by keyboard; each time the check must say more."""
    if number not in WRONG:
        return
    name, body, mistake = WRONG[number]
    cells, call = page.locator(".jp-CodeCell"), f"checks.{name}({name})"
    cell = cells.filter(has_text="your turn").filter(has_text=call).first
    header = re.search(rf"def {name}\(.*\):", cell.locator(".cm-content").inner_text())[0]
    said = []
    for _ in range(3):
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+a")
        page.keyboard.insert_text(f"{header}\n    {body}\n\n\n{call}")
        page.keyboard.press("Shift+Enter")
        page.wait_for_timeout(3000)
        cell = cells.filter(has_text=call).filter(has_text=body[:25]).first
        said.append(cell.locator(".jp-OutputArea-output").first.inner_text().strip())
    report.counts["hints"] = len(set(said))
    longer = len(said[0]) < len(said[1]) < len(said[2])
    if not (said[0].startswith("✗") and mistake in said[0] and longer):
        report.faults.append(f"{name}: the hints are {said}")


def notebooks(folder: Path, output: Path) -> Iterator[Report]:
    """Yield a report of each notebook in `folder`."""
    with server(folder) as address, started() as browser:
        for file in sorted(folder.glob("*.ipynb")):
            report = Report(file.stem)
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.set_default_timeout(PATIENCE_MS)
            page.goto(f"{address}/lab/tree/{file.name}?reset")
            page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
            run_all(page, report)
            saved_stills(page, file)
            first = [shown(widget) for widget in page.locator(WIDGET).all()]
            (output / f"{file.stem}-widgets.json").write_text(json.dumps(first))
            page.screenshot(path=output / f"{file.stem}.png")
            keep_images(page, output / "figures", file.stem, report)
            turn_all(page, report)
            page.screenshot(path=output / f"{file.stem}-turned.png")
            wrong_answer(page, file.stem[:2], report)
            page.screenshot(path=output / f"{file.stem}-hint.png")
            page.close()
            yield report
