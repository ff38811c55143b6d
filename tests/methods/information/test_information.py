"""Information from a model's passes."""

from dataclasses import replace

import pytest
import torch

from dsd_tutorial.information import (
    error_term,
    error_weights,
    information,
    information_scores,
    integrands,
    level_grid,
    logistic_levels,
    replace_word,
)
from dsd_tutorial.matching import components
from dsd_tutorial.shapes import make_task, random_scenes, render
from dsd_tutorial.stable_diffusion import shared_noise

TEXTS = ["a red circle", "a blue square"]
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def images():
    return render(random_scenes(2, 0))[0]


def by_hand(model, image, text, given, steps, seed=0):
    """i_s and i_o by the trapezoid rule, written out."""
    grid = level_grid(model, steps)
    z0, total = model.encode_image(image[None]), torch.zeros(2)
    for i, t in enumerate(steps):
        e = shared_noise(z0.shape[1:], seed, i)
        z = model.add_noise(z0, e, t)
        with torch.no_grad():
            without = model.predict_noise(z, t, model.encode_text([given]))
            under = model.predict_noise(z, t, model.encode_text([text]))
        squares = (e - without).square().sum() - (e - under).square().sum()
        total += (
            grid.weights[i].float() / 2 * torch.stack([squares, (under - without).square().sum()])
        )
    return total


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_it_is_the_formula(tiny, images, kind, monkeypatch):
    monkeypatch.setattr(type(tiny), "prediction_type", kind)
    steps = [100, 450, 800]
    found = information(tiny, images, TEXTS, ["", "a square"], levels=steps, **QUIET)
    for i, given in enumerate(["", "a square"]):
        standard, orthogonal = by_hand(tiny, images[i], TEXTS[i], given, steps)
        torch.testing.assert_close(found.total("standard")[i], standard, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found.total("orthogonal")[i], orthogonal, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["standard", "orthogonal"])
def test_a_map_sums_to_its_total(tiny, images, kind):
    """The total is computed here from whole fields, by another way round."""
    found = information(tiny, images, TEXTS, levels=4, noises=2, **QUIET)
    squares = found.errors[..., 0] - found.errors[..., 1]
    total = found.total(kind)
    if kind == "standard":
        total = squares.double() @ found.levels.weights / 2
    scale = found.map(kind).abs().sum((1, 2))
    assert ((found.map(kind).sum((1, 2)) - total).abs() / scale).max() < 1e-5


def test_no_text_against_no_text_says_nothing(tiny, images):
    found = information(tiny, images, ["", ""], levels=3, **QUIET)
    assert float(found.orthogonal.abs().max()) == 0 and float(found.standard.abs().max()) == 0


def test_exchanged_sides_change_the_sign_of_standard_alone(tiny, images):
    there = information(tiny, images[:1], TEXTS[:1], TEXTS[1], levels=3, **QUIET)
    back = information(tiny, images[:1], TEXTS[1:], TEXTS[0], levels=3, **QUIET)
    torch.testing.assert_close(there.total("standard"), -back.total("standard"))
    torch.testing.assert_close(there.total(), back.total())


