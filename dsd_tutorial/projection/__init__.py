"""Image embedding -> text state in closed form: the inverse of CLIP's text projection.

inverse = fit_inverse(model)                             # Ding et al., arXiv 2305.12716
states = inverse(model.encode_clip_image(images))        # (images, d): what an EOS token would say
"""

from dsd_tutorial.projection.calibration import (
    PenultimateLayerError,
    calibrate,
    collect_pairs,
    eos_states,
    text_weight,
)
from dsd_tutorial.projection.fitting import METHODS, fit_inverse, fit_random
from dsd_tutorial.projection.inverse import (
    Inverse,
    WrongClipError,
    load_inverse,
    save_inverse,
)
from dsd_tutorial.projection.matrices import (
    OrientationError,
    automatic_threshold,
    check_orientation,
    singular_values,
    truncated_pseudo_inverse,
    vit_l_14_singular_values,
)
from dsd_tutorial.projection.references import (
    References,
    centered_one,
    choose_inverses,
    reference_sets,
)

__all__ = [
    "Inverse",
    "METHODS",
    "OrientationError",
    "PenultimateLayerError",
    "References",
    "WrongClipError",
    "automatic_threshold",
    "calibrate",
    "centered_one",
    "check_orientation",
    "choose_inverses",
    "collect_pairs",
    "eos_states",
    "fit_inverse",
    "fit_random",
    "load_inverse",
    "reference_sets",
    "save_inverse",
    "singular_values",
    "text_weight",
    "truncated_pseudo_inverse",
    "vit_l_14_singular_values",
]
