"""The exercises on what comes after pooling (notebook 01): one number per image, and a decision."""

from __future__ import annotations

import torch
from torch import Tensor

from dsd_tutorial.course.checks.exercise import Exercise, normal

# -- image_scores(scores): {layer: (2 batch, heads, pixels)} -> (batch,) --------------------------


def _image_scores(
    scores: dict[str, Tensor], half: int = 1, pool=lambda x: x.mean((1, 2))
) -> Tensor:
    return torch.stack([pool(x.chunk(2)[half]) for x in scores.values()]).mean(0)


def _every_other(scores: dict[str, Tensor], first: int) -> Tensor:
    return torch.stack([x[first::2].mean((1, 2)) for x in scores.values()]).mean(0)


def _layers(seed: int, batch: int = 3) -> dict[str, Tensor]:
    return {
        "down": normal(2 * batch, 2, 16, seed=seed),
        "mid": 1.0 + normal(2 * batch, 2, 4, seed=seed + 1),
        "up": 0.3 * normal(2 * batch, 2, 16, seed=seed + 2),
    }


image_scores = Exercise(
    name="image_scores",
    hint="The answer has one number per image: what may be averaged, and what must stay apart?",
    solution=_image_scores,
    cases=[(_layers(0),), (_layers(5),), (_layers(9, batch=1),)],
    mistakes={
        "mean over the batch": (
            "All items of a batch would share one score, and the ranking would be a coin toss.",
            "Average over heads and pixels: x.mean((1, 2)) keeps the first dimension.",
            lambda s: _image_scores(s).mean(),
            lambda s: _image_scores(s).mean() + 0 * _image_scores(s),
            lambda s: torch.stack([x.mean() for x in s.values()]).mean(),
        ),
        "included the unconditional half": (
            "The first half of a guidance batch has read the empty prompt: it knows no caption.",
            "Keep the second half alone: x[len(x) // 2:].",
            lambda s: (_image_scores(s, 0) + _image_scores(s, 1)) / 2,
            lambda s: torch.cat([_image_scores(s, 0), _image_scores(s, 1)]),
        ),
        "kept the unconditional half": (
            "Guidance puts the empty prompt first and the caption second.",
            "Keep the second half: x[len(x) // 2:].",
            lambda s: _image_scores(s, 0),
        ),
        "every other row": (
            "The batch holds all empty prompts first, then all captions; they do not alternate.",
            "Cut in the middle: x[len(x) // 2:].",
            lambda s: _every_other(s, 1),
            lambda s: _every_other(s, 0),
        ),
        "sum over pixels": (
            "A layer of four times the pixels would count four times as much.",
            "Take the mean over pixels and heads.",
            lambda s: _image_scores(s, pool=lambda x: x.sum((1, 2))),
            lambda s: _image_scores(s, pool=lambda x: x.sum(2).mean(1)),
        ),
        "all pixels in one pot": (
            "Layers differ in resolution: in one pot the finest layers drown the others.",
            "Average within each layer first, then over the layers.",
            lambda s: torch.cat([x.chunk(2)[1].flatten(1) for x in s.values()], 1).mean(1),
        ),
        "sum over layers": (
            "The score must not depend on how many layers were chosen.",
            "Take the mean over layers.",
            lambda s: len(s) * _image_scores(s),
        ),
    },
)


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
