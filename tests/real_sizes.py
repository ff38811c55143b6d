"""The real Stable Diffusion 1.5 and 2.1-base as configurations, built without weights.

On the meta device a tensor has a shape but no memory, so a gigabyte model is walked in a second.
"""

import torch
from tiny_model import tiny_scheduler, tiny_tokenizer

SIZES = {
    "sd-1.5": {
        "unet": {"attention_head_dim": 8, "cross_attention_dim": 768},
        "text": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
        "text_layers": (12, 12),  # of the text encoder the U-Net reads, of the whole CLIP
        "vision": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
        },
        "projection": 768,
        "act": "quick_gelu",
    },
    "sd-2.1-base": {
        "unet": {
            "attention_head_dim": [5, 10, 20, 20],
            "cross_attention_dim": 1024,
            "use_linear_projection": True,
        },
        "text": {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16},
        "text_layers": (23, 24),
        "vision": {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_attention_heads": 16,
            "num_hidden_layers": 32,
        },
        "projection": 1024,
        "act": "gelu",
    },
}


def real_model(name: str):
    """Return a `StableDiffusion` of real size on the meta device: shapes, but no numbers."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.configuration_clip import CLIPConfig
    from transformers.models.clip.modeling_clip import CLIPModel, CLIPTextModel

    from dsd_tutorial.stable_diffusion import StableDiffusion
    from dsd_tutorial.stable_diffusion.pixels import ImageSettings
    from dsd_tutorial.stable_diffusion.registry import REGISTRY

    size = SIZES[name]
    tokenizer = tiny_tokenizer(77)
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos")}
    common = {"projection_dim": size["projection"], "hidden_act": size["act"]}
    text = {**common, **size["text"], **ids, "vocab_size": 49408, "max_position_embeddings": 77}
    vision = {**common, **size["vision"], "patch_size": 14, "image_size": 224}
    read, whole = size["text_layers"]
    configs = [
        CLIPConfig(
            text_config={**text, "num_hidden_layers": layers},
            vision_config=vision,
            projection_dim=size["projection"],
        )
        for layers in (read, whole)
    ]
    with torch.device("meta"):
        parts = {
            "vae": AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                latent_channels=4,
                sample_size=512,
            ),
            "unet": UNet2DConditionModel(sample_size=64, **size["unet"]),
            "text_encoder": CLIPTextModel(configs[0].text_config),
            "clip": CLIPModel(configs[1]),
        }
    return StableDiffusion(
        **parts,
        tokenizer=tokenizer,
        scheduler=tiny_scheduler(),
        image_processor=ImageSettings(),
        name=name,
        entry=REGISTRY[name],
        device="meta",
    )
