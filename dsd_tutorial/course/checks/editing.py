"""The exercises on editing (notebook 04): the edit's prompt by hand, and when an edit succeeded."""

from __future__ import annotations

import torch
from torch import Tensor

from dsd_tutorial.course.checks.exercise import Exercise, normal

# -- edit_states(text, image, end, alpha): (L, d), (d,), int, float -> (L, d) ---------------------


def _from(text: Tensor, first: int, mixed: Tensor) -> Tensor:
    """The text's states before `first`, `mixed` (L, d) from there on."""
    return torch.cat([text[:first], mixed[first:]])


def _edit(text: Tensor, image: Tensor, end: int, alpha: float) -> Tensor:
    return _from(text, end, image + alpha * text)


edit_states = Exercise(
    name="edit_states",
    hint="Write the positions of a short text on paper: start, word, word, EOS, padding. Which may "
    "the image touch?",
    solution=_edit,
    cases=[
        (torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.tensor([10.0]), 2, 0.5),
        (normal(7, 3), normal(3, seed=1), 4, 0.7),
        (normal(8, 4, seed=2), normal(4, seed=3), 1, 1.5),
        (normal(6, 4, seed=4), normal(4, seed=5), 5, 0.25),
    ],
    mistakes={
        "words overwritten": (
            "The states before EOS are the words. With the image on top, the text is lost.",
            "Keep positions 0 to end - 1 as they are: text[:end].",
            lambda t, i, p, a: _from(t, 1, i + a * t),
            lambda t, i, p, a: i + a * t,
            lambda t, i, p, a: _from(t, p - 1, i + a * t),
        ),
        "EOS state left alone": (
            "The EOS state sums the text up, and the image state was made to stand in its place.",
            "Begin at position `end`, not behind it.",
            lambda t, i, p, a: _from(t, p + 1, i + a * t),
        ),
        "only the EOS state mixed": (
            "In the paper all padding states carry the mixture; one position has little weight.",
            "Mix every position from `end` to the last: text[end:].",
            lambda t, i, p, a: torch.cat([t[:p], (i + a * t[p])[None], t[p + 1 :]]),
        ),
        "the EOS state everywhere": (
            "Each position adds its own text state; padding states resemble EOS, but differ.",
            "Add alpha * text[position], for each position its own.",
            lambda t, i, p, a: _from(t, p, (i + a * t[p]).expand_as(t)),
        ),
        "alpha on the image": (
            "Alpha weighs the text; the image's state keeps the length that was calibrated.",
            "Write image + alpha * text.",
            lambda t, i, p, a: _from(t, p, a * i + t),
        ),
        "a blend of the two": (
            "That trades one for the other; text is added, and the image keeps its full weight.",
            "Write image + alpha * text.",
            lambda t, i, p, a: _from(t, p, (1 - a) * i + a * t),
            lambda t, i, p, a: _from(t, p, a * i + (1 - a) * t),
        ),
        "alpha left out": (
            "Then there is nothing to sweep.",
            "Multiply the text's states by alpha before adding.",
            lambda t, i, p, a: _from(t, p, i + t),
            lambda t, i, p, a: _from(t, p, i.expand_as(t)),
        ),
    },
)


# -- joint_score(changed, kept): (references, images), (references, images, facts)
#    -> (references,) ----------------------------------------------------------------------------


joint_score = Exercise(
    name="joint_score",
    hint="Take one image at a time: is *this* image a success? Only then count.",
    solution=lambda changed, kept: (changed.bool() & kept.bool().all(-1)).float().mean(1),
    cases=[
        (torch.tensor([[True, False]]), torch.tensor([[[True, True], [True, True]]])),
        (
            torch.tensor([[True, True, True, False, False]]),
            torch.tensor(
                [[[True, False], [True, True], [False, False], [True, True], [True, False]]]
            ),
        ),
        (normal(5, 6) > -0.3, normal(5, 6, 3, seed=1) > -0.8),
        (normal(4, 3, seed=2) > 0, normal(4, 3, 2, seed=3) > -0.5),
    ],
    mistakes={
        "product of two averages": (
            "That holds for independent events; an edit that recolours easily deforms as well.",
            "Take `and` image by image, then the mean over a reference's images.",
            lambda c, k: c.float().mean(1) * k.all(-1).float().mean(1),
            lambda c, k: c.float().mean(1) * k.float().mean((1, 2)),
            lambda c, k: c.float().mean(1) * k.float().mean(1).prod(-1),
        ),
        "average of changed and kept": (
            "Doing nothing keeps everything and gets half marks: both must hold in the same image.",
            "Combine with `&`, not with a mean.",
            lambda c, k: (c.float() + k.all(-1).float()).mean(1) / 2,
            lambda c, k: (c.float() + k.float().mean(-1)).mean(1) / 2,
            lambda c, k: torch.cat([c[..., None], k], -1).float().mean((1, 2)),
        ),
        "one kept fact is enough": (
            "An edit that keeps the background and loses the object is none.",
            "Require all facts: kept.all(-1).",
            lambda c, k: (c & k.any(-1)).float().mean(1),
        ),
        "facts counted in part": (
            "An image that keeps half of what it should is not half a success.",
            "Require all facts of the image, kept.all(-1), before any mean.",
            lambda c, k: (c.float() * k.float().mean(-1)).mean(1),
        ),
        "what was kept is forgotten": (
            "Then a plain caption without any image wins.",
            "Both `changed` and all of `kept` must hold.",
            lambda c, k: c.float().mean(1),
        ),
        "the requested change is forgotten": (
            "Then a copy of the reference wins.",
            "Both `changed` and all of `kept` must hold.",
            lambda c, k: k.all(-1).float().mean(1),
        ),
        "one number for all references": (
            "Methods are compared reference by reference; a grand mean cannot be paired.",
            "Take the mean over a reference's images only: mean(1).",
            lambda c, k: (c & k.all(-1)).float().mean(),
            lambda c, k: (c & k.all(-1)).float().mean(0),
        ),
        "one lucky image is enough": (
            "A method may then be drawn until it succeeds once.",
            "Take the mean over images, not any of them.",
            lambda c, k: (c & k.all(-1)).any(1).float(),
        ),
    },
)
