"""Writes what was trained as an ordinary diffusers pipeline folder, and reads parts of it back.

Layout: model_index.json, vae/, unet/, text_encoder/, tokenizer/, scheduler/ and, beside the
pipeline, clip/ with the whole CLIP. `checksums.json` holds the SHA-256 of every weights file.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from dsd_tutorial.saving import replacing_in, write_json
from dsd_tutorial.stable_diffusion import writer
from dsd_tutorial.stable_diffusion.files import read_part
from dsd_tutorial.stable_diffusion.pixels import ImageSettings
from dsd_tutorial.stable_diffusion.writer import (
    write_checksums,
    write_diffusers_part,
    write_pipeline_index,
)

MEAN = STD = (0.5, 0.5, 0.5)  # the image tower reads pixels in [-1, 1]

ENCODER = ("encoder.", "quant_conv.")  # the autoencoder's tensors that latents depend on
PIPELINE = {
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "scheduler": ("diffusers", "DDIMScheduler"),
}


def load_tokenizer(folder: Path):
    """The tokenizer in `folder`; FileNotFoundError that names the command which makes it."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(_need(folder, "tokenizer"))


def load_part(folder: Path, name: str):
    """`vae`, `unet`, `clip` or `text_encoder` of a model folder in fp32, frozen, in eval mode."""
    library, kind = {**PIPELINE, "clip": ("transformers", "CLIPModel")}[name]
    model = read_part(getattr(importlib.import_module(library), kind), _need(folder, name))
    return model.float().requires_grad_(False).eval()


def _need(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_dir():
        stage = {"vae": "autoencoder", "text_encoder": "clip"}.get(name, name)
        raise FileNotFoundError(
            f"{path} does not exist; make it with: python -m lab train {stage} --output {folder}"
        )
    return path


def write_autoencoder(vae, output: Path) -> None:
    """<output>/vae in fp16, which diffusers reads back as fp32."""
    write_diffusers_part(vae, output / "vae")
    write_checksums(output)


def write_clip(clip, output: Path) -> None:
    """<output>/clip and, from the same tensors bit for bit, <output>/text_encoder, in fp32."""
    clip.config._attn_implementation = None
    writer.write_clip(clip, output / "clip")
    ImageSettings(size=64, crop=64, mean=MEAN, std=STD).write(output / "clip")
    with replacing_in(output / "clip") as partial:
        load_tokenizer(output).save_pretrained(partial)
    writer.write_text_encoder(clip.text_model, output / "text_encoder")
    write_checksums(output)


def write_unet(unet, output: Path, record: dict) -> None:
    """<output>/unet in fp16, the scheduler, model_index.json, and the training record."""
    write_diffusers_part(unet, output / "unet")
    write_json(output / "unet" / "training.json", record)
    with replacing_in(output / "scheduler") as partial:
        make_scheduler().save_pretrained(partial)
    write_pipeline_index(output, PIPELINE)
    write_checksums(output)


def make_scheduler():
    """Stable Diffusion's noise schedule (scaled linear, 1,000 steps), made to end in pure noise.

    As it is, the last step still holds 7 % of the image. A network that is never shown pure noise
    takes the layout from it and not from the text, and at sampling reads a layout into noise that
    has none: left and right come out by chance (Lin et al., arXiv 2305.08891).
    """
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
        rescale_betas_zero_snr=True,
    )
