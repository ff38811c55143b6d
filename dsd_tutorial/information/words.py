"""One word of a caption removed or exchanged, so that what it adds can be measured."""

from __future__ import annotations

VOWELS = "aeiou"


def replace_word(text: str, word: str, by: str = "", which: int = 0) -> str:
    """Return `text` with a word, or several in a row, replaced; "" takes it out.

    An article before it follows the sound of what comes next, as letters tell it ("an orange
    circle" without "orange" is "a circle").

    Args:
        text: A caption.
        word: What is replaced.
        by: What comes in its place.
        which: Its occurrence, from 0.

    Raises:
        ValueError: `text` does not have the word so often.
    """
    words, wanted, new = text.split(), word.split(), by.split()
    starts = [
        i
        for i in range(len(words) - len(wanted) + 1)
        if wanted and [w.lower() for w in words[i : i + len(wanted)]] == word.lower().split()
    ]
    if not 0 <= which < len(starts):
        raise ValueError(
            f"{word!r} occurs {len(starts)} times in {text!r}; asked for number {which}, from 0"
        )
    start = starts[which]
    changed = words[:start] + new + words[start + len(wanted) :]
    if 0 < start < len(changed) and changed[start - 1].lower() in ("a", "an"):
        article = "an" if changed[start][0].lower() in VOWELS else "a"
        before = changed[start - 1]
        changed[start - 1] = article.capitalize() if before[0].isupper() else article
    return " ".join(changed)
