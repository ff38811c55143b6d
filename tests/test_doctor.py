"""The environment check: each finding has a remedy where something is amiss."""

import json

from packaging.requirements import Requirement

from dsd_tutorial.doctor import (
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
    assert finding.status == "FAIL" and "dsd-tutorial train" in finding.remedy


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
