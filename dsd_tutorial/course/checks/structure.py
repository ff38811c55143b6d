"""The exercises on what an item asks, the text prior, and two nouns apart (notebook 01)."""

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


# -- without_prior(scores, on_references): (images, texts), (references, texts) -> (images, texts)

without_prior = Exercise(
    name="without_prior",
    hint="The prior is one number per text, and knows the reference images only.",
    solution=lambda scores, on_references: scores - on_references.mean(0),
    cases=[  # as many references as texts, so that a mean over the wrong axis fits as well
        (torch.tensor([[3.0, 1.0], [2.0, 0.0]]), torch.tensor([[2.0, 0.0], [4.0, 0.0]])),
        (normal(3, 3), normal(3, 3, seed=1)),
        (normal(3, 3, seed=2) + 5.0, normal(3, 3, seed=3) + 5.0),
    ],
    mistakes={
        "mean over the wrong axis": (
            "The rows are reference images: a mean over texts says nothing about any one text.",
            "Average over the references, on_references.mean(0): one number per text.",
            lambda s, r: s - r.mean(1),
            lambda s, r: s - r.mean(1, keepdim=True),
            lambda s, r: s - r.mean(),
        ),
        "prior from the item's own images": (
            "A mean over the candidates' own images contains the very match that is asked for.",
            "Take the prior from on_references, which has nothing to do with the item.",
            lambda s, r: s - s.mean(0),
            lambda s, r: s - s.mean(1, keepdim=True),
            lambda s, r: s - s.mean(),
        ),
        "multiplied instead of subtracted": (
            "Scores are logarithms: what is common to all images is a summand, not a factor.",
            "Subtract the prior: scores - prior.",
            lambda s, r: s * r.mean(0),
            lambda s, r: s / r.mean(0),
        ),
        "added instead of subtracted": (
            "A text that scores high with any image would be favoured twice.",
            "Take it off: scores - prior.",
            lambda s, r: s + r.mean(0),
            lambda s, r: r.mean(0) - s,
        ),
        "one reference only": (
            "One image may happen to fit one of the texts; the mean over several evens that out.",
            "Average over all rows of on_references.",
            lambda s, r: s - r[0],
            lambda s, r: s - r[-1],
            lambda s, r: s - r,
        ),
        "sum over the references": (
            "The prior would grow with the number of reference images.",
            "Take the mean over the references, not the sum.",
            lambda s, r: s - r.sum(0),
        ),
    },
)


# -- nouns_apart(first, second): (batch, pixels) each -> (batch,) ---------------------------------


def _centred(x: Tensor, axis: int = -1) -> Tensor:
    return x - x.mean(axis, keepdim=True)


def _correlation(a: Tensor, b: Tensor, axis: int = -1) -> Tensor:
    a, b = _centred(a, axis), _centred(b, axis)
    return (a * b).sum(axis) / (a.square().sum(axis) * b.square().sum(axis)).sqrt()


def _spreads(a: Tensor, b: Tensor, correction: int) -> Tensor:
    return a.std(-1, correction=correction) * b.std(-1, correction=correction)


nouns_apart = Exercise(
    name="nouns_apart",
    hint="A map compared with itself must give -1, and with its own negative +1.",
    solution=lambda first, second: -_correlation(first, second),
    cases=[
        (torch.tensor([[0.0, 0.0, 1.0, 3.0]]), torch.tensor([[5.0, 3.0, 2.0, 2.0]])),
        (normal(4, 16).exp(), normal(4, 16, seed=1).exp()),
        (0.1 * normal(3, 9, seed=2) + 4.0, 7.0 * normal(3, 9, seed=3) - 1.0),
    ],
    mistakes={
        "sign": (
            "The correlation is high where both nouns fall on the same pixels.",
            "Return minus the correlation.",
            _correlation,
        ),
        "not centred": (
            "Two maps that are positive everywhere look alike until their means are taken off.",
            "Subtract each map's mean over the pixels first: x - x.mean(-1, keepdim=True).",
            lambda a, b: -torch.cosine_similarity(a, b, dim=-1),
            lambda a, b: -(a * b).mean(-1) / _spreads(a, b, 0),
            lambda a, b: -(a * b).mean(-1),
        ),
        "not divided by the spreads": (
            "That is the covariance: a map with twice the contrast would count twice.",
            "Divide by the standard deviations of both maps over the pixels.",
            lambda a, b: -(_centred(a) * _centred(b)).mean(-1),
            lambda a, b: -(_centred(a) * _centred(b)).sum(-1),
        ),
        "n in one place, n - 1 in the other": (
            "std divides by n - 1, mean by n: a map would not correlate with itself by 1.",
            "Use std(-1, correction=0), or sums throughout.",
            lambda a, b: -(_centred(a) * _centred(b)).mean(-1) / _spreads(a, b, 1),
        ),
        "correlated over the batch": (
            "Each caption has two maps of its own; other captions have no part in it.",
            "Reduce over the pixels, dim=-1.",
            lambda a, b: -_correlation(a, b, 0),
            lambda a, b: -_correlation(a.flatten(), b.flatten()),
        ),
    },
)
