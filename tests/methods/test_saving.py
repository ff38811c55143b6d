"""Nothing is lost: files appear whole or not at all, and other people's files stay."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from course_files import small_clone, write_notebook

from dsd_tutorial.course import running
from dsd_tutorial.course.running import main, prepare_output
from dsd_tutorial.saving import (
    OutputError,
    Written,
    expanded,
    replacing,
    replacing_in,
    require_writable,
    require_writable_file,
    write_text,
)

root_only = pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 1)() == 0, reason="root may write where others may not"
)


def everything(folder):
    return {p.relative_to(folder).as_posix() for p in Path(folder).rglob("*")}


# -- whole or not at all


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_error_in_the_middle_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises((error, OutputError)):
        with replacing(path) as partial:
            partial.write_text("half of the n")
            raise error
    assert path.read_text() == "old" and everything(tmp_path) == {"result.json"}


def test_a_link_is_followed_and_permissions_stay(tmp_path):
    target, link = tmp_path / "a" / "kept.txt", tmp_path / "link.txt"
    target.parent.mkdir()
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink() and target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_several_files_of_a_library_arrive_together(tmp_path):
    folder = tmp_path / "tokenizer"
    with replacing_in(folder) as partial:
        (partial / "vocab.json").write_text("{}")
        (partial / "merges.txt").write_text("")
        assert {p for p in everything(folder) if "/" not in p} == {partial.name}
    assert everything(folder) == {"vocab.json", "merges.txt"}
    with pytest.raises(RuntimeError):
        with replacing_in(folder) as partial:
            (partial / "vocab.json").write_text("half")
            raise RuntimeError
    assert (folder / "vocab.json").read_text() == "{}"


WRITERS = {
    "text": "from dsd_tutorial.saving import write_text as w; w(path, 'new' * 10_000_000)",
    "tensors": "import torch; from dsd_tutorial.saving import save_tensors as w\n"
    "w({'a': torch.ones(30_000_000)}, path)",
}
SLOW = (
    "import os, sys; real = os.replace\n"
    "def replace(*a):\n    print('now', flush=True); import time; time.sleep(60); real(*a)\n"
    "os.replace = replace; path = sys.argv[1]\n"
)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("kind", WRITERS)
def test_a_killed_writer_leaves_the_old_file(tmp_path, kind):
    path = tmp_path / "result"
    path.write_text("old")
    writer = subprocess.Popen(
        [sys.executable, "-c", SLOW + WRITERS[kind], str(path)], stdout=subprocess.PIPE
    )
    assert writer.stdout.readline() == b"now\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert path.read_text() == "old"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_leaves_the_notebook_of_the_last_one(tmp_path):
    path = write_notebook(tmp_path / "long.ipynb", "print('begun', flush=True)", "while True: pass")
    output = tmp_path / "out" / path.name
    output.parent.mkdir()
    output.write_text("the last run's")
    code = (
        "import sys; from pathlib import Path\n"
        "from dsd_tutorial.course.execution import run_notebook\n"
        "run_notebook(Path(sys.argv[1]), Path(sys.argv[2]), progress=False)"
    )
    runner = subprocess.Popen([sys.executable, "-c", code, path, output], start_new_session=True)
    end = time.time() + 60
    while not list(output.parent.glob(".partial-*")):
        assert time.time() < end
        time.sleep(0.1)
    os.killpg(runner.pid, signal.SIGKILL)
    runner.wait()
    assert output.read_text() == "the last run's"


# -- folders


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("file", "a file is there"),
        ("file/below", "a file is there"),
        ("x" * 300, "too long"),
        ("~nobody123/out", "nobody123"),
    ],
)
def test_a_folder_that_cannot_be_is_refused(tmp_path, monkeypatch, folder, says):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    with pytest.raises(OutputError, match=says):
        require_writable(folder)
    assert everything(tmp_path) == {"file"} and Path("file").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux only")
@pytest.mark.parametrize("folder", ["/dev/null", "/proc/x"])
def test_folders_of_the_system_are_refused(folder):
    with pytest.raises(OutputError, match="cannot write to"):
        require_writable(folder)


@root_only
def test_a_read_only_folder_is_refused(tmp_path):
    (tmp_path / "ro").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="folder of your own"):
        require_writable(tmp_path / "ro" / "out")


def test_a_full_disk_is_seen_before_and_no_folder_is_left(tmp_path):
    with pytest.raises(OutputError, match="make room"):
        require_writable(tmp_path / "a" / "b", room=10**18)
    assert everything(tmp_path) == set()


def test_a_file_that_is_a_folder_is_refused(tmp_path):
    with pytest.raises(OutputError, match="a file is needed"):
        require_writable_file(tmp_path)
    with pytest.raises(OutputError, match="a file is needed"):
        write_text(tmp_path, "x")
    assert require_writable_file(tmp_path / "new.csv") == tmp_path / "new.csv"
    assert everything(tmp_path) == set()


def test_home_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/x") == tmp_path / "x" or sys.platform == "win32"
    with pytest.raises(OutputError, match="in full"):
        expanded("~nobody123")


# -- what a run wrote


def test_only_what_is_ours_and_unchanged_is_removed(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    Written(tmp_path).add(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b").write_text("my own notes")
    gone, kept = Written(tmp_path).remove({"a", "b", "c"})
    assert [p.name for p in gone] == ["a"] and [p.name for p in kept] == ["b"]
    assert (tmp_path / "c").exists()


def test_what_is_not_ours_makes_way(tmp_path):
    path = tmp_path / "01.ipynb"
    path.write_text("mine")
    assert Written(tmp_path).make_way(path).name == "01.kept-1.ipynb"
    path.write_text("mine too")
    assert Written(tmp_path).make_way(path).name == "01.kept-2.ipynb"
    path.write_text("ours")
    Written(tmp_path).add(path)
    assert Written(tmp_path).make_way(path) is None


@pytest.mark.parametrize("content", ["", "[]", '{"files": 3}', "\0", '{"files": {"a": 1}}'])
def test_a_broken_list_makes_nothing_ours(tmp_path, content):
    (tmp_path / Written.NAME).write_text(content)
    (tmp_path / "a").write_text("a")
    assert not Written(tmp_path).ours(tmp_path / "a")


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A clone whose notebook is not really executed: what is written is one line."""
    path = small_clone(tmp_path, "print(steps)")

    def pretend(source, output, *_, **__):
        output.write_text(json.dumps({"cells": [], "metadata": {}, "of": source.name}))
        return running.Outcome(source.stem, "ok", 1.0, 1.0, None, str(output))

    monkeypatch.setattr(running, "run_notebook", pretend)
    monkeypatch.chdir(tmp_path)
    return path


