"""Reference images for closed-form projection, and what is chosen on some that no row uses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.projection.calibration import (
    Calibration,
    Pairs,
    calibrate,
    collect_pairs,
    eos_states,
    text_weight,
)
from dsd_tutorial.projection.fitting import METHODS, fit_inverse
from dsd_tutorial.projection.inverse import Inverse
from dsd_tutorial.projection.matrices import automatic_threshold, singular_values
from dsd_tutorial.shapes import Scene, full_description, random_scenes, render
from dsd_tutorial.stable_diffusion import ClipImage, StableDiffusion

THRESHOLDS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)  # times the automatic one
ONE = "centered_one"  # "centered", by the means of captions and images of one object
ONE_CUT = 1.3  # times the automatic threshold; of 1, 1.3, 1.6 the best on 100 validation images
ALTERNATIVES = tuple(name for name in METHODS if name != "truncated")  # ONE knows more than they


@dataclass(frozen=True, eq=False)
class References:
    """Scenes of one split, encoded: what CLIP sees of them, and what their captions say."""

    scenes: list[Scene]
    model: StableDiffusion

    @cached_property
    def images(self) -> Float[Tensor, "images 3 height width"]:
        """Return the scenes as images in [0, 1]."""
        return render(self.scenes, self.model.resolution)[0]

    @cached_property
    def clip_images(self) -> ClipImage:
        """Return what CLIP's image tower says of them."""
        return self.model.encode_clip_image(self.images)

    @cached_property
    def captions(self) -> list[str]:
        """Return captions of objects, relation and background; no size, position or texture."""
        plain = [
            Scene(tuple(replace(t, texture="plain") for t in s.things), s.background)
            for s in self.scenes
        ]
        return [full_description(s, details=False).text() for s in plain]

    @cached_property
    def states(self) -> Float[Tensor, "images states"]:
        """Return the true EOS states of these captions."""
        return eos_states(self.model, self.captions)


def reference_sets(model: StableDiffusion, n: int, split: str, seed: int) -> dict[str, References]:
    """Return {"one", "two", "striped"}: `n` scenes of one object, n // 4 of two, and of stripes."""
    few = max(2, n // 4)
    options: dict[str, tuple[int, dict[str, Any]]] = {
        "one": (n, {"one_object_share": 1.0}),
        "two": (few, {"one_object_share": 0.0}),
        "striped": (few, {"one_object_share": 1.0, "textures": ("striped",)}),
    }
    return {
        name: References(random_scenes(count, seed + i, split=split, **more), model)
        for i, (name, (count, more)) in enumerate(options.items())
    }


def cosines(inverse: Inverse, references: References) -> Float[Tensor, " images"]:
    """Return cos(h_img, true EOS state) of each reference."""
    return F.cosine_similarity(inverse(references.clip_images), references.states, dim=-1)


@dataclass(frozen=True, eq=False)
class Chosen:
    """The paper's inverse at its best threshold, and one alternative; both by validation."""

    truncated: Inverse
    alternative: Inverse
    name: str  # of the alternative, in `inverses`
    inverses: dict[str, Inverse]  # every method at its automatic setting; `ONE` where chosen


def choose_inverses(
    model: StableDiffusion,
    known: Calibration,
    pairs: Pairs,
    validation: References,
    *,
    alternative: str | None = None,
    seed: int = 0,
) -> Chosen:
    """Return the `Chosen` inverses.

    The threshold is that of the highest mean cosine to the true EOS states of `validation`. The
    alternative is the one named, such as `course.recorded_alternative` says was chosen by images;
    None takes the highest cosine too. Raises ValueError for an unknown alternative.
    """
    shared: dict[str, Any] = {"calibration": known, "pairs": pairs, "progress": False}
    values = singular_values(text_weight(model))
    automatic = automatic_threshold(values)
    cuts = [c * automatic for c in THRESHOLDS if c * automatic < float(values[0])]
    truncated = [fit_inverse(model, threshold=cut, **shared) for cut in cuts]
    inverses = {name: fit_inverse(model, name, **shared) for name in METHODS}

    def merit(inverse: Inverse) -> float:
        return float(cosines(inverse, validation).mean())

    name = alternative or max(ALTERNATIVES, key=lambda other: merit(inverses[other]))
    if name == ONE:
        inverses[ONE] = centered_one(model, seed=seed)
    if name not in inverses or name == "truncated":
        names = ", ".join((*ALTERNATIVES, ONE))
        raise ValueError(f"unknown alternative {name!r}; choose one of {names}")
    return Chosen(max(truncated, key=merit), inverses[name], name, inverses)


def centered_one(model: StableDiffusion, n: int = 1000, *, seed: int = 0) -> Inverse:
    """Return the "centered" inverse by the means of captions and of images of one object.

    For references that are known to show one object; the two need not belong together.
    """
    alone: dict[str, Any] = {"one_object_share": 1.0, "progress": False}
    known = calibrate(model, n=max(2, n // 2), seed=seed + 2, **alone)
    pairs = collect_pairs(model, n=n, seed=seed + 3, **alone)
    cut = ONE_CUT * automatic_threshold(singular_values(text_weight(model)))
    return fit_inverse(
        model, "centered", threshold=cut, calibration=known, pairs=pairs, progress=False
    )
