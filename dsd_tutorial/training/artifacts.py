"""Writes what was trained as an ordinary diffusers pipeline folder, and reads parts of it back.

Layout: model_index.json, vae/, unet/, text_encoder/, tokenizer/, scheduler/ and, beside the
pipeline, clip/ with the whole CLIP. `checksums.json` holds the SHA-256 of every weights file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

PIPELINE = {
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "scheduler": ("diffusers", "DDIMScheduler"),
}


def sha256(file: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write_checksums(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every safetensors file below `folder`, also written there."""
    folder = Path(folder)
    sums = {p.relative_to(folder).as_posix(): sha256(p) for p in folder.rglob("*.safetensors")}
    sums = dict(sorted(sums.items()))
    (folder / "checksums.json").write_text(json.dumps(sums, indent=2) + "\n")
    return sums


def load_tokenizer(folder: Path):
    """The tokenizer in `folder`; FileNotFoundError that names the command which makes it."""
    from transformers import CLIPTokenizer

    folder = _need(folder, "tokenizer")
    return CLIPTokenizer.from_pretrained(folder)


def load_part(folder: Path, name: str):
    """`vae`, `unet`, `clip` or `text_encoder` of a model folder in fp32, frozen, in eval mode."""
    if name == "vae":
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL as kind
    elif name == "unet":
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel as kind
    elif name == "clip":
        from transformers import CLIPModel as kind
    else:
        from transformers import CLIPTextModel as kind
    model = kind.from_pretrained(_need(folder, name), use_safetensors=True)
    return model.float().requires_grad_(False).eval()


def _need(folder: Path, name: str) -> Path:
    path = Path(folder) / name
    if not path.is_dir():
        stage = {"vae": "autoencoder", "text_encoder": "clip"}.get(name, name)
        raise FileNotFoundError(
            f"{path} does not exist; make it with: dsd-tutorial train {stage} --output {folder}"
        )
    return path


def write_autoencoder(vae, output: Path) -> None:
    """<output>/vae in fp16, which diffusers reads back as fp32."""
    _half_copy(vae).save_pretrained(Path(output) / "vae", safe_serialization=True)
    write_checksums(output)


def write_clip(clip, output: Path) -> None:
    """<output>/clip and, from the same tensors bit for bit, <output>/text_encoder, in fp32.

    The text encoder's keys carry the prefix `text_model.`: releases of transformers with and
    without that level both load them (bare keys load as random weights in the older ones).
    """
    from safetensors.torch import save_file
    from transformers import CLIPImageProcessorPil

    output = Path(output)
    clip.config._attn_implementation = None
    clip.float().save_pretrained(output / "clip", safe_serialization=True)
    CLIPImageProcessorPil(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64},
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    ).save_pretrained(output / "clip")  # fmt: skip
    load_tokenizer(output).save_pretrained(output / "clip")
    folder = output / "text_encoder"
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        f"text_model.{k.removeprefix('text_model.')}": v.detach().contiguous().cpu()
        for k, v in clip.text_model.state_dict().items()
        if not k.endswith("position_ids")
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = clip.config.text_config
    config.architectures = ["CLIPTextModel"]
    config.save_pretrained(folder)
    write_checksums(output)


def write_unet(unet, output: Path, record: dict) -> None:
    """<output>/unet in fp16, the scheduler, model_index.json, and the training record."""
    output = Path(output)
    _half_copy(unet).save_pretrained(output / "unet", safe_serialization=True)
    make_scheduler().save_pretrained(output / "scheduler")
    import diffusers

    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers.__version__}
    index |= {name: list(where) for name, where in PIPELINE.items()}
    index |= {"feature_extractor": [None, None], "safety_checker": [None, None]}
    index |= {"image_encoder": [None, None], "requires_safety_checker": False}
    (output / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (output / "unet" / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    write_checksums(output)


def make_scheduler():
    """Stable Diffusion's noise schedule (scaled linear, 1,000 steps) with DDIM sampling."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


def _half_copy(model):
    import copy

    return copy.deepcopy(model).cpu().to(torch.float16)
