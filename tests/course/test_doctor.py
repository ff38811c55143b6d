"""The environment check: each finding has a remedy where something is amiss."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple

import pytest
from course_files import small_clone
from packaging.requirements import Requirement
from typer.testing import CliRunner

from dsd_tutorial import doctor
from dsd_tutorial.cli import app
from dsd_tutorial.doctor import classroom, machine
from dsd_tutorial.doctor.machine import check_clone, check_disk, check_folder, check_home
from dsd_tutorial.doctor.python import (
    check_kernel,
    check_packages,
    check_python,
    check_requirement,
    check_weights,
)


def test_old_python_fails_and_new_one_warns():
    assert check_python((3, 10, 1)).status == "FAIL"
    assert check_python((3, 11, 7)).status == "OK"
    assert check_python((4, 0, 0)).status == "WARN"


def test_packages_of_the_test_environment_are_in_range():
    statuses = {finding.what: finding for finding in check_packages()}
    assert statuses["packages"].status == "OK"


def test_tools_of_developers_are_not_missed(monkeypatch):
    lines = ["numpy>=1", 'no-such-package-here ; extra == "mutants"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: lines)
    assert [finding.seen for finding in check_packages()][:1] == ["1 in their ranges"]
    lines[1] = 'no-such-package-here ; extra == "course"'
    assert [finding.status for finding in check_packages()][:1] == ["WARN"]


def test_absent_and_outdated_packages_come_with_a_command():
    absent = check_requirement(Requirement("no-such-package-here>=1"))
    assert absent.status == "FAIL" and 'pip install "no-such-package-here>=1"' in absent.remedy
    old = check_requirement(Requirement("numpy>=999"))
    assert old.status == "FAIL" and "outside" in old.seen
    extra = check_requirement(Requirement("no-such-package-here ; extra == 'test'"))
    assert extra.status == "WARN"
    assert check_requirement(Requirement("numpy>=1")) is None


def test_missing_weights_fail_with_a_remedy(tmp_path):
    finding = check_weights(tmp_path)
    assert finding.status == "FAIL" and "python -m lab train" in finding.remedy


def test_changed_weights_fail(tmp_path):
    for part in ("vae", "unet", "text_encoder", "clip", "scheduler", "tokenizer"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text("{}")
        stem = "diffusion_pytorch_model" if part in ("vae", "unet") else "model"
        (tmp_path / part / f"{stem}.safetensors").write_bytes(b"weights")
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{}")
    (tmp_path / "checksums.json").write_text(
        json.dumps({"vae/diffusion_pytorch_model.safetensors": "0" * 64})
    )
    finding = check_weights(tmp_path)
    assert finding.status == "FAIL" and "SHA-256" in finding.remedy


def test_kernel_of_this_environment_is_found():
    assert check_kernel().status == "OK"


def test_the_working_folder(tmp_path, monkeypatch, nobody):
    monkeypatch.chdir(tmp_path)
    assert check_folder().status == "OK"
    tmp_path.chmod(0o555)
    with nobody():
        finding = check_folder()
    tmp_path.chmod(0o755)
    assert finding.status == "WARN" and str(tmp_path) in finding.seen
    assert "--output FOLDER" in finding.remedy
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert check_folder().status == "FAIL"
    monkeypatch.chdir(tmp_path)


def test_a_folder_that_is_gone_ends_the_examination_in_words(tmp_path):
    """torch cannot start there, so nothing after the folder is looked at."""
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"import os; os.rmdir({str(gone)!r}); from dsd_tutorial import doctor; "
    command += "print(*doctor.examine(), sep=chr(10))"
    done = subprocess.run([sys.executable, "-c", command], cwd=gone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cd into a folder that exists" in done.stdout and "packages" not in done.stdout


def test_a_read_only_checkout_is_a_warning_with_two_ways_out(tmp_path, nobody):
    assert list(check_clone(tmp_path)) == []
    tmp_path.chmod(0o555)
    with nobody():
        (finding,) = check_clone(tmp_path)
    tmp_path.chmod(0o755)
    assert finding.status == "WARN"
    assert "export FOLDER" in finding.remedy and "--output" in finding.remedy


def test_the_home_folder(public, monkeypatch, nobody):
    monkeypatch.setenv("HOME", str(public))
    assert check_home().status == "OK"
    public.chmod(0o555)
    with nobody():
        finding = check_home()
    public.chmod(0o755)
    assert finding.status == "WARN" and "takes no files" in finding.seen
    assert "HOME" in finding.remedy
    monkeypatch.setenv("HOME", str(public / "absent"))
    finding = check_home()
    assert finding.status == "WARN" and "is not there" in finding.seen
    monkeypatch.setenv("HOME", "relative")
    assert check_home().status == "FAIL"
    monkeypatch.setenv("HOME", "")
    assert check_home().status in ("WARN", "FAIL")  # what the system takes for it differs
    monkeypatch.delenv("HOME")
    assert check_home().status == "WARN" and "is not set" in check_home().seen


def test_no_user_and_no_home_is_a_failure_with_a_remedy(monkeypatch):
    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(machine.Path, "home", unknown)
    finding = check_home()
    assert finding.status == "FAIL" and "HOME" in finding.remedy


@pytest.mark.parametrize("full", ["here", "for temporary files"])
def test_a_full_disk_is_said_with_its_place(tmp_path, monkeypatch, full):
    monkeypatch.chdir(tmp_path)
    usage = namedtuple("usage", "total used free")
    temporary = tempfile.gettempdir()

    def measured(folder):
        is_full = (str(folder) == temporary) == (full == "for temporary files")
        return usage(10**12, 0, 1000 if is_full else 10**11)

    monkeypatch.setattr(shutil, "disk_usage", measured)
    finding = check_disk()
    assert finding.status == "FAIL" and full in finding.seen and "make room" in finding.remedy
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**12, 0, 5 * 10**8))
    assert check_disk().status == "WARN"
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**12, 0, 10**11))
    assert check_disk().status == "OK"


def test_a_check_that_fails_itself_does_not_end_the_others(monkeypatch):
    def broken():
        raise ZeroDivisionError("odd machine")

    monkeypatch.setattr(doctor, "check_memory", broken)
    found = {finding.what: finding for finding in doctor.examine()}
    assert found["memory"].status == "FAIL" and "odd machine" in found["memory"].seen
    assert found["kernel"].status == "OK"


# -- a class of N people --------------------------------------------------------------------------


def test_memory_for_a_class_is_counted_in_kernels():
    few, many = classroom.check_kernels(1, 16_000), classroom.check_kernels(30, 16_000)
    assert few.status == "OK" and many.status == "FAIL"
    assert "30 are wanted" in many.seen and "GB in all" in many.remedy
    assert classroom.check_kernels(30, 200_000).status == "OK"


def test_waiting_grows_with_people_and_falls_with_cores():
    assert classroom.check_waiting(1, 2).status == "OK"
    found = classroom.check_waiting(30, 4)
    assert found.status == "WARN" and "quick.yaml" in found.remedy
    assert classroom.check_waiting(30, 64).status == "OK"


def test_fonts_and_ports_of_this_machine(monkeypatch):
    assert classroom.check_fonts().status == "OK"
    assert classroom.check_ports(3).status in ("OK", "WARN")
    with classroom.socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(classroom, "LAB_PORT", server.getsockname()[1])
        found = classroom.check_ports(1)
    assert found.status == "WARN" and "--port" in found.remedy


def test_no_browser_is_a_warning(monkeypatch):
    monkeypatch.setattr(classroom.shutil, "which", lambda name: None)
    monkeypatch.setattr(classroom.webbrowser, "get", _no_browser)
    assert classroom.check_browser().status == "WARN"


def _no_browser():
    raise classroom.webbrowser.Error("none")


def test_first_cells_end_where_the_model_is_loaded():
    cells = [{"cell_type": "code", "source": s} for s in ("a = 1", "sd = load_model(a)", "b = 2")]
    assert len(classroom.first_cells({"cells": cells})["cells"]) == 2


def test_first_cells_that_fail_are_told_in_one_line(tmp_path):
    path = small_clone(tmp_path, "raise ValueError('no such thing')", "load_model(1)")
    found = classroom.try_first_cells(path)
    assert found.status == "FAIL" and "no such thing" in found.seen and "\n" not in found.seen


def test_the_room_is_told_as_json(monkeypatch):
    findings = [doctor.Finding("OK", "a", "b"), doctor.Finding("FAIL", "c", "d", "e")]
    monkeypatch.setattr(doctor, "examine", lambda deep: iter(findings))
    monkeypatch.setattr(doctor, "examine_room", lambda people: iter(findings[:people]))
    done = CliRunner().invoke(app, ["doctor", "--workshop", "1", "--json"])
    told = json.loads(done.output)
    assert done.exit_code == 1 and [one["status"] for one in told] == ["OK", "FAIL", "OK"]
    assert told[1] == {"status": "FAIL", "what": "c", "seen": "d", "remedy": "e"}
