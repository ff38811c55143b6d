"""Which token positions a score or a heat map reads: by name, or by a word of the caption.

Positions of a caption in Stable Diffusion 1.x: start token (0), words, end token (EOS), then
padding, which repeats the end token. The start token takes much of the attention although its state
does not depend on the text, and most of the other positions are padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

Word = str | tuple[str, int]  # (word, k) is its k-th occurrence alone, from 0

TOKEN_MASKS = {
    "all": "every position",
    "words": "strictly between the start and the end token",
    "no_start": "every position but the start token",
    "no_padding": "start token, words and end token",
    "eos": "the end token alone",
}


def token_mask(model: Any, texts: Sequence[str], name: str) -> Bool[Tensor, "texts tokens"] | None:
    """Return the positions that `name` (one of `TOKEN_MASKS`) keeps, or None for "all".

    Raises:
        ValueError: For an unknown name, and for "words" of a caption without words.
    """
    if name not in TOKEN_MASKS:
        raise ValueError(f"unknown token_mask {name!r}; choose one of {', '.join(TOKEN_MASKS)}")
    if name == "all":
        return None
    place = torch.arange(model.context_length)[None, :]  # (1, tokens)
    end = model.eos_positions(list(texts)).cpu()[:, None]  # (texts, 1)
    if name == "words":
        empty = [text for text, at in zip(texts, end[:, 0].tolist(), strict=True) if at <= 1]
        if empty:
            raise ValueError(f"caption {empty[0]!r} has no words: use another token_mask for it")
        return (place > 0) & (place < end)
    if name == "no_start":
        return (place > 0).expand(len(end), -1)
    return place <= end if name == "no_padding" else place == end


def word_positions(model: Any, text: str, word: Word) -> list[int]:
    """Return the token positions of a word, or of several words in a row, in `text`.

    Every occurrence counts, unless `word` is (word, k). Upper and lower case are one.

    Raises:
        ValueError: With the words there are, when `text` does not have it.
    """
    phrase, which = (word, None) if isinstance(word, str) else word
    words = [(spelled.lower(), places) for spelled, places in model.token_words(text)]
    wanted = phrase.lower().split()
    runs = [
        [p for _, places in words[i : i + len(wanted)] for p in places]
        for i in range(len(words) - len(wanted) + 1)
        if wanted and [spelled for spelled, _ in words[i : i + len(wanted)]] == wanted
    ]
    if which is not None:
        runs = runs[which : which + 1] if which >= 0 else []
    if not runs:
        have = ", ".join(repr(spelled) for spelled, _ in words)
        raise ValueError(f"{word!r} is not in {text!r}; its words are {have or '(none)'}")
    return sorted({p for run in runs for p in run})
