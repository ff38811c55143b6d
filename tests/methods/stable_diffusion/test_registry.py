"""Names: found, guessed, refused with a remedy. Nothing here loads a model."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dsd_tutorial.stable_diffusion.registry import (
    EMBEDDED_FOLDER,
    REGISTRY,
    MissingModelError,
    ModelEntry,
    Source,
    UnknownModelError,
    find_entry,
    list_models,
    missing_message,
    resolve,
)


def test_the_registry_is_complete():
    assert list(REGISTRY) == ["shapes-sd", "sd-1.4", "sd-1.5", "sd-2.1-base"]
    assert list_models()[0].kind == "embedded" and list_models()[0].licence == "MIT"
    for entry in list_models()[1:]:
        assert (
            entry.kind == "hub"
            and entry.clip_repo
            and "OpenRAIL" in entry.licence.replace("Open RAIL", "OpenRAIL")
        )
        for source in (*entry.sources, entry.clip_repo):
            assert re.fullmatch(r"[\w.-]+/[\w.-]+", source.repo_id)
            assert source.revision is None or re.fullmatch(r"[0-9a-f]{40}", source.revision)
        revisions = [source.revision for source in entry.sources]
        assert None not in revisions or "revision" in entry.notes  # an open one is said


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shapes-sd", "shapes-sd"),
        (" SD-1.5 ", "sd-1.5"),
        ("runwayml/stable-diffusion-v1-5", "sd-1.5"),
        ("CompVis/stable-diffusion-v1-4", "sd-1.4"),
        ("stabilityai/stable-diffusion-2-1-base", "sd-2.1-base"),
    ],
)
def test_a_name_or_any_of_its_repositories_is_found(name, expected):
    assert find_entry(name).name == expected
    assert resolve(name)[0] is REGISTRY[expected]


def test_the_embedded_model_by_name_and_by_folder(tmp_path, monkeypatch):
    assert resolve("shapes-sd") == (REGISTRY["shapes-sd"], EMBEDDED_FOLDER)
    monkeypatch.setattr("dsd_tutorial.stable_diffusion.registry.EMBEDDED_FOLDER", tmp_path)
    assert resolve(tmp_path) == (REGISTRY["shapes-sd"], tmp_path)


def test_a_folder_and_an_unregistered_hub_id(tmp_path, monkeypatch):
    (tmp_path / "sd-1.5").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("sd-1.5")[1] is None  # a registered name wins
    entry, folder = resolve("./sd-1.5")
    assert (entry.kind, entry.name, folder) == ("folder", "sd-1.5", Path("sd-1.5"))
    entry, folder = resolve("someone/some-model")
    assert (entry.kind, entry.repo_id, folder) == ("hub", "someone/some-model", None)


@pytest.mark.parametrize(("typo", "nearest"), [("sd1.5", "sd-1.5"), ("shape-sd", "shapes-sd")])
def test_a_typo_names_the_nearest_and_how_to_list(typo, nearest):
    with pytest.raises(UnknownModelError, match=f"{typo}.*Nearest: .*{nearest}") as caught:
        resolve(typo)
    assert "list_models()" in str(caught.value) and isinstance(caught.value, ValueError)


def test_a_name_like_nothing_lists_all():
    with pytest.raises(UnknownModelError, match="Known: shapes-sd, sd-1.4"):
        resolve("%%%%")


@pytest.mark.parametrize("path", ["./nowhere", "/no/such/folder", "~/no-such-model-folder"])
def test_a_path_that_is_not_there_says_where_it_looked(path):
    with pytest.raises(MissingModelError, match=re.escape(str(Path(path).expanduser().name))):
        resolve(path)
    with pytest.raises(MissingModelError, match="model_index.json"):
        resolve(Path(path))


def test_missing_files_name_folder_and_command():
    message = missing_message(REGISTRY["sd-1.5"], "/cache", "unet weights")
    assert "/cache" in message and "download=True" in message and "OpenRAIL" in message
    assert "hf download stable-diffusion-v1-5/stable-diffusion-v1-5 --revision 451f4f" in message
    embedded = missing_message(REGISTRY["shapes-sd"], EMBEDDED_FOLDER, "unet weights")
    assert "python -m lab train" in embedded and "reinstall" in embedded
    own = missing_message(ModelEntry("mine", "folder"), "/mine", "unet weights")
    assert "model_index.json" in own and "/mine" in own


def test_fetch_command_without_a_revision():
    assert Source("a/b").fetch_command == "hf download a/b"


def test_checking_a_name_imports_no_heavy_library():
    code = (
        "import sys, dsd_tutorial.stable_diffusion.registry as r; r.resolve('sd-1.5');"
        "assert not {'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
