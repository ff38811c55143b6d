"""Small models with random weights, built in the process: no file, no network, under two seconds.

They have the parts and the habits of the embedded model (cross-attention everywhere, a tokenizer
that pads with its end token, text width = projection width), so that code is tested on the real
classes, only smaller.
"""

from pathlib import Path

import torch

WORDS = (
    "a an the red green blue yellow purple orange circle square triangle star cross ring left "
    "right of above below on white gray black background small large picture with and shape it "
    "is at top bottom pink heart cyan hexagon striped"
).split()
MERGES = Path(__file__).with_name("tiny_merges.txt")
CONTEXT_LENGTH = 32
TEXT_WIDTH = 32


def tiny_tokenizer(context_length: int = CONTEXT_LENGTH):
    """Return a CLIPTokenizer with a byte-level BPE of `WORDS`; pads with the end token.

    The last four words stay split into several tokens: the code that joins tokens to words has
    something to do. Its merges are a file, since training breaks ties by chance: another tokenizer,
    and with it other random weights, in every process.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    merges = [tuple(line.split()) for line in MERGES.read_text(encoding="utf-8").splitlines()]
    letters = sorted(ByteLevel.alphabet())
    tokens = letters + [letter + "</w>" for letter in letters] + ["".join(m) for m in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=context_length)


def tiny_clip(tokenizer, width: int = TEXT_WIDTH, resolution: int = 64):
    """Return a CLIPModel with two layers per tower, patches of 8 pixels and random weights."""
    from transformers.models.clip.configuration_clip import CLIPConfig
    from transformers.models.clip.modeling_clip import CLIPModel

    common = {"num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": width}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "image_size": resolution,
        "patch_size": 8,
    }
    config = CLIPConfig(
        text_config={**common, **text}, vision_config={**common, **vision}, projection_dim=width
    )
    return CLIPModel(config)


def text_tower_of(clip):
    """Return a CLIPTextModel that holds a copy of the text tower of `clip`."""
    from transformers.models.clip.modeling_clip import CLIPTextModel

    text_encoder = CLIPTextModel(clip.config.text_config)
    target = getattr(text_encoder, "text_model", text_encoder)
    target.load_state_dict(clip.text_model.state_dict())
    return text_encoder


def tiny_unet(context_width: int = TEXT_WIDTH, heads: int = 4):
    """Return a UNet2DConditionModel for 16 x 16 x 4 latents with cross-attention everywhere."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        attention_head_dim=heads,  # diffusers' name for the number of heads
        cross_attention_dim=context_width,
        norm_num_groups=16,
    )


def tiny_vae():
    """Return an AutoencoderKL from 64 x 64 pixels to 16 x 16 x 4 latents."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16, 16, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.1,
        mid_block_add_attention=False,
    )


def tiny_scheduler(prediction_type: str = "epsilon"):
    """Return the noise schedule of Stable Diffusion 1.x as a DDIMScheduler."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def tiny_model(seed: int = 0, prediction_type: str = "epsilon", dtype=torch.float32):
    """Return a `StableDiffusion` with seeded random weights; the global generator is untouched."""
    from dsd_tutorial.stable_diffusion import ImageSettings, StableDiffusion

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        clip = tiny_clip(tokenizer)
        return StableDiffusion(
            vae=tiny_vae(),
            unet=tiny_unet(),
            text_encoder=text_tower_of(clip),
            tokenizer=tokenizer,
            scheduler=tiny_scheduler(prediction_type),
            clip=clip,
            image_processor=ImageSettings(size=64, crop=64),
            name="tiny",
            dtype=dtype,
        )


def pipeline_of(model):
    """Return a StableDiffusionPipeline of diffusers that shares the parts of `model`."""
    from diffusers import StableDiffusionPipeline

    parts = {name: getattr(model, name) for name in ("vae", "unet", "text_encoder", "tokenizer")}
    scheduler = type(model.scheduler).from_config(model.scheduler.config)
    absent = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(**parts, scheduler=scheduler, **absent)
