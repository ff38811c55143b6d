"""Stable Diffusion 1.5 at full size, with random weights: what memory a pass takes.

`python -m lab.bench.full_size float32` builds U-Net (860 million parameters), autoencoder and text
encoder in memory, scores and ranks one image with two texts at two time steps, and prints its rows
as JSON. A process of its own, since what is measured is the most memory that it ever had.
"""

from __future__ import annotations

import json
import math
import resource
import sys
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import nn

from lab.bench.timing import FULL, interleaved, timed_row

SD_1_5 = {
    "unet": {"sample_size": 64, "attention_head_dim": 8, "cross_attention_dim": 768},
    "vae": {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": 512,
    },
    "text": {
        "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072,
        "num_attention_heads": 12, "num_hidden_layers": 12, "max_position_embeddings": 77,
        "hidden_act": "quick_gelu", "projection_dim": 768,
    },
}  # fmt: skip


def full_size_model(dtype: torch.dtype) -> Any:
    """Return a `StableDiffusion` of the real size and topology; CLIP's image side is left out."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    from dsd_tutorial.stable_diffusion import StableDiffusion, load_model

    small = load_model("shapes-sd", device="cpu")  # lends tokenizer and schedule
    small.tokenizer.model_max_length = 77
    ids = {f"{x}_token_id": getattr(small.tokenizer, f"{x}_token_id") for x in ("bos", "eos")}
    with torch.device("meta"):
        parts = {
            "unet": UNet2DConditionModel(**SD_1_5["unet"]),
            "vae": AutoencoderKL(**SD_1_5["vae"]),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**SD_1_5["text"], **ids)),
        }
    numbers = torch.Generator().manual_seed(0)
    dtypes = {name: torch.float32 for name in parts} | {"unet": dtype}
    if dtype == torch.float16:
        dtypes["vae"] = dtype
    for name, part in parts.items():
        fill(part.to_empty(device="cpu"), numbers, dtypes[name])
    return StableDiffusion(
        **parts, tokenizer=small.tokenizer, scheduler=small.scheduler, name="sd-1.5, random",
        device="cpu", dtype=dtype,
    )  # fmt: skip


@torch.no_grad()
def fill(part: nn.Module, numbers: torch.Generator, dtype: torch.dtype) -> None:
    """Give every parameter a plausible random value, one at a time, in its final precision.

    `to_empty` reserved float32 memory, which the system hands out only where it is written to.
    """
    for module in part.modules():
        for name, old in list(module.named_parameters(recurse=False)):
            new = torch.empty(old.shape, dtype=dtype)
            if new.ndim > 1:
                bound = math.sqrt(3.0 / math.prod(new.shape[1:]))
                new.uniform_(-bound, bound, generator=numbers)
            else:
                new.fill_(1.0 if name == "weight" else 0.0)
            setattr(module, name, nn.Parameter(new, requires_grad=False))
        for name, old in list(module.named_buffers(recurse=False)):
            if "position_ids" in name:
                setattr(module, name, torch.arange(old.shape[-1]).expand(old.shape).clone())


def weights_mb(model: Any) -> float:
    """Return the size of all weights in MB."""
    parts = (model.unet, model.vae, model.text_encoder)
    return sum(p.numel() * p.element_size() for part in parts for p in part.parameters()) / 1e6


def peak_mb() -> float:
    """Return the most memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main(dtype: str = "float32") -> None:
    """Measure, and print the rows; nothing for a precision that this processor emulates."""
    from dsd_tutorial.attention import observe
    from dsd_tutorial.matching import Spreads, rank, score
    from dsd_tutorial.stable_diffusion.precision import bfloat16_pays

    if dtype == "bfloat16" and not bfloat16_pays():
        return

    model = full_size_model(getattr(torch, dtype))
    image = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    texts, how = ["a red circle", "a blue square"], {"steps": 2, "progress": False}
    began = perf_counter()
    score(model, image, texts, **how)
    seconds = perf_counter() - began
    spreads = Spreads((250, 750), torch.tensor([[1.0, 0.5], [0.5, 1.0]]), 16)
    rank(model, image, texts, spreads=spreads, **how)  # for its memory
    noisy, prompt = torch.randn(1, *model.latent_shape), model.encode_text(texts[:1])
    plain = partial(model.predict_noise, noisy, 500, prompt)

    def observed() -> None:
        with observe(model):
            plain()

    with torch.no_grad():
        timed = interleaved({"plain": plain, "observe": observed}, 2)
    took = {name: (way.seconds, 1) for name, way in timed.items()}
    took["score, 1 image x 2 texts x 2 steps"] = ((seconds,), 4)
    peak, weights, first = peak_mb(), weights_mb(model), timed["plain"].fastest
    row = partial(timed_row, f"{FULL}, {dtype}", dtype=dtype, batch="auto")
    rows = [row(way, each, passes=passes, peak_mb=round(peak), ratio=first / min(each))
            for way, (each, passes) in took.items()]  # fmt: skip
    untimed = dict.fromkeys(("seconds_min", "seconds_median", "repeats", "passes"), "")
    weighed = {"peak_mb": round(weights), "ratio": peak / weights}
    print(json.dumps([*rows, row("weights", [0.0], **weighed, **untimed)]))


if __name__ == "__main__":
    main(*sys.argv[1:2])
