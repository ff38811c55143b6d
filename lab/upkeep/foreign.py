"""Two models as others make them, with random weights, and the course's notebooks on both.

`python -m lab.upkeep.foreign` builds them in seconds, under build/foreign/models, and runs all
notebooks on each at the parameters of tests/params/foreign.yaml; `--only build`
builds them only.

They have the topology, the settings and the files of real ones, and hardly any width:

sd-1x   Stable Diffusion 1.x: epsilon, PNDM, latents scaled by 0.18215, eight heads everywhere,
        padding with the end token. Its CLIP lies outside the pipeline, in sd-1x-clip.
sd-2x   Stable Diffusion 2.x: v-prediction, linear projections, heads by level, a text encoder
        without CLIP's last layer, padding with token 0. It has no CLIP on this machine.
"""

import argparse
import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from dsd_tutorial.course import running
from dsd_tutorial.saving import write_json, write_text
from dsd_tutorial.stable_diffusion.files import clip_beside
from dsd_tutorial.stable_diffusion.writer import write_pipeline_index
from lab.upkeep.blocks import ROOT

OUTPUT = ROOT / "build" / "foreign"
PARAMETERS = ROOT / "tests" / "params" / "foreign.yaml"
KNOWN_MERGES = ROOT / "dsd_tutorial" / "models" / "shapes-sd" / "tokenizer" / "tokenizer.json"

VOCABULARY, TOKENS, TEXT_WIDTH = 49_408, 77, 32
SHARPNESS = 4.0  # factor of queries and keys, whose random start makes attention even
START, END = "<|startoftext|>", "<|endoftext|>"

TEXT = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": TOKENS,
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 2 * TEXT_WIDTH,
    "num_attention_heads": 4,
    "projection_dim": TEXT_WIDTH,
    # the published configurations name these ids, which are not the tokenizer's: the end token is
    # 49407, and transformers reads a 2 as "the token with the largest id"
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
UNET = {
    "sample_size": 8,
    "block_out_channels": (32, 32, 64, 64),
    "layers_per_block": 2,
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    "cross_attention_dim": TEXT_WIDTH,
    "norm_num_groups": 8,
}
VAE = {
    "sample_size": 64,
    "block_out_channels": (16, 16, 32, 32),
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "scaling_factor": 0.18215,
}
SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
MODELS: dict[str, dict[str, Any]] = {
    "sd-1x": {
        "unet": {"attention_head_dim": 8},  # diffusers' name for the number of heads
        "text": {"num_hidden_layers": 12, "hidden_act": "quick_gelu"},
        "scheduler": ("PNDMScheduler", {"skip_prk_steps": True}),
        "padding": END,
        "clip": True,
    },
    "sd-2x": {
        "unet": {"attention_head_dim": [2, 4, 8, 8], "use_linear_projection": True},
        "text": {"num_hidden_layers": 23, "hidden_act": "gelu"},
        "scheduler": ("DDIMScheduler", {"clip_sample": False, "prediction_type": "v_prediction"}),
        "padding": "!",  # token 0
        "clip": False,
    },
}


