"""Readings of logits, and which word of a caption is what."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from scipy.stats import entropy

from dsd_tutorial.attention import READINGS, read_sentence, readings_of, roles_of
from dsd_tutorial.attention.readings import OF_MAPS
from dsd_tutorial.shapes import TASKS, make_task, parse

TEXTS = [
    "a red circle left of a blue square",
    "there is a green star below a purple ring on a pink background",
    "a small yellow cross in the top left",
    "the circle is orange",
]
WHERE = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
SHUFFLED_PIXELS = {  # what does not ask where
    "log_sum_exp", "mean_logit", "word_log_sum_exp", "noun_logit", "adjective_logit", "peak",
    "spread", "apart", "agreement", "adjective_at_noun", "binding", "size", "ground",
    "ground_apart",
}  # fmt: skip


@pytest.fixture(scope="module")
def roles(tiny):
    return roles_of(tiny, TEXTS)


@pytest.fixture(scope="module")
def logits(tiny):
    numbers = torch.Generator().manual_seed(3)
    return 2 * torch.randn(len(TEXTS), 3, 64, tiny.context_length, generator=numbers)


@pytest.mark.parametrize("task", TASKS)
def test_sentences_of_the_world_are_read_as_its_grammar_does(task):
    for text in make_task(task, 40, seed=5).texts:
        words = text.replace(",", " ,").split()
        found, said = read_sentence(words), parse(text)
        assert len(found.things) == len(said.things), text
        for thing, phrase in zip(found.things, said.things, strict=True):
            assert words[thing.noun] == (phrase.shape or "object"), text
            described = {words[i] for i in thing.adjectives}
            assert {x for x in (phrase.color, phrase.size) if x} <= described, text
            assert (thing.size != 0) == (phrase.size is not None), text
            assert (thing.place is not None) == (phrase.position is not None), text
        assert found.direction == (WHERE[said.relation] if said.relation else None), text
        assert [words[i] for i in found.ground] == [said.background] * (said.background is not None)


@pytest.mark.parametrize(
    ("text", "nouns", "adjectives"),
    [
        ("a photo of a brown dog on a wooden table", ["dog", "table"], [["brown"], ["wooden"]]),
        (
            "two children playing with a red ball",
            ["playing", "ball"],
            [["two", "children"], ["red"]],
        ),
        ("the ring is red and the background is gray", ["ring"], [["red"]]),
        ("the red object is a ring", ["ring"], [["red"]]),
        ("", [], []),
        (", . !", [], []),
    ],
)
def test_other_sentences(text, nouns, adjectives):
    words = text.split()
    things = read_sentence(words).things
    assert [words[t.noun] for t in things] == nouns
    assert [[words[i] for i in t.adjectives] for t in things] == adjectives


def test_roles_point_at_the_words_tokens(tiny, roles):
    for row, text in enumerate(TEXTS):
        spelled = {w.lower(): p for w, p in tiny.token_words(text)}
        noun = parse(text).things[0].shape
        assert roles.nouns[row, 0].nonzero()[:, 0].tolist() == list(spelled[noun])
    sums = roles.nouns.sum(-1)
    assert torch.allclose(sums, sums.round())
    assert roles.nouns[3, 1].sum() == 0 and roles.size[2].tolist() == [-1, 0]
    assert roles.place[2, 0].tolist() == [-0.5, -0.5] and roles.place[0].isnan().all()


def test_words_of_several_tokens_weigh_like_any_other(tiny):
    text = "a pink striped heart on a cyan background"
    spelled, roles = dict(tiny.token_words(text)), roles_of(tiny, [text])
    weights = {"pink": roles.adjectives, "striped": roles.adjectives, "heart": roles.nouns}
    assert len(spelled["striped"]) > 1 and len(spelled["heart"]) > 1
    for word, of in weights.items():
        share = of[0, 0, list(spelled[word])]
        assert torch.allclose(share.sum(), torch.tensor(1.0 if word == "heart" else 0.5))
        assert torch.allclose(share, share[:1])
    assert roles.adjectives[0, 0].count_nonzero() == len(spelled["pink"] + spelled["striped"])
    assert torch.allclose(roles.ground.sum(), torch.tensor(1.0))


def test_every_reading_of_a_mean_but_one_has_its_twin_of_maps():
    assert set(OF_MAPS) == {
        "map_word_log_sum_exp", "map_noun", "map_adjective", "map_peak", "map_spread",
        "map_agreement", "map_adjective_at_noun", "map_binding", "map_direction", "map_place",
        "map_size", "map_ground", "map_ground_apart",
    }  # fmt: skip
    assert set(READINGS) == set(OF_MAPS) | SHUFFLED_PIXELS | {"direction", "place"}


@pytest.mark.parametrize("name", READINGS)
def test_a_reading_does_not_depend_on_its_batch_or_the_order_of_heads(name, logits, roles):
    read = READINGS[name]
    whole = read(logits, roles)
    assert whole.shape == (len(TEXTS),) and whole.isfinite().all()
    alone = torch.cat([read(logits[i : i + 1], roles[i : i + 1]) for i in range(len(TEXTS))])
    assert torch.allclose(whole, alone, atol=1e-5)
    assert torch.allclose(whole, read(logits.flip(1), roles), atol=1e-5)


@pytest.mark.parametrize("name", READINGS)
def test_only_some_readings_ask_where(name, logits, roles):
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    same = torch.allclose(
        READINGS[name](logits, roles), READINGS[name](logits[:, :, order], roles), atol=1e-4
    )
    assert same == (name in SHUFFLED_PIXELS or name.removeprefix("map_") in SHUFFLED_PIXELS
                    or f"{name.removeprefix('map_')}_logit" in SHUFFLED_PIXELS)  # fmt: skip


def test_a_constant_moves_the_papers_score_and_no_structure(logits, roles):
    for name in ("peak", "spread", "apart", "binding", "adjective_at_noun", "direction", "place"):
        moved = READINGS[name](logits + 5, roles)
        assert torch.allclose(READINGS[name](logits, roles), moved, atol=1e-4), name
    raised = READINGS["log_sum_exp"](logits + 5, roles) - READINGS["log_sum_exp"](logits, roles)
    assert torch.allclose(raised, torch.full_like(raised, 5.0), atol=1e-4)


@pytest.mark.parametrize("name", OF_MAPS)
def test_what_a_pixel_gives_to_all_tokens_alike_is_not_in_its_map(name, logits, roles):
    alike = torch.randn(1, 1, logits.shape[2], 1, generator=torch.Generator().manual_seed(1))
    want = READINGS[name](logits, roles)
    assert torch.allclose(READINGS[name](logits + 5 * alike, roles), want, atol=1e-3)
    assert torch.allclose(readings_of(logits, roles, ["peak", name])[1], want, atol=1e-6)
    assert torch.allclose(OF_MAPS[name](logits.softmax(-1).log(), roles), want, atol=1e-4)


def test_a_mirror_turns_left_into_right(tiny, logits):
    texts = ["a red circle left of a blue square", "a red circle right of a blue square",
             "a red circle above a blue square"]  # fmt: skip
    roles, seen = roles_of(tiny, texts), logits[:1].expand(3, -1, -1, -1)
    mirrored = seen.unflatten(2, (8, 8)).flip(3).flatten(2, 3)
    left, right, above = READINGS["direction"](seen, roles)
    flipped = READINGS["direction"](mirrored, roles)
    assert torch.allclose(left, -right, atol=1e-5) and left.abs() > 1e-3
    assert torch.allclose(flipped[:2], torch.stack([right, left]), atol=1e-5)
    assert torch.allclose(flipped[2], above, atol=1e-5)


def test_two_nouns_on_two_blobs(tiny):
    """What the readings say of a drawing in which everything is where the caption has it."""
    text = "a red circle left of a blue square"
    roles = roles_of(tiny, [text])
    grid = torch.zeros(1, 1, 8, 8, tiny.context_length)
    (noun, other), (adjective, second) = roles.nouns[0].argmax(-1), roles.adjectives[0].argmax(-1)
    grid[..., 3:5, 1:3, [noun, adjective]] = 6.0  # circle and red on the left
    grid[..., 3:5, 5:7, [other, second]] = 6.0  # square and blue on the right
    right = grid.flatten(2, 3)
    exchanged = right.clone()
    exchanged[..., [noun, other]] = right[..., [other, noun]]  # the nouns change places
    for name in ("direction", "binding", "adjective_at_noun", "agreement"):
        assert READINGS[name](right, roles) > READINGS[name](exchanged, roles) + 0.1, name
    together = right.clone()
    together[..., other] = right[..., noun]
    assert READINGS["apart"](right, roles) > READINGS["apart"](together, roles) + 0.5


@pytest.mark.parametrize("name", ["apart", "binding", "direction"])
def test_one_thing_has_no_relation(name, logits, roles):
    assert READINGS[name](logits, roles)[3] == 0


def test_unknown_readings_and_oblong_images_are_refused(logits, roles):
    with pytest.raises(ValueError, match="unknown reading 'where'; choose from log_sum_exp"):
        readings_of(logits, roles, ["peak", "where"])
    with pytest.raises(ValueError, match="no reading is named"):
        readings_of(logits, roles, [])
    with pytest.raises(ValueError, match="60 pixels are no square"):
        READINGS["place"](logits[:, :, :60], roles)


def test_apart_is_minus_the_correlation_of_the_two_maps(logits, roles):
    maps = torch.einsum("bpt,bkt->bkp", logits.mean(1).softmax(-1), roles.nouns)[:2]
    want = torch.stack([-torch.corrcoef(pair)[0, 1] for pair in maps])
    assert torch.allclose(READINGS["apart"](logits, roles)[:2], want, atol=1e-3)


def by_loops(name: str, logits: np.ndarray, roles) -> float:
    """One reading of one caption, logits (heads, pixels, tokens), as its docstring says it."""
    mean = logits.mean(0)
    if name.startswith("map_"):
        name = {"map_noun": "noun_logit", "map_adjective": "adjective_logit"}.get(name, name[4:])
        mean = (logits - logsumexp(logits, -1, keepdims=True)).mean(0)
    side = math.isqrt(len(mean))
    line = np.linspace(-1, 1, side)
    things = [
        SimpleNamespace(
            noun=mean @ noun if noun.any() else None, share=softmax(mean, -1) @ noun,
            adjective=mean @ adjective if adjective.any() else None, place=place, size=size,
        )
        for noun, adjective, place, size in zip(
            *(getattr(roles, x)[0].double().numpy() for x in ("nouns", "adjectives", "place")),
            roles.size[0].tolist(), strict=True,
        )
    ]  # fmt: skip
    nouns = [t for t in things if t.noun is not None]
    adjectives = [t for t in things if t.adjective is not None]
    pairs = [t for t in nouns if t.adjective is not None]
    ground = mean @ roles.ground[0].double().numpy() if roles.ground.any() else None

    def average(numbers):
        return float(np.mean(numbers)) if len(numbers) else 0.0

    def where(field):
        return softmax(2 * (field - field.mean()) / field.std(ddof=1))

    def centre(field):
        over = where(field).reshape(side, side)
        return np.array([over.sum(0) @ line, over.sum(1) @ line])

    def log_mean_exp(field):
        return logsumexp(field) - math.log(len(field))

    if name == "log_sum_exp":
        return logsumexp(logits, -1).mean()
    if name == "mean_logit":
        return (softmax(logits, -1) * logits).sum(-1).mean()
    if name == "word_log_sum_exp":
        words = [t.noun for t in nouns] + [t.adjective for t in adjectives]
        return average([log_mean_exp(field) for field in words])
    if name == "noun_logit":
        return average([t.noun.mean() for t in nouns])
    if name == "adjective_logit":
        return average([t.adjective.mean() for t in adjectives])
    if name == "peak":
        return average([t.noun.max() - t.noun.mean() for t in nouns])
    if name == "spread":
        return average([t.noun.std(ddof=1) for t in nouns])
    if name == "apart":
        return -np.corrcoef(*(t.share for t in nouns))[0, 1] if len(nouns) == 2 else 0.0
    if name == "agreement":
        return average([
            log_mean_exp(t.noun + t.adjective) - log_mean_exp(t.noun) - log_mean_exp(t.adjective)
            for t in pairs
        ])  # fmt: skip
    if name == "adjective_at_noun":
        return average([where(t.noun) @ t.adjective - t.adjective.mean() for t in pairs])
    if name == "binding":
        if len(nouns) < 2:
            return 0.0
        other = {id(things[0]): things[1], id(things[1]): things[0]}
        return average([
            (where(t.noun) - where(other[id(t)].noun)) @ t.adjective for t in adjectives
        ])  # fmt: skip
    if name == "direction":
        if len(nouns) < 2:
            return 0.0
        return (centre(nouns[0].noun) - centre(nouns[1].noun)) @ roles.direction[0].numpy()
    if name == "place":
        placed = [t for t in nouns if np.isfinite(t.place).all()]
        off = [centre(t.noun + (0 if t.adjective is None else t.adjective)) for t in placed]
        return average([-np.sum((o - t.place) ** 2) for o, t in zip(off, placed, strict=True)])
    if name == "size":
        return average([
            (entropy(where(t.noun)) / math.log(len(mean)) - 0.5) * t.size for t in nouns
        ])  # fmt: skip
    if name == "ground":
        return 0.0 if ground is None else ground.mean()
    assert name == "ground_apart"
    if ground is None or not nouns:
        return 0.0
    return -np.corrcoef(ground, things[0].noun)[0, 1]


@pytest.mark.parametrize("name", READINGS)
def test_a_reading_is_what_loops_over_captions_give(tiny, name):
    texts = [
        *TEXTS,
        "a large red ring and a small square",
        "a pink background",
        "a gray circle in the bottom right on a white background",
        "a ring on a black background",
    ]
    roles = roles_of(tiny, texts)
    numbers = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(len(texts), 3, 49, tiny.context_length, generator=numbers)
    found = READINGS[name](logits, roles)
    want = [by_loops(name, logits[i].double().numpy(), roles[i : i + 1]) for i in range(len(texts))]
    assert len({*want}) > 1
    torch.testing.assert_close(found, torch.tensor(want, dtype=torch.float32), atol=1e-4, rtol=1e-4)
