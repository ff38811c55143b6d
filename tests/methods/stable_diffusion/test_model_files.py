"""Folders: written, read back, refused when incomplete or changed; the cache; no network."""

import json
import os
from pathlib import Path

import pytest
import torch
from folder_checks import run_plain, text_towers_are_equal, weights
from safetensors.torch import load_file, save_file

from dsd_tutorial.saving import file_sha256
from dsd_tutorial.stable_diffusion import load_model
from dsd_tutorial.stable_diffusion.checksums import combined_sha256, part_weights
from dsd_tutorial.stable_diffusion.registry import (
    REGISTRY,
    ChecksumError,
    IncompleteWeightsError,
    MissingModelError,
)

TEXTS = ["a red circle left of a blue square", ""]
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-sd"
    (folder).mkdir()
    (folder / "README.md").write_text("a card")
    tiny.save(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """A folder to spoil."""
    import shutil

    return Path(shutil.copytree(saved, tmp_path / "copy"))


def same_weights(one, other) -> bool:
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# -- round trip ------------------------------------------------------------------------------------


def test_round_trip(tiny, saved):
    model = load_model(saved, device="cpu")
    assert torch.equal(model.tokenize(TEXTS), tiny.tokenize(TEXTS))
    for part in ("text_encoder", "clip"):
        assert same_weights(getattr(model, part), getattr(tiny, part))
    # equal weights at another address in memory: kernels may round the last bit differently
    assert torch.allclose(model.encode_text(TEXTS), tiny.encode_text(TEXTS), atol=1e-6)
    clip_text = tiny.encode_clip_text(TEXTS)
    assert torch.allclose(model.encode_clip_text(TEXTS), clip_text, atol=1e-6)
    images = torch.rand(2, 3, 64, 64)
    seen = model.encode_clip_image(images).embedding
    assert torch.allclose(seen, tiny.encode_clip_image(images).embedding, atol=1e-6)
    # stored in half precision: close, and float32 again
    noisy, context = torch.randn(2, 4, 16, 16), tiny.encode_text(TEXTS)
    assert model.unet.dtype == model.vae.dtype == torch.float32
    noise = tiny.predict_noise(noisy, 300, context)
    assert torch.allclose(model.predict_noise(noisy, 300, context), noise, atol=1e-2)
    assert torch.allclose(model.encode_image(images), tiny.encode_image(images), atol=1e-2)
    assert model.scheduler.config.beta_end == tiny.scheduler.config.beta_end
    assert model.name == "tiny-sd" and model.folder == saved


def test_what_is_stored(saved):
    """fp16 only where diffusers loads it as fp32 again; the prefixed spelling of text keys."""
    types = {part: {t.dtype for t in load_file(path).values()} for part, path in weights(saved)}
    assert types["unet"] == types["vae"] == {torch.float16}
    assert types["text_encoder"] == types["clip"] == {torch.float32}
    text = load_file(saved / "text_encoder/model.safetensors")
    assert all(name.startswith("text_model.") for name in text)
    assert (saved / "README.md").read_text() == "a card"
    assert json.loads((saved / "checksums.json").read_text()) == {
        path.relative_to(saved).as_posix(): file_sha256(path) for _, path in weights(saved)
    }
    if os.name == "posix":
        assert all(path.stat().st_mode & 0o444 == 0o444 for _, path in weights(saved))


def test_text_tower_of_clip_is_the_text_encoder(saved):
    assert text_towers_are_equal(saved)


def test_full_precision_on_request(tiny, tmp_path):
    tiny.save(tmp_path, dtype_unet=torch.float32)
    model = load_model(tmp_path)
    assert same_weights(model.unet, tiny.unet) and same_weights(model.vae, tiny.vae)
    # the digests follow the content, and saving the same weights again changes nothing
    before = model.sha256
    model.save(tmp_path, dtype_unet=torch.float32)  # over the files it is mapped from
    assert load_model(tmp_path).sha256 == before


def test_one_digest_for_a_model(saved):
    model = load_model(saved)
    listed = json.loads((saved / "checksums.json").read_text())
    assert model.checksums == listed
    assert model.sha256 == combined_sha256(listed) and len(model.sha256) == 64
    assert combined_sha256({**listed, UNET: "0" * 64}) != model.sha256


def test_precision_and_names_of_it(saved):
    assert load_model(saved, dtype="bfloat16").unet.dtype == torch.bfloat16
    assert load_model(saved, dtype=torch.float16).vae.dtype == torch.float16
    with pytest.raises(ValueError, match="float64.*float32, float16, bfloat16"):
        load_model(saved, dtype="float64")


# -- spoiled folders -------------------------------------------------------------------------------


def test_a_changed_file(copy):
    raw = bytearray((copy / UNET).read_bytes())
    raw[-1] ^= 1
    (copy / UNET).write_bytes(bytes(raw))
    with pytest.raises(ChecksumError, match=r"unet.*expected SHA-256 [0-9a-f]{64}, found"):
        load_model(copy)


def test_a_file_that_is_not_listed(copy):
    listing = json.loads((copy / "checksums.json").read_text())
    del listing["clip/model.safetensors"]
    (copy / "checksums.json").write_text(json.dumps(listing))
    with pytest.raises(ChecksumError, match="not listed"):
        load_model(copy)


@pytest.mark.parametrize(
    "missing", ["model_index.json", UNET, "vae/config.json", "clip/model.safetensors", "tokenizer"]
)
def test_a_missing_file(copy, missing):
    if (copy / missing).is_dir():
        (copy / missing).rename(copy / "elsewhere")
    else:
        (copy / missing).unlink()
    with pytest.raises(MissingModelError) as caught:
        load_model(copy)
    assert str(copy) in str(caught.value) and missing.split("/")[0] in str(caught.value)


def test_missing_tensors_are_never_random(copy):
    (copy / "checksums.json").unlink()
    for part in ("unet", "text_encoder"):
        path = part_weights(copy / part, r"(diffusion_pytorch_)?model")[0]
        whole = load_file(path)
        dropped = sorted(whole)[0]
        save_file({k: v for k, v in whole.items() if k != dropped}, path, {"format": "pt"})
        with pytest.raises(IncompleteWeightsError, match=r"1 tensors .*missing"):
            load_model(copy)
        save_file(whole, path, {"format": "pt"})
    load_model(copy)


def test_a_folder_without_clip_loads_and_takes_one(copy, saved):
    (copy / "checksums.json").unlink()
    (copy / "clip" / "model.safetensors").unlink()
    bare = load_model(copy)
    assert bare.clip is None and bare.image_processor is None
    with pytest.raises(ValueError, match="without CLIP"):
        bare.encode_clip_text("a")
    assert load_model(copy, clip=saved / "clip").encode_clip_text("a").shape == (1, 32)
    with pytest.raises(MissingModelError, match="holds no CLIP"):
        load_model(copy, clip=copy)


def test_the_embedded_model_missing(monkeypatch, tmp_path):
    monkeypatch.setattr("dsd_tutorial.stable_diffusion.registry.EMBEDDED_FOLDER", tmp_path)
    with pytest.raises(MissingModelError, match="python -m lab train") as caught:
        load_model()
    assert str(tmp_path) in str(caught.value)


# -- the hub, offline ------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def put(cache: Path, repo_id: str, revision: str, content: Path) -> Path:
    import shutil

    snapshot = cache / f"models--{repo_id.replace('/', '--')}" / "snapshots" / revision
    snapshot.parent.mkdir(parents=True)
    return Path(shutil.copytree(content, snapshot))


def test_nothing_is_fetched_without_being_asked(cache, monkeypatch):
    requested = []

    def snapshot_download(repo_id, **options):
        requested.append((repo_id, options["local_files_only"]))
        raise OSError("not here")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(MissingModelError, match="Nothing is downloaded without being asked") as e:
        load_model("sd-1.5")
    assert requested == [(source.repo_id, True) for source in REGISTRY["sd-1.5"].sources]
    assert "hf download" in str(e.value) and str(cache) in str(e.value)
    requested.clear()
    with pytest.raises(MissingModelError):
        load_model("sd-2.1-base", download=True)
    assert requested == [(source.repo_id, False) for source in REGISTRY["sd-2.1-base"].sources]


def test_a_cached_mirror_is_found_with_its_clip(cache, saved):
    mirror = REGISTRY["sd-1.5"].mirrors[0]
    snapshot = put(cache, mirror.repo_id, mirror.revision, saved)
    (snapshot / "checksums.json").unlink()
    (snapshot / "clip" / "model.safetensors").unlink()
    model = load_model("sd-1.5")
    assert model.folder == snapshot and model.clip is None and model.entry.name == "sd-1.5"
    towers = model.entry.clip_repo
    put(cache, towers.repo_id, towers.revision, saved / "clip")
    assert load_model("sd-1.5").encode_clip_text("a").shape == (1, 32)


def test_an_incomplete_copy_in_the_cache_is_said(cache, saved):
    source = REGISTRY["sd-1.4"].sources[0]
    (put(cache, source.repo_id, source.revision, saved) / UNET).unlink()
    with pytest.raises(MissingModelError, match="unet weights is missing"):
        load_model("sd-1.4")


def test_plain_diffusers_loads_and_samples(saved):
    run_plain(saved)
