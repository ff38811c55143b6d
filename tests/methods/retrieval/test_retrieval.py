"""Galleries with a right image for half of the texts, and the choice between drawn and found."""

import random

import pytest
import torch

from dsd_tutorial.matching import Spreads, score
from dsd_tutorial.retrieval import best_offset, draw_and_find, make_gallery, right_images
from dsd_tutorial.retrieval.galleries import near_miss
from dsd_tutorial.shapes import parse, random_scenes

HOW = {"n": 2, "sampling_steps": 2, "steps": 2, "progress": False}


@pytest.fixture(scope="module")
def gallery():
    return make_gallery(4, size=7, seed=3)


@pytest.fixture(scope="module")
def answers(tiny, gallery):
    spreads = Spreads((250, 750), torch.eye(2), 9)
    return draw_and_find(
        tiny, gallery.texts, gallery.images(), risk=0, spreads=spreads, seed=1, **HOW
    )


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_gallery_has_one_right_image_for_each_answered_text(split):
    made = make_gallery(30, size=60, split=split, seed=2)
    assert len(made.scenes) == 60 == len(set(made.scenes)) and len(set(made.texts)) == 30
    right = [sum(parse(text).true_of(scene) for scene in made.scenes) for text in made.texts]
    assert right == [int(there) for there in made.answered] and sum(right) == 15
    assert make_gallery(30, size=60, split=split, seed=2) == made
    assert make_gallery(30, size=60, split=split, seed=4) != made


def test_a_near_miss_differs_in_one_fact():
    rng = random.Random(0)
    for scene in random_scenes(40, 1, "train", one_object_share=0.0):
        other = near_miss(scene, rng)
        facts = [
            [(t.color, t.shape) for t in s.things] + [s.background, s.relation]
            for s in (scene, other)
        ]
        changed = sum(a != b for a, b in zip(*facts, strict=True))
        swapped = facts[1][:2] == facts[0][:2][::-1] and facts[1][2:] == facts[0][2:]
        assert changed == 1 or swapped


def test_a_gallery_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="size=5 for n=4 texts: need n >= 1 and size >= 6"):
        make_gallery(4, size=5)


def test_the_judge_reads_a_rendered_scene_as_right_and_another_as_wrong(gallery):
    images = gallery.images()
    text = gallery.texts[0]
    read = right_images(images, [text] * len(images))
    assert read.tolist() == [parse(text).true_of(scene) for scene in gallery.scenes]
    assert read.sum() == 1


def test_what_is_found_is_the_best_by_score(tiny, gallery, answers):
    """And what is drawn is judged under the same noises."""
    how = {"error_weight": 1.0, "attention_weight": 0.0, "steps": 2, "seed": 1, "progress": False}
    table = score(tiny, gallery.images(), gallery.texts, **how)  # (images, texts)
    assert torch.equal(answers.found, table.argmax(0))
    torch.testing.assert_close(answers.found_scores, table.amax(0), atol=1e-3, rtol=1e-3)
    drawn = tiny.sample(list(gallery.texts), n=2, steps=2, seed=1, progress=False)
    of_drawn = score(tiny, drawn, gallery.texts, **how).unflatten(0, (4, 2))
    of_own = of_drawn[torch.arange(4), :, torch.arange(4)]  # (texts, 2)
    torch.testing.assert_close(answers.drawn_scores, of_own.amax(1), atol=1e-3, rtol=1e-3)
    best = drawn.unflatten(0, (4, 2))[torch.arange(4), of_own.argmax(1)]
    torch.testing.assert_close(answers.drawn, best)
    torch.testing.assert_close(answers.first, drawn[::2])


def test_passes_are_counted(answers):
    assert answers.passes == {
        "draw": 4 * 2 * 2 * 2,  # texts, images, steps, with and without text
        "judge": 4 * 2 * 2 * 2,  # texts, images, time steps, with and without text
        "find": 7 * 4 * 2 + 7 * 2,  # pairs and images without text, at two time steps
    } | {"find": answers.passes["find"]}
    again = {int(i) for i in answers.found}  # the winners' scores, once more
    assert answers.passes["find"] == 7 * 4 * 2 + 7 * 2 + 4 * 2 + 2 * len(again)


def test_the_offset_moves_the_choice_from_drawn_to_found(gallery, answers):
    images = gallery.images()
    assert torch.equal(answers.chosen(images, -1e9), answers.drawn)
    assert torch.equal(answers.chosen(images, 1e9), images[answers.found])
    middle = float(answers.lead.median())
    mixed, takes = answers.chosen(images, middle), answers.draws(middle)
    assert 0 < takes.sum() < 4
    for row, drawn in enumerate(takes):
        want = answers.drawn[row] if drawn else images[answers.found[row]]
        assert torch.equal(mixed[row], want)


def test_the_best_offset_is_the_best_of_all():
    numbers = torch.Generator().manual_seed(0)
    lead = torch.randn(40, generator=numbers)
    drawn, found = (torch.rand(2, 40, generator=numbers) < 0.6).unbind()
    offset = best_offset(lead, drawn, found)

    def right(at):
        return int(torch.where(lead > at, drawn, found).sum())

    assert right(offset) == max(right(float(x)) for x in torch.linspace(-4, 4, 4001))
    nothing = torch.zeros(40, dtype=torch.bool)
    assert best_offset(lead, nothing, nothing) == 0
    assert (lead > best_offset(lead, ~nothing, nothing)).all()
    assert not (lead > best_offset(lead, nothing, ~nothing)).any()
