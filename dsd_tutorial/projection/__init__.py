"""Image embedding -> text state in closed form: the inverse of CLIP's text projection.

inverse = fit_inverse(model)                             # Ding et al., arXiv 2305.12716
states = inverse(model.encode_clip_image(images))        # (images, d): what an end token would say
"""

from dsd_tutorial.projection.calibration import (
    Calibration,
    Pairs,
    PenultimateLayerError,
    calibrate,
    collect_pairs,
    eos_states,
    text_weight,
)
from dsd_tutorial.projection.files import WrongClipError, load_inverse, save_inverse
from dsd_tutorial.projection.fitting import METHODS, fit_inverse, fit_random, own_inverse
from dsd_tutorial.projection.inverse import Inverse, clip_digest, refine
from dsd_tutorial.projection.matrices import (
    OrientationError,
    check_orientation,
    gaussian_inverse,
    procrustes,
    ridge_inverse,
    ridge_map,
    round_trip_error,
    truncated_pseudo_inverse,
)
from dsd_tutorial.projection.references import (
    References,
    centered_one,
    choose_inverses,
    cosines,
    reference_sets,
)
from dsd_tutorial.projection.spectrum import (
    automatic_threshold,
    energy_kept,
    kept,
    singular_values,
    vit_l_14_singular_values,
)

__all__ = [
    "Calibration",
    "Inverse",
    "METHODS",
    "OrientationError",
    "Pairs",
    "PenultimateLayerError",
    "References",
    "WrongClipError",
    "automatic_threshold",
    "calibrate",
    "centered_one",
    "check_orientation",
    "choose_inverses",
    "clip_digest",
    "collect_pairs",
    "cosines",
    "eos_states",
    "energy_kept",
    "fit_inverse",
    "fit_random",
    "gaussian_inverse",
    "kept",
    "load_inverse",
    "own_inverse",
    "procrustes",
    "reference_sets",
    "refine",
    "ridge_inverse",
    "ridge_map",
    "round_trip_error",
    "save_inverse",
    "singular_values",
    "text_weight",
    "truncated_pseudo_inverse",
    "vit_l_14_singular_values",
]
