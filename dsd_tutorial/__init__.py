"""A companion package to a notebook course on two papers that read and steer Stable Diffusion.

    import dsd_tutorial as dsd

    sd = dsd.load_model("shapes-sd")
    with dsd.observe(sd, heat=True) as seen:
        image = sd.sample(["a red circle left of a blue square"])
    seen.heat_map("circle")                                              # (images, height, width)
    dsd.score(sd, image, ["a red circle", "a green star"])               # (images, texts)
    dsd.vary(sd, image, 4, dsd.fit_inverse(sd))                          # image -> prompt -> images

Importing it costs nearly nothing and never touches the network: each name is imported at its first
use. Each room offers more in its own `__all__`.
"""

# What is imported for type checkers is what `lazily` offers; "as" tells them that it is offered.
from typing import TYPE_CHECKING

from dsd_tutorial.lazy import lazily

if TYPE_CHECKING:
    from dsd_tutorial.attention import heat_maps as heat_maps
    from dsd_tutorial.attention import observe as observe
    from dsd_tutorial.customization import customize as customize
    from dsd_tutorial.matching import components as components
    from dsd_tutorial.matching import score as score
    from dsd_tutorial.projection import fit_inverse as fit_inverse
    from dsd_tutorial.prompt_learning import fit as fit
    from dsd_tutorial.shapes import make_task as make_task
    from dsd_tutorial.shapes import render as render
    from dsd_tutorial.stable_diffusion import load_model as load_model
    from dsd_tutorial.stable_diffusion import to_pil as to_pil
    from dsd_tutorial.variation import edit as edit
    from dsd_tutorial.variation import image_to_prompt as image_to_prompt
    from dsd_tutorial.variation import vary as vary

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
