"""Weights are data: a pickle is never opened, wherever it lies, and the way out is named."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dsd_tutorial.stable_diffusion import load_model
from dsd_tutorial.stable_diffusion.registry import MissingModelError, UnsafeWeightsError

PARTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "pytorch_model",
    "clip": "pytorch_model",
}


UNPICKLE = {"pickle", "joblib", "dill", "shelve"}


class Poison:
    """Unpickling it writes a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def folder(tiny, tmp_path):
    tiny.save(tmp_path / "model")
    return tmp_path / "model"


def poison(path: Path, trace: Path) -> None:
    path.write_bytes(pickle.dumps(Poison(trace)))


def test_the_poison_works(tmp_path):
    poison(tmp_path / "x.bin", tmp_path / "trace")
    pickle.loads((tmp_path / "x.bin").read_bytes())
    assert (tmp_path / "trace").exists()


def test_poisoned_pickles_beside_good_weights_are_not_opened(folder, tiny, tmp_path):
    for part, stem in PARTS.items():
        for ending in (".bin", ".ckpt", ".pt", ".fp16.bin"):
            poison(folder / part / f"{stem}{ending}", tmp_path / "trace")
    poison(folder / "model.ckpt", tmp_path / "trace")
    model = load_model(folder, device="cpu")
    assert model.unet.config.in_channels == tiny.unet.config.in_channels
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("ending", [".bin", ".ckpt"])
def test_a_part_with_only_a_pickle_is_refused(folder, tmp_path, part, ending):
    for weights in (folder / part).glob("*.safetensors"):
        weights.unlink()
    (folder / "checksums.json").unlink()
    poison(folder / part / f"{PARTS[part]}{ending}", tmp_path / "trace")
    with pytest.raises(UnsafeWeightsError, match="only safetensors.*use_safetensors=False"):
        load_model(folder, device="cpu")
    assert not (tmp_path / "trace").exists()


def test_clip_towers_with_only_a_pickle_are_refused(folder, tmp_path):
    towers = tmp_path / "towers"
    shutil.copytree(folder / "clip", towers)
    (towers / "model.safetensors").unlink()
    poison(towers / "pytorch_model.bin", tmp_path / "trace")
    with pytest.raises(UnsafeWeightsError, match="CLIPModel"):
        load_model(folder, device="cpu", clip=towers)
    (folder / "clip" / "model.safetensors").unlink()
    (folder / "checksums.json").unlink()
    poison(folder / "clip" / "pytorch_model.bin", tmp_path / "trace")
    assert load_model(folder, device="cpu").clip is None
    assert not (tmp_path / "trace").exists()


def test_the_command_that_is_named_converts(folder, tmp_path):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pickled = tmp_path / "pickled"
    pipe.save_pretrained(pickled, safe_serialization=False)
    if list(pickled.rglob("*.safetensors")):  # transformers 5 writes nothing else
        for path in (pickled / "text_encoder").glob("*.safetensors"):
            torch.save(pipe.text_encoder.state_dict(), path.with_name("pytorch_model.bin"))
            path.unlink()
    with pytest.raises(MissingModelError) as refused:
        load_model(pickled, device="cpu")
    command = str(refused.value).split("convert it once: ")[1]
    command = command.replace("python ", f"{sys.executable} ", 1)
    subprocess.run(command, shell=True, check=True, capture_output=True)
    model = load_model(f"{pickled}-safetensors", device="cpu")
    for one, other in zip(
        model.unet.parameters(), pipe.unet.to(torch.float32).parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_nothing_in_the_package_unpickles():
    """`torch.load` is always told weights_only=True; pickle, joblib and numpy's are not used.

    One exception: RefCOCOg's official file is a pickle. Its reader refuses every global name.
    """
    import ast

    harmless = "refcocog.py"

    root = Path(__file__).resolve().parents[3]
    for path in [*(root / "dsd_tutorial").rglob("*.py"), *(root / "tools").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert path.name == harmless or not names & UNPICKLE, path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = [k for k in node.keywords if k.arg == "weights_only"]
                assert safe and ast.unparse(safe[0].value) == "True", f"{path}:{node.lineno}"
            if isinstance(node, ast.Call):
                assert not any(
                    k.arg == "allow_pickle" and ast.unparse(k.value) == "True"
                    for k in node.keywords
                ), f"{path}:{node.lineno}"
