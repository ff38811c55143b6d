"""Which tokens of a caption are its nouns, adjectives and so on, as tensors over a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsd_tutorial.attention.sentences import Sentence, read_sentence

THINGS = 2  # nouns that are read; further ones are left out
EDGE = 0.5  # where "left" is: halfway from the centre to the edge


@dataclass(frozen=True)
class Roles:
    """Which tokens of each caption play which part; rows of weights sum to 1, or to 0 for none.

    Attributes:
        nouns: Of the first `THINGS` things.
        adjectives: Of the same things.
        ground: The adjectives of the background.
        direction: Where the first thing is said to lie as seen from the second; x right, y down.
        place: Where a thing is said to lie in the image, each -1 to 1; NaN where nothing is said.
        size: 1 for a thing said to be large, -1 for small, 0 for neither.
    """

    nouns: Float[Tensor, "batch things tokens"]
    adjectives: Float[Tensor, "batch things tokens"]
    ground: Float[Tensor, "batch tokens"]
    direction: Float[Tensor, "batch 2"]
    place: Float[Tensor, "batch things 2"]
    size: Float[Tensor, "batch things"]

    def __getitem__(self, rows: Int[Tensor, " rows"] | slice) -> Roles:
        """Return the captions of these rows."""
        return Roles(*(getattr(self, f.name)[rows] for f in fields(self)))

    def to(self, device: torch.device | str) -> Roles:
        """Return the same on another device."""
        return Roles(*(getattr(self, f.name).to(device) for f in fields(self)))


def roles_of(
    model: Any, texts: Sequence[str], reader: Callable[[Sequence[str]], Sentence] = read_sentence
) -> Roles:
    """Return which tokens of each text are nouns, adjectives and so on.

    Args:
        model: A `StableDiffusion`: its tokenizer.
        texts: Captions.
        reader: From the words of a caption to a `Sentence`.
    """
    n, length = len(texts), model.context_length
    found = Roles(
        torch.zeros(n, THINGS, length), torch.zeros(n, THINGS, length), torch.zeros(n, length),
        torch.zeros(n, 2), torch.full((n, THINGS, 2), float("nan")), torch.zeros(n, THINGS),
    )  # fmt: skip
    for row, text in enumerate(texts):
        words = model.token_words(text)
        sentence = reader([spelled for spelled, _ in words])
        places = [torch.tensor(positions) for _, positions in words]
        for k, thing in enumerate(sentence.things[:THINGS]):
            found.nouns[row, k] = _share(places, [thing.noun], length)
            found.adjectives[row, k] = _share(places, thing.adjectives, length)
            found.size[row, k] = thing.size
            if thing.place is not None:
                found.place[row, k] = torch.tensor(thing.place) * EDGE
        found.ground[row] = _share(places, sentence.ground, length)
        if sentence.direction is not None:
            found.direction[row] = torch.tensor(sentence.direction)
    return found


def _share(places: list[Tensor], words: Sequence[int], length: int) -> Float[Tensor, " tokens"]:
    """Equal weights for words, and within a word for its tokens."""
    weights = torch.zeros(length)
    for word in words:
        weights[places[word]] += 1 / (len(words) * len(places[word]))
    return weights
