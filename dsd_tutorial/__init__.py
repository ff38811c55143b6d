"""A companion package to a notebook course on two papers that read and steer Stable Diffusion.

    import dsd_tutorial as dsd

    sd = dsd.load_model("shapes-sd")
    image = sd.sample(["a red circle left of a blue square"])
    dsd.score(sd, image, ["a red circle", "a green star"])               # (images, texts)
    dsd.vary(sd, image, 4, dsd.fit_inverse(sd))                          # image -> prompt -> images

Importing it costs nearly nothing and never touches the network: what is asked for is imported when
it is asked for. Each room offers more in its own `__all__`.
"""

from typing import TYPE_CHECKING

from dsd_tutorial.lazy import lazily

if TYPE_CHECKING:
    from dsd_tutorial.attention import heat_maps, observe
    from dsd_tutorial.customization import customize
    from dsd_tutorial.matching import components, score
    from dsd_tutorial.projection import fit_inverse
    from dsd_tutorial.prompt_learning import fit
    from dsd_tutorial.shapes import make_task, render
    from dsd_tutorial.stable_diffusion import load_model, to_pil
    from dsd_tutorial.variation import edit, image_to_prompt, vary

__version__ = "0.1.0"

__all__ = [
    "components",
    "customize",
    "edit",
    "fit",
    "fit_inverse",
    "heat_maps",
    "image_to_prompt",
    "load_model",
    "make_task",
    "observe",
    "render",
    "score",
    "to_pil",
    "vary",
]

__getattr__, __dir__, _ = lazily(
    __name__,
    {
        "components": "dsd_tutorial.matching",
        "customize": "dsd_tutorial.customization",
        "edit": "dsd_tutorial.variation",
        "fit": "dsd_tutorial.prompt_learning",
        "fit_inverse": "dsd_tutorial.projection",
        "heat_maps": "dsd_tutorial.attention",
        "image_to_prompt": "dsd_tutorial.variation",
        "load_model": "dsd_tutorial.stable_diffusion",
        "make_task": "dsd_tutorial.shapes",
        "observe": "dsd_tutorial.attention",
        "render": "dsd_tutorial.shapes",
        "score": "dsd_tutorial.matching",
        "to_pil": "dsd_tutorial.stable_diffusion",
        "vary": "dsd_tutorial.variation",
    },
)
