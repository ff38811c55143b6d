"""Odd inputs, as a new user would type them: each is taken, or refused in one clear paragraph.

`bad_inputs.csv` has a row for each: the command as a JSON list, what is expected, what a refusal
must say beside the general rules below (parts separated by ` / `), and why, where people may
disagree. Nothing is executed: what a command would start is written down instead.
"""

import csv
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dsd_tutorial.cli import app
from dsd_tutorial.course import running
from lab.__main__ import app as lab

HERE = Path(__file__).parent
with open(HERE / "bad_inputs.csv", encoding="utf-8", newline="") as table:
    CASES = list(csv.DictReader(table))
REMEDIES = (
    "give", "write", "choose", "did you mean", "nearest", "it takes", "restore", "make room",
    "it must", "input should", "--help", "make it with", "known", "usage", "download", "has none",
    "is for", "starts anew", "use ", "requires", "save it", "export them", "dsd-tutorial list",
)  # fmt: skip
YAML = {
    "list": b"- steps\n- 3\n",
    "broken": b"00_orientation: {steps: 3\n",
    "str": b"steps\n",
    "null": b"",
    "no": b"00_orientation:\n  prompt: no\n",
    "exp": b"00_orientation:\n  steps: 1e3\n",
    "num": b"00_orientation:\n  prompt: 3\n",
    "date": b"00_orientation:\n  prompt: 2001-01-01\n",
    "py": b"00_orientation: !!python/object/apply:os.system ['touch pwned']\n",
    "latin": "00_orientation:\n  prompt: ein grüner Kreis\n".encode("latin-1"),
    "bom": b"\xef\xbb\xbf00_orientation:\n  steps: zero\n",
    "misspelt": b"00_orientatoin:\n  steps: 3\n",
    "flat": b"steps: 3\n",
}


def make_clone(root):
    """A folder that looks like a clone, and beside it files of every kind of trouble."""
    notebooks = HERE.parents[1] / "notebooks"
    shutil.copytree(notebooks, root / "notebooks", ignore=shutil.ignore_patterns(".*"))
    (root / "pyproject.toml").write_text("")
    (root / "README.md").write_text("read me")
    first = (root / "notebooks" / "00_orientation.ipynb").read_text(encoding="utf-8")
    contents = {
        "bad/nb/empty": "",
        "zero/00_orientation": "",
        "cells/00_orientation": '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}',
        "text/00_orientation": "hello",
        "three/00_orientation": '{"worksheets": [], "metadata": {}, "nbformat": 3}',
        "half/00_orientation": first[: len(first) // 2],
        "renamed/my own": first,
        "mine/00_orientation": first.replace("picture", "my own picture"),
    }
    scratch = root / "scratch"
    for name, content in contents.items():
        path = scratch / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    for folder in ("folder/00_orientation.ipynb", "nothing", "yaml", "ro"):
        (scratch / folder).mkdir(parents=True)
    for name, content in YAML.items():
        (scratch / "yaml" / f"{name}.yaml").write_bytes(content)
    (scratch / "link").symlink_to(root / "notebooks")


def everything(root):
    """Name -> size and time of every file, to see that nothing was written."""
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        kind = None if path.is_dir() else (status.st_size, status.st_mtime_ns)
        found[path.relative_to(root).as_posix()] = kind
    return found


@pytest.fixture(scope="module")
def clone():
    """The folder; not below pytest's own, which only its owner may enter."""
    root = Path(tempfile.mkdtemp(prefix="clone-")).resolve()
    make_clone(root)
    root.chmod(0o755)
    yield root
    for path in (root, root / "scratch" / "ro"):
        path.chmod(0o755)
    shutil.rmtree(root)


@pytest.fixture
def started(monkeypatch):
    """What would have been executed."""
    calls = []

    def record(path, output, parameters=None, *_, **__):
        calls.append((path, parameters))
        return running.Outcome(path.stem, "ok", 1.0, 1.0, None, str(output), False)

    monkeypatch.setattr(running, "run_notebook", record)
    return calls


def command(arguments, capsys):
    """The exit status and the error stream of a command in this process."""
    if arguments[0] == "running":
        try:
            status = running.main(arguments[1:])
        except SystemExit as stopped:
            status = stopped.code
        return status, capsys.readouterr().err
    result = CliRunner().invoke(lab if arguments[0] == "lab" else app, arguments[1:])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stderr


@pytest.fixture
def nobody(clone):
    """Somebody who may not write in the clone; root may, so root becomes somebody else."""
    import lab.measuring.model  # while everything can still be read
    import lab.measuring.projection  # noqa: F401

    root = hasattr(os, "geteuid") and os.geteuid() == 0
    for path in (clone, clone / "scratch" / "ro"):
        path.chmod(0o555)
    if root:
        os.seteuid(65534)
    yield
    if root:
        os.seteuid(0)
    for path in (clone, clone / "scratch" / "ro"):
        path.chmod(0o755)


def identify(row):
    return f"{row['group']}: {row['case']}".encode("ascii", "backslashreplace").decode()


def test_the_table_is_whole():
    assert len(CASES) >= 400
    assert len({(row["group"], row["case"], row["arguments"]) for row in CASES}) == len(CASES)
    assert {row["expected"] for row in CASES} == {"taken", "refused"}
    assert not [row["case"] for row in CASES if row["expected"] == "refused" and not row["says"]]


@pytest.mark.parametrize("row", CASES, ids=identify)
def test_odd_input(row, clone, started, monkeypatch, capsys, tmp_path, request):
    arguments = json.loads(row["arguments"])
    monkeypatch.chdir(clone)
    monkeypatch.setenv("HOME", str(clone))
    if arguments[0].startswith("cd "):
        monkeypatch.chdir(clone / arguments.pop(0).removeprefix("cd "))
    if row["group"] == "full":
        usage = shutil.disk_usage(clone)._replace(free=300_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    if row["group"] == "readonly":
        if "HOME missing" in row["case"]:
            monkeypatch.delenv("HOME")
        folder = Path(tempfile.mkdtemp(prefix="open-"))
        folder.chmod(0o777)
        request.addfinalizer(lambda: shutil.rmtree(folder))
        arguments = [argument.replace("{open}", str(folder)) for argument in arguments]
        request.getfixturevalue("nobody")
    before = everything(clone)
    if row["expected"] == "taken":
        status, said = command(arguments, capsys)
        assert status == 0, said
        assert started or "export" in arguments
        for name in everything(clone).keys() - before.keys():  # leave it as it was
            path = clone / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return
    status, said = command(arguments, capsys)
    assert status == 2, said
    assert not started and everything(clone) == before
    assert "Traceback" not in said and said.strip()
    assert "\n\n" not in said.strip() or "Usage" in said, "more than one paragraph"
    assert any(word in said.lower() for word in REMEDIES), said
    for part in row["says"].split(" / "):
        assert part in " ".join(said.split()), said
