"""What a caption says, how it is phrased, and how it is read back.

A `Description` is the meaning, a phrasing is one wording of it, and
`parse(description.text(phrasing)) == description` holds for every phrasing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations, product

from dsd_tutorial.shapes.scene import (
    ALL_COLORS,
    ALL_SHAPES,
    ALL_TEXTURES,
    BACKGROUNDS,
    COLORS,
    POSITIONS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    relation_of,
)

# The first wording of each relation is its name.
RELATION_WORDS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}


@dataclass(frozen=True)
class Phrase:
    """What is said of one thing; None is left unsaid."""

    shape: str | None = None
    color: str | None = None
    size: str | None = None
    texture: str | None = None
    position: str | None = None

    def noun(self) -> str:
        """The noun phrase without article and position, such as 'small red circle'."""
        words = (self.size, self.texture, self.color, self.shape or "object")
        return " ".join(w for w in words if w)

    def true_of(self, thing: Thing) -> bool:
        """Whether everything that is said holds of `thing`."""
        return all(said in (None, getattr(thing, key)) for key, said in vars(self).items())


@dataclass(frozen=True)
class Description:
    """What is said of a scene: zero to two things, their relation, the background."""

    things: tuple[Phrase, ...]
    relation: str | None = None
    background: str | None = None

    def true_of(self, scene: Scene) -> bool:
        """Whether everything that is said holds of `scene` (more things may be in it)."""
        if self.background not in (None, scene.background):
            return False
        return any(
            all(p.true_of(t) for p, t in zip(self.things, chosen, strict=True))
            and (self.relation is None or relation_of(*chosen) == self.relation)
            for chosen in permutations(scene.things, len(self.things))
        )

    def phrasings(self) -> list[str]:
        """Every wording of this description; the first is the plainest."""
        return list(dict.fromkeys(self._wordings()))

    def text(self, phrasing: int = 0) -> str:
        """Wording number `phrasing` (counted modulo the number of wordings)."""
        wordings = self.phrasings()
        return wordings[phrasing % len(wordings)]

    def _wordings(self) -> Iterator[str]:
        place = f" on a {self.background} background" if self.background else ""
        ahead = f"on a {self.background} background, " if self.background else ""
        if not self.things:
            if not self.background:
                raise ValueError("a description must say something")
            yield f"the background is {self.background}"
            yield f"a picture with a {self.background} background"
            return
        body = [_article(p.noun()) + (f" {p.position}" if p.position else "") for p in self.things]
        if self.relation is None:
            what, verb = " and ".join(body), "is" if len(body) == 1 else "are"
            yield f"{what}{place}"
            yield f"there {verb} {what}{place}"
            yield f"a picture of {what}{place}"
            only = self.things[0]
            if len(body) == 1 and ahead:
                yield f"{ahead}{what}"
            elif len(body) == 1 and only == Phrase(only.shape, only.color):  # nothing else is said
                if only.shape and only.color:
                    yield f"the {only.shape} is {only.color}"
                    yield f"the {only.color} object is {_article(only.shape)}"
            return
        nouns = [p.noun() for p in self.things]
        for words in RELATION_WORDS[self.relation]:
            yield f"{body[0]} {words} {body[1]}{place}"
            yield f"there is {body[0]} {words} {body[1]}{place}"
            yield f"the {nouns[0]} is {words} the {nouns[1]}{place}"
            if ahead:
                yield f"{ahead}{body[0]} {words} {body[1]}"


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _choice(values: Iterable[str]) -> str:
    return "|".join(sorted(values, key=len, reverse=True))


_NOUN_RE = re.compile(
    rf"(?:an? |the )?(?:(?P<size>{_choice(SIZES)}) )?(?:(?P<texture>{_choice(ALL_TEXTURES)}) )?"
    rf"(?:(?P<color>{_choice(ALL_COLORS)}) )?(?:object|(?P<shape>{_choice(ALL_SHAPES)}))"
    rf"(?: (?P<position>{_choice(POSITIONS)}))?"
)
_BACKGROUND = _choice(BACKGROUNDS)
_TAIL_RE = re.compile(rf" on a ({_BACKGROUND}) background$")
_HEAD_RE = re.compile(rf"^on a ({_BACKGROUND}) background, ")
_ONLY_RE = re.compile(rf"(?:the background is|a picture with a) ({_BACKGROUND})(?: background)?")
_WORDED = {words: name for name, all_words in RELATION_WORDS.items() for words in all_words}
_RELATION_RE = re.compile(rf" (?:is )?({_choice(_WORDED)}) (?=an? |the )")
_COLOR_IS = re.compile(rf"the ({_choice(ALL_SHAPES)}) is ({_choice(ALL_COLORS)})")
_SHAPE_IS = re.compile(rf"the ({_choice(ALL_COLORS)}) object is an? ({_choice(ALL_SHAPES)})")


def _phrase(text: str, whole: str) -> Phrase:
    match = _NOUN_RE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"cannot read {text!r} in the caption {whole!r}; expected a phrase such as "
            "'a small red circle on the left' (shapes: " + ", ".join(ALL_SHAPES) + ")"
        )
    return Phrase(**match.groupdict())


def parse(text: str) -> Description:
    """What `text` says.

    Raises:
        ValueError: the text is outside the grammar; the phrase is named.
    """
    rest = " ".join(text.lower().strip().rstrip(".").split())
    if match := _ONLY_RE.fullmatch(rest):
        return Description((), None, match[1])
    if match := _COLOR_IS.fullmatch(rest):
        return Description((Phrase(shape=match[1], color=match[2]),))
    if match := _SHAPE_IS.fullmatch(rest):
        return Description((Phrase(shape=match[2], color=match[1]),))
    background = None
    for pattern in (_TAIL_RE, _HEAD_RE):
        if match := pattern.search(rest):
            background, rest = match[1], pattern.sub("", rest, count=1)
    rest = re.sub(r"^(?:there (?:is|are)|a picture of) ", "", rest)
    if match := _RELATION_RE.search(rest):
        parts = (rest[: match.start()], rest[match.end() :])
        relation = _WORDED[match[1]]
    else:
        parts, relation = rest.split(" and "), None
    return Description(tuple(_phrase(part, text) for part in parts), relation, background)


def full_description(scene: Scene, background: bool = True, details: bool = True) -> Description:
    """Everything that can be said of `scene`; `details` are size and position of a lone thing."""
    alone = len(scene.things) == 1 and details
    things = tuple(
        Phrase(
            shape=t.shape,
            color=t.color,
            size=t.size if alone else None,
            texture=None if t.texture == "plain" else t.texture,
            position=t.position if alone else None,
        )
        for t in scene.things
    )
    return Description(things, scene.relation, scene.background if background else None)


def describe(
    scene: Scene, rng: random.Random, partial: float = 0.08, details: float = 0.35
) -> Description:
    """A description as people give it: true, and often leaving something unsaid.

    The background is named in half of all, size and position in a share `details` of those scenes
    that have one, the relation in seven of eight; a share `partial` says a single fact or
    names only a colour or a shape.
    """
    said = full_description(scene, background=rng.random() < 0.5)
    if len(said.things) == 2 and rng.random() < 0.5:  # the other thing first
        said = full_description(Scene(scene.things[::-1], scene.background), bool(said.background))
    if rng.random() < partial:
        return _one_fact(scene, said, rng)
    things = list(said.things)
    if len(things) == 1:
        size = things[0].size if rng.random() < details else None
        position = things[0].position if rng.random() < details else None
        things = [replace(things[0], size=size, position=position)]
    relation = said.relation if rng.random() < 0.875 else None
    return Description(tuple(things), relation, said.background)


def _one_fact(scene: Scene, said: Description, rng: random.Random) -> Description:
    kind = rng.randrange(4)
    chosen = rng.choice(said.things)
    if kind == 0:
        return Description((), None, scene.background)
    if kind == 1:
        return Description((Phrase(shape=chosen.shape, color=chosen.color),))
    unsaid = rng.choice(("shape", "color"))
    things = tuple(replace(p, **{unsaid: None}, size=None, position=None) for p in said.things)
    return Description(things, said.relation, said.background)


def caption(scene: Scene, rng: random.Random, details: float = 0.35) -> str:
    """A random wording of a random true description of `scene`."""
    return rng.choice(describe(scene, rng, details=details).phrasings())


def alternatives(text: str) -> list[str]:
    """`text` with every value that its words could have had: the choices of a zero-shot question.

    "a blue object" gives "a red object", "a green object", ..., itself among them. Where two things
    are named, one is to be added and no value replaced: [""]; likewise outside the grammar.
    """
    try:
        said = parse(text)
    except ValueError:
        return [""]
    if len(said.things) > 1:
        return [""]
    grounds = tuple(BACKGROUNDS) if said.background else (None,)
    if not said.things:
        return [replace(said, background=ground).text() for ground in grounds]
    thing = said.things[0]
    colors = tuple(COLORS) if thing.color else (None,)
    shapes = SHAPES if thing.shape else (None,)
    return [
        Description((replace(thing, color=color, shape=shape),), None, ground).text()
        for color, shape, ground in product(colors, shapes, grounds)
    ]