def test_standard_of_two_words_is_the_sum_of_each(tiny, images):
    """i_s is a difference of two errors, so that the words of a caption add up; i_o does not."""
    chain = ["", "a circle", "a red circle"]
    how = {"levels": [200, 600], **QUIET}
    image = images[:1]
    parts = [
        information(tiny, image, [after], before, **how).total("standard")
        for before, after in zip(chain, chain[1:], strict=False)
    ]
    whole = information(tiny, image, chain[-1:], "", **how).total("standard")
    torch.testing.assert_close(sum(parts), whole, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_batches_do_not_matter(tiny, images, size):
    pairs = [(1, 0), (0, 0), (0, 1), (1, 1), (0, 1)]
    how = {"pairs": pairs, "levels": [100, 700], "noises": 2, **QUIET}
    found = information(tiny, images, TEXTS, batch_size=size, **how)
    for row, (image, text) in enumerate(pairs):
        alone = information(
            tiny, images[image, None], [TEXTS[text]], levels=[100, 700], noises=2, **QUIET
        )
        torch.testing.assert_close(found.orthogonal[row], alone.orthogonal[0], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(found.errors[row], alone.errors[0], rtol=1e-4, atol=1e-3)


def test_each_image_may_have_its_own_noise(tiny, images):
    found = information(tiny, images, TEXTS, levels=2, seed=[3, 8], **QUIET)
    other = information(tiny, images[1:], TEXTS[1:], levels=2, seed=8, **QUIET)
    torch.testing.assert_close(found.errors[1:], other.errors, rtol=1e-4, atol=1e-3)
    one = information(tiny, images, TEXTS, levels=2, seed=3, **QUIET)
    assert not torch.allclose(found.errors[1], one.errors[1])
    with pytest.raises(ValueError, match="3 seeds for 2 images"):
        information(tiny, images, TEXTS, seed=[1, 2, 3], **QUIET)


def test_levels_can_be_chosen_afterwards(tiny, images):
    found = information(tiny, images, TEXTS, levels=[100, 400, 700], **QUIET)
    some = found.at(level_grid(tiny, [700, 100]))
    torch.testing.assert_close(some.standard, found.standard[:, [2, 0]])
    assert some.levels.steps == (700, 100)
    with pytest.raises(ValueError, match="time step 300 was not computed"):
        found.at(level_grid(tiny, [300, 100]))


def test_tails_are_the_integrand_at_the_ends(tiny, images):
    found = information(tiny, images, TEXTS, levels=[700, 100, 400], **QUIET)
    torch.testing.assert_close(found.tails(), found.by_level()[:, :2])


def test_random_levels_can_be_used(tiny, images):
    levels = logistic_levels(3, model=tiny, seed=5)
    found = information(tiny, images, TEXTS, levels=levels, **QUIET)
    assert found.orthogonal.shape == (2, 3, 16, 16)


def test_the_error_term_is_that_of_matching(tiny, images):
    steps = [100, 400, 700]
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1)]
    found = information(tiny, images, TEXTS, pairs=pairs, levels=steps, seed=4, **QUIET)
    same = components(
        tiny, images, TEXTS, steps=steps, seed=4, token_mask="all", errors=True, progress=False
    )
    torch.testing.assert_close(error_term(found), same.errors.mean(1), rtol=1e-3, atol=1e-4)
    weighted = (error_weights(found) * found.by_level("standard")).sum(1)
    torch.testing.assert_close(weighted, error_term(found), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["comvg", "refcoco", "winoground"])
def test_scores_of_a_task_are_those_of_its_pairs(tiny, name):
    items = make_task(name, 2)
    scores = information_scores(tiny, items, levels=[200, 800], progress=False)
    images, texts = (torch.from_numpy(x) for x in items.pairs())
    found = information(
        tiny, items.images(), items.texts, pairs=torch.stack([images, texts], 1),
        levels=[200, 800], **QUIET,
    )  # fmt: skip
    for kind in ("standard", "orthogonal"):
        torch.testing.assert_close(scores[kind].flatten(), found.total(kind), rtol=1e-3, atol=1e-3)
    assert scores["error"].shape == (2, items.shape[0] * items.shape[1])


def test_bad_calls_are_refused(tiny, images):
    with pytest.raises(ValueError, match="2 images and 1 texts"):
        information(tiny, images, TEXTS[:1], **QUIET)
    with pytest.raises(ValueError, match="3 givens for 2 texts"):
        information(tiny, images, TEXTS, ["", "", ""], **QUIET)
    with pytest.raises(ValueError, match="image below 2, text below 2"):
        information(tiny, images, TEXTS, pairs=[(2, 0)], **QUIET)
    with pytest.raises(ValueError, match="has no time steps"):
        information(tiny, images, TEXTS, levels=logistic_levels(3), **QUIET)
    with pytest.raises(ValueError, match="noises must be at least 1"):
        information(tiny, images, TEXTS, noises=0, **QUIET)
    found = information(tiny, images[:1], TEXTS[:1], levels=2, **QUIET)
    with pytest.raises(ValueError, match="unknown kind 'both'"):
        found.total("both")


def test_integrands_of_a_perfect_prediction():
    e = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    found = integrands(e, torch.zeros_like(e), e)
    torch.testing.assert_close(found.standard, found.orthogonal)
    torch.testing.assert_close(found.standard, e.square().sum(1) / 2)
    assert float(found.errors[0, 1]) == 0


@pytest.mark.parametrize(
    ("text", "word", "by", "changed"),
    [
        ("an orange circle", "orange", "", "a circle"),
        ("a red object", "red", "orange", "an orange object"),
        ("a red circle left of a blue ring", "left of", "and", "a red circle and a blue ring"),
        ("A red ring", "red", "orange", "An orange ring"),
        ("a ring on a white background", "on a white background", "", "a ring"),
    ],
)
def test_words_are_replaced_and_articles_follow(text, word, by, changed):
    assert replace_word(text, word, by) == changed


def test_a_word_that_is_not_there_is_refused():
    assert replace_word("a ring and a ring", "ring", "star", 1) == "a ring and a star"
    with pytest.raises(ValueError, match="'red' occurs 0 times"):
        replace_word("a blue ring", "red")


def test_parts_can_be_replaced(tiny, images):
    """`Information` is a plain record: weights of another rule give another integral."""
    found = information(tiny, images, TEXTS, levels=[100, 700], **QUIET)
    twice = replace(found.levels, weights=2 * found.levels.weights)
    torch.testing.assert_close(replace(found, levels=twice).total(), 2 * found.total())