@pytest.mark.parametrize("spelling", ["notebooks", "link", "build/../notebooks", "./notebooks/."])
def test_the_course_is_never_a_target(course, spelling, capsys):
    before = course.read_text()
    Path("link").symlink_to("notebooks")
    Path("build").mkdir()
    for arguments in (["--output", spelling], ["00", "--output", spelling]):
        assert main(arguments) == 2
        assert "holds 00_orientation.ipynb itself" in capsys.readouterr().err
    assert everything("notebooks") == {"00_orientation.ipynb"} and course.read_text() == before


def test_nor_from_inside_its_folder_nor_by_a_second_name(course, monkeypatch):
    before = course.read_text()
    Path("hard").mkdir()
    os.link(course, Path("hard") / course.name)
    assert main(["--output", "hard"]) == 2
    monkeypatch.chdir("notebooks")
    assert main(["--output", "."]) == 2
    assert course.read_text() == before
    with pytest.raises(OutputError):
        prepare_output([course], course.parent)


def test_a_folder_of_somebodys_own_notebooks_is_left_alone(course, capsys):
    mine = Path("mine")
    mine.mkdir()
    for name in ("thesis.ipynb", "00_orientation.ipynb"):
        (mine / name).write_text(f"my {name}")
    assert main(["--output", "mine"]) == 0
    assert "kept as 00_orientation.kept-1.ipynb" in capsys.readouterr().out
    assert (mine / "thesis.ipynb").read_text() == "my thesis.ipynb"
    assert (mine / "00_orientation.kept-1.ipynb").read_text() == "my 00_orientation.ipynb"
    assert main(["--output", "mine"]) == 0  # again: now the result is ours
    assert "kept" not in capsys.readouterr().out
    names = {"00_orientation.ipynb", "00_orientation.kept-1.ipynb", "thesis.ipynb"}
    assert everything(mine) == {*names, "run.json", Written.NAME}


def test_results_of_a_notebook_that_is_no_more_go_unless_changed(course, capsys):
    out = Path("build")
    out.mkdir()
    for name in ("98_old.ipynb", "99_old.ipynb"):
        (out / name).write_text("{}")
    Written(out).add(*out.glob("*.ipynb"))
    (out / "99_old.ipynb").write_text("{} with notes")
    assert main([]) == 0
    assert not (out / "98_old.ipynb").exists() and (out / "99_old.ipynb").exists()
    assert "99_old.ipynb is of no notebook" in capsys.readouterr().out
