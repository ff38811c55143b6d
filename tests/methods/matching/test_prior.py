"""Structured readings and the text prior in `components` and `score`."""

from types import SimpleNamespace

import pytest
import torch

from dsd_tutorial.attention import READINGS
from dsd_tutorial.matching import TextPrior, components, reference_images, score
from dsd_tutorial.matching.cost import measure
from dsd_tutorial.shapes import judge

TEXTS = ["a red circle left of a blue square", "a green star", "the ring is purple"]
HOW = {"steps": [300, 600], "progress": False}


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_the_first_reading_is_the_papers_score(tiny, images):
    both = components(tiny, images, TEXTS, token_mask="all", readings=["log_sum_exp"], **HOW)
    plain, read = (both.select(name).score() for name in ("all", "log_sum_exp"))
    assert torch.allclose(plain, read, atol=1e-5)
    assert torch.allclose(score(tiny, images, TEXTS, **HOW).flatten(), read, atol=1e-5)


def test_readings_cost_no_pass_and_do_not_depend_on_the_batch(tiny, images):
    with measure(tiny) as meter:
        many = components(
            tiny, images, TEXTS, token_mask=(), readings=list(READINGS), batch_size=4, **HOW
        )
    assert meter.unet_passes == 3 * 3 * 2
    assert tuple(many.by_reading) == tuple(READINGS)
    for name in READINGS:
        alone = score(tiny, images[1:2], TEXTS, reading=name, **HOW)
        assert torch.allclose(alone.flatten(), many.select(name).score()[3:6], atol=1e-5), name


@pytest.mark.parametrize("reading", [None, "peak", "direction"])
def test_over_the_references_themselves_nothing_is_left(tiny, images, reading):
    without = score(tiny, images, TEXTS, reading=reading, **HOW)
    with_prior = score(tiny, images, TEXTS, reading=reading, prior=images, **HOW)
    assert torch.allclose(with_prior, without - without.mean(0), atol=1e-5)
    assert torch.allclose(with_prior.mean(0), torch.zeros(3), atol=1e-5)


def test_among_images_the_prior_changes_no_ranking(tiny, images):
    without = score(tiny, images, TEXTS, **HOW)
    with_prior = score(tiny, images, TEXTS, prior="validation", **HOW)
    assert torch.equal(without.argsort(0), with_prior.argsort(0))
    gap = without - with_prior
    assert torch.allclose(gap, gap[:1].expand_as(gap), atol=1e-5)


def test_a_prior_is_computed_once_for_a_text_and_its_settings(tiny, images):
    prior = TextPrior(images[:2])
    with measure(tiny) as first:
        one = score(tiny, images[2:], TEXTS, prior=prior, **HOW)
    with measure(tiny) as second:
        two = score(tiny, images[2:], TEXTS[::-1], prior=prior, **HOW)
    assert (first.unet_passes, second.unet_passes) == (3 * 2 * (1 + 2), 3 * 2)
    assert torch.allclose(one, two.flip(1), atol=1e-5)
    other = score(tiny, images[2:], TEXTS, prior=prior, **HOW | {"steps": [100]})
    fresh = score(tiny, images[2:], TEXTS, prior=images[:2], **HOW | {"steps": [100]})
    assert torch.equal(other, fresh)


def test_the_error_term_keeps_its_own_base(tiny, images):
    plain = components(tiny, images, TEXTS, errors=True, **HOW)
    less = components(tiny, images, TEXTS, errors=True, prior=images[:1], **HOW)
    assert torch.allclose(plain.errors, less.errors, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prior": "test"}, "unknown prior 'test': give 'validation', reference images"),
        ({"prior": torch.zeros(0, 3, 64, 64)}, "one reference image at least"),
        ({"prior": torch.zeros(3, 64, 64)}, r"not shape \(3, 64, 64\)"),
        ({"reading": "where"}, "unknown reading 'where'; choose from log_sum_exp"),
    ],
)
def test_what_is_no_prior_and_no_reading(tiny, images, wrong, message):
    with measure(tiny) as meter, pytest.raises(ValueError, match=message):
        score(tiny, images, TEXTS, **wrong, **HOW)
    assert meter.unet_passes == 0


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 4, 8, 8), (0, 3, 8, 8)])
def test_what_is_no_batch_of_images_is_no_prior(shape):
    with pytest.raises(ValueError, match="prior must hold one reference image at least"):
        TextPrior(torch.zeros(shape))


def test_references_show_two_things_each():
    references = reference_images(SimpleNamespace(resolution=64, device="cpu"), 8)
    assert [len(verdict.scene.things) for verdict in judge(references)] == [2] * 8
