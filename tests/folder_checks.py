"""What must hold for every model folder this repository writes, the embedded one included."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

PLAIN = """
import socket, sys
def refuse(*_): raise SystemExit("touched the network")
socket.socket.connect = refuse
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel
folder = sys.argv[1]
pipe = StableDiffusionPipeline.from_pretrained(folder)
pipe.set_progress_bar_config(disable=True)
images = pipe(["a red circle", ""], num_inference_steps=2, output_type="pt").images
assert images.shape[:2] == (2, 3) and images.isfinite().all()
parts = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel,
         "clip": CLIPModel}
for name, kind in parts.items():
    model, info = kind.from_pretrained(folder + "/" + name, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], (name, info)
    assert {p.dtype for p in model.parameters()} == {torch.float32}, name
ids = pipe.tokenizer("a", padding="max_length").input_ids
assert len(ids) == pipe.text_encoder.config.max_position_embeddings
assert ids[-1] == pipe.tokenizer.eos_token_id
assert "dsd_tutorial" not in sys.modules
"""


def run_plain(folder: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def weights(folder: Path) -> list[tuple[str, Path]]:
    return [(path.parent.name, path) for path in sorted(folder.glob("*/*.safetensors"))]


def text_towers_are_equal(folder: Path) -> bool:
    text = load_file(folder / "text_encoder/model.safetensors")
    clip = load_file(folder / "clip/model.safetensors")
    tower = {k: v for k, v in clip.items() if k.startswith("text_model.")}
    return tower.keys() == text.keys() and all(torch.equal(tower[k], text[k]) for k in text)
