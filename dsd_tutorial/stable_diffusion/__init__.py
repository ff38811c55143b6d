"""One object that owns VAE, U-Net, both CLIP towers, tokenizer and scheduler.

model = load_model("shapes-sd")
model.sample(["a red circle left of a blue square"])     # (1, 3, 64, 64) in [0, 1]
"""

from dsd_tutorial.stable_diffusion.devices import pick_device
from dsd_tutorial.stable_diffusion.encoders import ClipImage
from dsd_tutorial.stable_diffusion.model import StableDiffusion, load_model
from dsd_tutorial.stable_diffusion.pixels import ImageSettings, to_pil, to_tensor

__all__ = [
    "ClipImage",
    "ImageSettings",
    "StableDiffusion",
    "load_model",
    "pick_device",
    "to_pil",
    "to_tensor",
]
