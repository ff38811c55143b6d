"""Tools that book and slides need and the course does not, each in its own place below build/.

`book_python()` makes build/venvs/book from requirements.txt, `node_package()` build/node from
package.json; both do so once, and again where those files have changed. Chromium is the system's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lab.upkeep.blocks import ROOT

HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build"
ENVIRONMENT, NODE = BUILD / "venvs" / "book", BUILD / "node"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge")
NO_NPM = (
    "npm is not here, which fetches what the pages hold (reveal.js, axe-core): install Node.js 18 "
    "or newer (`apt-get install npm`, `brew install node`, nodejs.org) and repeat."
)
NO_BROWSER = (
    "No Chromium is here, in which the pages are tried: install one (`apt-get install chromium`, "
    "`brew install chromium`) or name one in the variable CHROMIUM, and repeat."
)


class MissingTool(RuntimeError):
    """A tool that is no part of the course is not here; the message says how to get it."""


def book_python() -> Path:
    """Return the interpreter of the book's environment, which is made where it is not current."""
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def make() -> None:
        print("Creating build/venvs/book (once; about 400 MB)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", HERE / "requirements.txt"], check=True)

    _once(ENVIRONMENT / "installed.txt", HERE / "requirements.txt", make)
    return python


def node_package(name: str) -> Path:
    """Return the folder of an npm package that package.json names.

    Raises MissingTool where it must be fetched and npm is not there.
    """

    def fetch() -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise MissingTool(NO_NPM)
        print("Fetching reveal.js and axe-core into build/node (once)", flush=True)
        shutil.rmtree(NODE, ignore_errors=True)
        NODE.mkdir(parents=True)
        shutil.copy(HERE / "package.json", NODE)
        quiet = ("--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
        subprocess.run([npm, "install", *quiet], cwd=NODE, check=True)

    _once(NODE / "installed.txt", HERE / "package.json", fetch)
    return NODE / "node_modules" / name


def _once(stamp: Path, wanted: Path, make: Callable[[], None]) -> None:
    """Call `make` unless the stamp says that it was done for this very file, in this place."""
    key = hashlib.sha256(
        f"{stamp}\n{sys.version}\n{wanted.read_text('utf-8')}".encode()
    ).hexdigest()
    if not stamp.is_file() or stamp.read_text("utf-8") != key:
        make()
        stamp.write_text(key, encoding="utf-8")


def chromium() -> str:
    """Return the path of the system's Chromium, or of what the variable CHROMIUM names.

    Raises MissingTool where there is none.
    """
    names = [os.environ["CHROMIUM"]] if os.environ.get("CHROMIUM") else BROWSERS
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise MissingTool(NO_BROWSER)
    return found
