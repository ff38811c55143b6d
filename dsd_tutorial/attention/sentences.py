"""Which words of a caption name things, describe them and say where they are: *our* short rule.

    read_sentence("a small red ring left of a blue square on a gray background".split())
    # things ring (small, red) and square (blue); the ring lies to the left; the background is gray

No grammar of the shapes world is used, and no tagger: a short rule for plain English captions.

* Articles, forms of "to be", prepositions, "and" and punctuation end a phrase. Its last word is a
  noun, the words before it are its adjectives.
* Behind "is" a word without an article describes the thing before it ("the ring is red"), and one
  with an article is another name for it ("the red object is a ring").
* left, right, above, over, below, under, top, bottom say where. Between a thing and the article of
  the next they relate the two ("a ring left of the square"); otherwise they place the thing before
  them ("a ring in the top left").
* "background" is no thing: its adjective describes the ground.

Verbs are not known: in "a man rides a horse" the rule takes "rides" for the noun. For captions of
another kind give `roles_of` a `reader` of your own, for instance one built on spaCy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

ARTICLES = frozenset("a an the this that these those one its his her their".split())
BE = frozenset("is are was were".split())
LINKS = frozenset("of to in on at by with and from near beside there".split())
IMAGE_NOUNS = frozenset("picture image photo photograph drawing painting".split())
GROUND = frozenset("background backdrop".split())
DIRECTIONS = {  # x to the right, y down
    "left": (-1.0, 0.0), "right": (1.0, 0.0), "above": (0.0, -1.0), "over": (0.0, -1.0),
    "below": (0.0, 1.0), "under": (0.0, 1.0), "top": (0.0, -1.0), "bottom": (0.0, 1.0),
    "center": (0.0, 0.0), "centre": (0.0, 0.0), "middle": (0.0, 0.0),
}  # fmt: skip
RELATING = ARTICLES | BE | {"to", "of"}  # what may stand between two things beside a direction
SIZES = {"large": 1.0, "big": 1.0, "huge": 1.0, "small": -1.0, "tiny": -1.0, "little": -1.0}


@dataclass
class Thing:
    """A noun and the adjectives that describe it, as indices into the words of the caption."""

    noun: int
    adjectives: list[int] = field(default_factory=list)
    size: float = 0.0  # 1 for large, -1 for small, 0 where nothing is said
    place: tuple[float, float] | None = None  # where in the image, each -1 to 1; (0, 0) the centre


@dataclass
class Sentence:
    """What a caption says, in indices into its words.

    Attributes:
        things: In the order in which they are named.
        direction: Where the first thing lies as seen from the second, or None.
        ground: The adjectives of the background.
    """

    things: list[Thing] = field(default_factory=list)
    direction: tuple[float, float] | None = None
    ground: list[int] = field(default_factory=list)


def read_sentence(words: Sequence[str]) -> Sentence:
    """Return what the words of a caption say of which thing; unknown forms leave things unsaid."""
    reader = _Reader([word.lower() for word in words])
    i = 0
    while i < len(words):
        end = i
        while end < len(words) and reader.describes(end):
            end += 1
        if end > i:
            reader.phrase(list(range(i, end)))
        else:
            reader.between(i)
            end = i + 1
        i = end
    reader.place_last()
    return reader.found


class _Reader:
    """Goes through the words once; knows the last phrase, and what stands between it and here."""

    def __init__(self, words: list[str]):
        self.words, self.found = words, Sentence()
        self.adjectives = self.found.ground  # of the last phrase
        self.where: list[str] = []  # directions since the last phrase
        self.links: list[str] = []  # all else that stands since then

    def describes(self, i: int) -> bool:
        word = self.words[i]
        known = ARTICLES | BE | LINKS | DIRECTIONS.keys()
        return word not in known and any(letter.isalnum() for letter in word)

    def between(self, i: int) -> None:
        (self.where if self.words[i] in DIRECTIONS else self.links).append(self.words[i])

    def place_last(self) -> None:
        if self.where and self.found.things:
            self.found.things[-1].place = _sum(self.where)

    def phrase(self, phrase: list[int]) -> None:
        """Take in the words of one phrase, its noun last."""
        *adjectives, noun = phrase
        word, found, links = self.words[noun], self.found, set(self.links)
        if word in IMAGE_NOUNS and self.words[noun + 1 : noun + 2] in (["of"], ["with"]):
            return
        article = bool(self.links) and self.links[-1] in ARTICLES
        says_more = bool(links & BE) and "there" not in links and not self.where
        if self.where and len(found.things) == 1 and article and links <= RELATING:
            if word not in GROUND:
                found.direction = _sum(self.where)
        else:
            self.place_last()
        if word in GROUND:
            found.ground += adjectives
            self.adjectives = found.ground
        elif says_more and not article:
            self.adjectives += phrase
        elif says_more and found.things:
            found.things[-1].noun = noun
            self.adjectives += adjectives
        else:
            found.things.append(Thing(noun, adjectives))
            self.adjectives = found.things[-1].adjectives
        sizes = [SIZES[self.words[i]] for i in phrase if self.words[i] in SIZES]
        if sizes and found.things:
            found.things[-1].size = sizes[-1]
        self.where, self.links = [], []


def _sum(where: Sequence[str]) -> tuple[float, float]:
    x, y = (sum(axis) for axis in zip(*(DIRECTIONS[word] for word in where), strict=True))
    return (x, y)
