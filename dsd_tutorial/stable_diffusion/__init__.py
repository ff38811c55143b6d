"""One object that owns VAE, U-Net, both CLIP towers, tokenizer and scheduler.

model = load_model("shapes-sd")
model.sample(["a red circle left of a blue square"])     # (1, 3, 64, 64) in [0, 1]
"""

# ruff: noqa: F401 (`lazily` offers what is imported for type checkers)
from typing import TYPE_CHECKING

from dsd_tutorial.lazy import lazily

if TYPE_CHECKING:
    from dsd_tutorial.stable_diffusion.encoders import ClipImage
    from dsd_tutorial.stable_diffusion.loading import load_model, pick_device
    from dsd_tutorial.stable_diffusion.model import StableDiffusion
    from dsd_tutorial.stable_diffusion.noising import shared_noise
    from dsd_tutorial.stable_diffusion.pixels import ImageSettings, to_pil, to_tensor
    from dsd_tutorial.stable_diffusion.registry import END_SHARE, list_models

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
