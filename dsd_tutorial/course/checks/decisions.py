"""The exercise on what a Winoground item asks (notebook 01)."""

from __future__ import annotations

import torch
from torch import Tensor

from dsd_tutorial.course.checks.exercise import Exercise, normal

# -- text_wins(scores): (items, 2 images, 2 texts) -> (items,) ------------------------------------


def _first(s: Tensor) -> Tensor:
    return s[:, 0, 0] > s[:, 0, 1]


def _second(s: Tensor) -> Tensor:
    return s[:, 1, 1] > s[:, 1, 0]


def _text_wins(s: Tensor) -> Tensor:
    return _first(s) & _second(s)


def _image_wins(s: Tensor) -> Tensor:
    return _text_wins(s.transpose(1, 2))


text_wins = Exercise(
    name="text_wins",
    hint="Write one table down: rows are images, columns texts, the right pairs the diagonal.",
    solution=_text_wins,
    cases=[
        (torch.tensor([[[1.0, 0.0], [2.0, 3.0]], [[5.0, 4.0], [1.0, 0.0]]]),),
        (torch.randint(0, 3, (60, 2, 2), generator=torch.Generator().manual_seed(0)).float(),),
        (normal(40, 2, 2),),
    ],
    mistakes={
        "arg-max over the wrong axis": (
            "That asks each text for its image, which is the image score.",
            "Compare within a row: scores[:, 0, 0] with scores[:, 0, 1].",
            _image_wins,
            lambda s: (s.argmax(1) == torch.arange(2)).all(1),
        ),
        "a tie counts as a win": (
            "A score that is constant would win everything; arg-max breaks ties for index 0.",
            "Compare with >, strictly.",
            lambda s: (s[:, 0, 0] >= s[:, 0, 1]) & (s[:, 1, 1] >= s[:, 1, 0]),
            lambda s: (s.argmax(2) == torch.arange(2)).all(1),
        ),
        "only one image is compared": (
            "An item is won when both images prefer their own text.",
            "Join the two comparisons with &.",
            _first,
            _second,
        ),
        "one right image is enough": (
            "Both images must prefer their own text; a constant preference gets half of them.",
            "Use & instead of | or of a mean.",
            lambda s: _first(s) | _second(s),
            lambda s: (_first(s).float() + _second(s)) / 2,
        ),
        "group score": (
            "You also ask the texts for their images: that is the stricter group score.",
            "Keep the two comparisons within rows only.",
            lambda s: _text_wins(s) & _image_wins(s),
        ),
        "the second image's own text is the second": (
            "Image 1 belongs to text 1: the diagonal is right, not the first column.",
            "For image 1 ask scores[:, 1, 1] > scores[:, 1, 0].",
            lambda s: _first(s) & (s[:, 1, 0] > s[:, 1, 1]),
        ),
    },
)