def build(name: str, models: Path, seed: int = 0) -> Path:
    """Return the folder of the model `name`, written anew under `models`; its CLIP beside it."""
    import diffusers
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    recipe, folder = MODELS[name], models / name
    kind, settings = recipe["scheduler"]
    for old in (folder, clip_beside(folder)):
        shutil.rmtree(old, ignore_errors=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = CLIPTextModel(CLIPTextConfig(**TEXT, **recipe["text"]))
        parts = {
            "vae": diffusers.AutoencoderKL(**VAE),
            "unet": diffusers.UNet2DConditionModel(**UNET, **recipe["unet"]),
            "text_encoder": text,
            "scheduler": getattr(diffusers, kind)(**SCHEDULE, **settings),
        }
        sharpen(parts["unet"])
        for part, made in parts.items():
            made.save_pretrained(folder / part)
        write_tokenizer(folder / "tokenizer", recipe["padding"])
        if recipe["clip"]:
            write_clip(clip_beside(folder), text)
    kinds = {part: type(made) for part, made in parts.items()} | {"tokenizer": CLIPTokenizer}
    index = {part: (kind.__module__.split(".")[0], kind.__name__) for part, kind in kinds.items()}
    write_pipeline_index(folder, index)
    return folder


@torch.no_grad()
def sharpen(unet: Any) -> None:
    """Make a fresh U-Net look at some tokens more than at others, as a trained one does.

    At its first weights every token gets the same attention, and a check that mixes two tokens up
    would pass.
    """
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            module.to_q.weight.mul_(SHARPNESS)
            module.to_k.weight.mul_(SHARPNESS)


def write_clip(folder: Path, text: Any) -> None:
    """Write a CLIP, as OpenAI's repository has it, whose text tower is `text`."""
    from transformers.models.clip.configuration_clip import CLIPConfig
    from transformers.models.clip.modeling_clip import CLIPModel

    from dsd_tutorial.stable_diffusion import ImageSettings

    vision = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 224,
        "patch_size": 32,
    }
    both = {"text_config": text.config.to_dict(), "vision_config": vision}
    clip = CLIPModel(CLIPConfig(**both, projection_dim=TEXT_WIDTH))
    clip.text_model.load_state_dict(getattr(text, "text_model", text).state_dict())
    clip.save_pretrained(folder)
    ImageSettings().write(folder)


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return a byte-pair vocabulary of CLIP's size and order, token -> id, and its merges.

    First come the 123 merges of the course's own tokenizer, so that its words are tokens; the rest
    joins any two signs at the end of a word. Nothing is trained: that takes text and breaks ties by
    chance.
    """
    known = json.loads(KNOWN_MERGES.read_text(encoding="utf-8"))["model"]
    by_id = sorted(known["vocab"], key=known["vocab"].get)
    letters, ends = by_id[:256], by_id[256:512]
    merges = dict.fromkeys(map(tuple, known["merges"]))
    merges |= dict.fromkeys(itertools.product(letters, ends))
    merges = list(merges)[: VOCABULARY - 512 - 2]
    tokens = [*letters, *ends, *("".join(pair) for pair in merges), START, END]
    return {token: i for i, token in enumerate(tokens)}, merges


def write_tokenizer(folder: Path, padding: str) -> None:
    """Write the files of a slow CLIPTokenizer, which is how the published folders have it."""
    vocab, merges = vocabulary()
    if len(vocab) != VOCABULARY or vocab[END] != VOCABULARY - 1:
        raise ValueError(f"{len(vocab)} tokens, end token {vocab[END]}: need {VOCABULARY}")
    write_json(folder / "vocab.json", vocab)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    write_text(folder / "merges.txt", "\n".join(lines) + "\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": padding}
    write_json(folder / "special_tokens_map.json", special)
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": TOKENS,
        "do_lower_case": True,
        "add_prefix_space": False,
    }
    write_json(folder / "tokenizer_config.json", {**settings, **special})


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 when every notebook ran to its end on both models."""
    parser = argparse.ArgumentParser(prog="python -m lab.upkeep.foreign", description=__doc__)
    parser.add_argument("notebooks", nargs="*", help="names (default: all)")
    parser.add_argument("--model", choices=MODELS, action="append", help="default: both")
    parser.add_argument("--only", choices=["build"], help="build the models, run nothing")
    parser.add_argument("--jobs", default="2", help="notebooks that run side by side")
    given = parser.parse_args(arguments)
    common = ["--parameters", str(PARAMETERS), "--jobs", given.jobs, "--cell-timeout", "200"]
    codes = [0]
    for name in given.model or MODELS:
        folder = build(name, OUTPUT / "models")
        print(f"{name}: {folder.relative_to(ROOT)}", flush=True)
        if given.only is None:
            own = ["--output", str(OUTPUT / name), "--set", "model", str(folder)]
            codes.append(running.main([*given.notebooks, *common, *own]))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
