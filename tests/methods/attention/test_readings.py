"""Readings of logits, and which word of a caption is what."""

import pytest
import torch

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
