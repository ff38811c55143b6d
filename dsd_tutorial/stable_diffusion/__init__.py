"""One object that owns VAE, U-Net, both CLIP towers, tokenizer and scheduler.

model = load_model("shapes-sd")
model.sample(["a red circle left of a blue square"])     # (1, 3, 64, 64) in [0, 1]
"""

# What is imported for type checkers is what `lazily` offers; "as" tells them that it is offered.
from typing import TYPE_CHECKING

from dsd_tutorial.lazy import lazily

if TYPE_CHECKING:
    from dsd_tutorial.stable_diffusion.encoders import ClipImage as ClipImage
    from dsd_tutorial.stable_diffusion.loading import load_model as load_model
    from dsd_tutorial.stable_diffusion.loading import pick_device as pick_device
    from dsd_tutorial.stable_diffusion.model import StableDiffusion as StableDiffusion
    from dsd_tutorial.stable_diffusion.noising import shared_noise as shared_noise
    from dsd_tutorial.stable_diffusion.pixels import ImageSettings as ImageSettings
    from dsd_tutorial.stable_diffusion.pixels import to_pil as to_pil
    from dsd_tutorial.stable_diffusion.pixels import to_tensor as to_tensor
    from dsd_tutorial.stable_diffusion.registry import END_SHARE as END_SHARE
    from dsd_tutorial.stable_diffusion.registry import list_models as list_models

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
