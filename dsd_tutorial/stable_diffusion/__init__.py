"""One object that owns VAE, U-Net, both CLIP towers, tokenizer and scheduler.

model = load_model("shapes-sd")
model.sample(["a red circle left of a blue square"])     # (1, 3, 64, 64) in [0, 1]
"""

from typing import TYPE_CHECKING

from dsd_tutorial.lazy import lazily

if TYPE_CHECKING:
    from dsd_tutorial.stable_diffusion.devices import pick_device
    from dsd_tutorial.stable_diffusion.encoders import ClipImage
    from dsd_tutorial.stable_diffusion.model import StableDiffusion, load_model
    from dsd_tutorial.stable_diffusion.noising import shared_noise
    from dsd_tutorial.stable_diffusion.pixels import ImageSettings, to_pil, to_tensor
    from dsd_tutorial.stable_diffusion.registry import END_SHARE, list_models

__all__ = [
    "ClipImage",
    "END_SHARE",
    "ImageSettings",
    "StableDiffusion",
    "list_models",
    "load_model",
    "pick_device",
    "shared_noise",
    "to_pil",
    "to_tensor",
]

__getattr__, __dir__, _ = lazily(
    __name__,
    {
        "ClipImage": "dsd_tutorial.stable_diffusion.encoders",
        "END_SHARE": "dsd_tutorial.stable_diffusion.registry",
        "ImageSettings": "dsd_tutorial.stable_diffusion.pixels",
        "StableDiffusion": "dsd_tutorial.stable_diffusion.model",
        "list_models": "dsd_tutorial.stable_diffusion.registry",
        "load_model": "dsd_tutorial.stable_diffusion.model",
        "pick_device": "dsd_tutorial.stable_diffusion.devices",
        "shared_noise": "dsd_tutorial.stable_diffusion.noising",
        "to_pil": "dsd_tutorial.stable_diffusion.pixels",
        "to_tensor": "dsd_tutorial.stable_diffusion.pixels",
    },
)
