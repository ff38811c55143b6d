"""Matching tasks: negatives false, positives true, nothing to be had from one side alone."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from dsd_tutorial.shapes.captions import parse
from dsd_tutorial.shapes.scene import HELD_OUT_PAIRS, SPLITS
from dsd_tutorial.shapes.tasks import (
    NAMES,
    TASKS,
    VALIDATION_ITEMS,
    Task,
    few_shot,
    kinds_of,
    make_task,
    validation_set,
)

N = 10_000
SHAPE = {"comvg": (2, 1), "refcoco": (1, 10), "vqa": (1, 10), "winoground": (2, 2)}


@pytest.fixture(scope="module")
def big():
    """10,000 items of each task."""
    return {name: make_task(name, N) for name in TASKS}


def truth(item):
    """(images, texts) bool: what is true of what, from scenes and parsed texts alone."""
    said = [read(text) for text in item.texts]
    return np.array([[d.true_of(scene) for d in said] for scene in item.images])


def read(text, known={}):  # noqa: B006 - a cache on purpose
    if text not in known:
        known[text] = parse(text)
    return known[text]


def expected(item):
    """(images, texts) bool: what `correct` claims."""
    images, texts = len(item.images), len(item.texts)
    if images == texts == 2:
        return np.array([[item.correct == 0, item.correct == 1]] * 2) ^ np.array([[False], [True]])
    claim = np.zeros(max(images, texts), dtype=bool)
    claim[item.correct] = True
    return claim.reshape(images, texts)


@pytest.mark.parametrize("name", TASKS)
def test_every_positive_is_true_and_every_negative_false(big, name):
    task = big[name]
    assert len(task.items) == N and task.shape == SHAPE[name]
    for item in task.items:
        assert (len(item.images), len(item.texts)) == SHAPE[name]
        assert np.array_equal(truth(item), expected(item)), item
        assert len(set(item.texts)) == len(item.texts)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("names, texture", [(n, "plain") for n in NAMES] + [("trained", "striped")])
def test_truth_with_held_out_values(name, names, texture):
    if name == "winoground" and names == "held_out_pairs":
        with pytest.raises(ValueError, match="cannot form 'winoground'"):
            make_task(name, 1, names=names)
        return
    task = make_task(name, 60, names=names, texture=texture)
    for item in task.items:
        assert np.array_equal(truth(item), expected(item)), item
        for thing in (t for scene in item.images for t in scene.things):
            assert (thing.color, thing.shape) in NAMES[names] and thing.texture == texture


@pytest.mark.parametrize("name", TASKS)
def test_scenes_are_distinct_and_of_one_split(big, name):
    task = big[name]
    assert len(task.scenes) == N * SHAPE[name][0]
    assert {scene.split for scene in task.scenes} == {"test"}
    pairs = {(t.color, t.shape) for scene in task.scenes for t in scene.things}
    assert not pairs & set(HELD_OUT_PAIRS)


@pytest.mark.parametrize("name", TASKS)
def test_the_right_index_is_uniform_and_kinds_are_balanced(big, name):
    task = big[name]
    number = Counter(item.correct for item in task.items)
    assert set(number) == set(range(task.candidates))
    assert chisquare(list(number.values())).pvalue > 0.001
    kinds = Counter(task.kinds)
    assert set(kinds) == set(kinds_of(name)) and set(kinds.values()) == {N // len(kinds)}
    for kind in kinds:
        number = Counter(item.correct for item in task.items if item.kind == kind)
        assert chisquare([number[i] for i in range(task.candidates)]).pvalue > 0.001


def test_comvg_kinds_change_what_they_say(big):
    for item in big["comvg"].items[:2000]:
        said = read(item.texts[0])
        right = item.images[item.correct]
        wrong = item.images[1 - item.correct]
        names = [{(t.color, t.shape) for t in s.things} for s in (right, wrong)]
        assert right.background == wrong.background
        if item.kind == "relation":
            assert names[0] == names[1]
        elif item.kind == "bindings":
            words = [Counter(w for name in n for w in name) for n in names]
            assert words[0] == words[1] and names[0] != names[1]
        else:
            kept = said.things[1 if item.kind == "subject" else 0]
            lost = said.things[0 if item.kind == "subject" else 1]
            assert (kept.color, kept.shape) in names[1]
            assert (lost.color, lost.shape) not in names[1]
            other = next(iter(names[1] - {(kept.color, kept.shape)}))
            assert (other[0] == lost.color) != (other[1] == lost.shape)  # one word differs


def test_winoground_texts_have_the_same_words_in_another_order(big):
    for item in big["winoground"].items:
        a, b = item.texts
        assert a != b and sorted(a.split()) == sorted(b.split())


def test_vqa_candidates_share_one_answer_type(big):
    forms = defaultdict(set)
    for item in big["vqa"].items[:2000]:
        said = [read(t) for t in item.texts]
        forms[item.kind] |= {
            (len(d.things), d.relation is None, d.background is None, t.split()[0], "object" in t)
            for d, t in zip(said, item.texts, strict=True)
        }
    assert all(len(form) == 1 for form in forms.values())


def hits(scores, correct):
    return np.mean(scores.argmax(axis=1) == correct)


@pytest.mark.parametrize("name", ["refcoco", "vqa"])
def test_texts_alone_tell_nothing(big, name):
    items = big[name].items[:3000]
    correct = np.array([item.correct for item in items])
    texts = [text for item in items for text in item.texts]
    right = (np.arange(10)[None] == correct[:, None]).ravel()
    half = len(texts) // 2
    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\w+").fit(texts[:half])
    blind = LogisticRegression(max_iter=300).fit(words.transform(texts[:half]), right[:half])
    scores = blind.decision_function(words.transform(texts[half:])).reshape(-1, 10)
    assert hits(scores, correct[len(items) // 2 :]) < 0.15
    # nor does being longest, shortest, or most or least like the other candidates
    length = np.array([len(t) for t in texts]).reshape(-1, 10)
    bags = words.transform(texts).toarray().reshape(len(items), 10, -1)
    alike = np.einsum("ijk,ik->ij", bags, bags.sum(axis=1)) / np.linalg.norm(bags, axis=2)
    for scores in (length, -length, alike, -alike):
        assert hits(scores + 1e-6 * np.random.default_rng(0).random(scores.shape), correct) < 0.15


@pytest.mark.parametrize("name", ["comvg", "winoground"])
def test_images_alone_tell_nothing(big, name):
    items = big[name].items[:4000]
    correct = np.array([item.correct for item in items])

    def words(scene):
        return " ".join([scene.key()] + [f"{t.color}_{t.shape}" for t in scene.things])

    texts = [words(scene) for item in items for scene in item.images]
    bags = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\w+").fit_transform(texts)
    difference = bags[1::2] - bags[0::2]
    half = len(items) // 2
    blind = LogisticRegression(max_iter=300).fit(difference[:half], correct[:half])
    assert blind.score(difference[half:], correct[half:]) < 0.55


@pytest.mark.parametrize("name", TASKS)
def test_pairs_and_accuracy(name):
    task = make_task(name, 24, seed=3)
    images, texts = task.pairs()
    assert len(images) == len(texts) == 24 * SHAPE[name][0] * SHAPE[name][1]
    assert images.max() == len(task.scenes) - 1 and texts.max() == len(task.texts) - 1
    claims = np.concatenate([expected(item).ravel() for item in task.items])
    for i, t, claim in zip(images, texts, claims, strict=True):
        assert read(task.texts[t]).true_of(task.scenes[i]) == claim
    for scores, value in ((claims, True), (~claims, False), (np.zeros(len(claims)), False),
                          (np.full(len(claims), np.nan), False)):  # fmt: skip
        found = task.accuracy(scores.astype(float))
        assert set(found) == set(task.chance)
        assert all(v.shape == (24,) and (v == value).all() for v in found.values())
    table = torch.zeros(len(task.scenes), len(task.texts))
    table[torch.from_numpy(images), torch.from_numpy(texts)] = torch.from_numpy(claims).float()
    assert all(v.all() for v in task.accuracy(table).values())
    assert task.images(size=16).shape == (len(task.scenes), 3, 16, 16)
    with pytest.raises(ValueError, match="rows of pairs"):
        task.accuracy(np.zeros(3))


def test_one_rival_with_nan_makes_it_wrong():
    task = make_task("vqa", 1)
    scores = np.zeros(10)
    scores[task.items[0].correct] = 1
    scores[(task.items[0].correct + 1) % 10] = np.nan
    assert not task.accuracy(scores)["accuracy"].any()


@pytest.mark.parametrize("name", TASKS)
def test_random_scores_reach_chance(big, name):
    task = Task(name, big[name].items[:5000])
    scores = np.random.default_rng(0).random(5000 * SHAPE[name][0] * SHAPE[name][1])
    for key, value in task.accuracy(scores).items():
        assert abs(value.mean() - task.chance[key]) < 0.025, key


def test_winoground_scores_count_as_defined():
    task = make_task("winoground", 1)
    c = task.items[0].correct
    # image 0 prefers its text, image 1 too; but image 0 scores higher than image 1 for both texts
    table = np.zeros((2, 2))
    table[0, c], table[0, 1 - c], table[1, c], table[1, 1 - c] = 0.9, 0.8, 0.1, 0.2
    found = {k: bool(v[0]) for k, v in task.accuracy(table.ravel()).items()}
    assert found == {"text": True, "image": False, "group": False}
    found = {k: bool(v[0]) for k, v in task.accuracy(table[[0, 1]].T.ravel()).items()}
    assert not found["group"]


@pytest.mark.parametrize("name", TASKS)
def test_splits_share_no_scene(name):
    hashes = {s: {x.hash() for x in make_task(name, 80, split=s).scenes} for s in SPLITS}
    for split in SPLITS:
        assert all(scene.split == split for scene in make_task(name, 20, split=split).scenes)
        for other in set(SPLITS) - {split}:
            assert not hashes[split] & hashes[other]


@pytest.mark.parametrize("name", TASKS)
def test_few_shot_and_validation_sets(name):
    assert few_shot(name, 16, seed=1) == few_shot(name, 16, seed=1) != few_shot(name, 16, seed=2)
    assert few_shot(name, 16, seed=1).items == few_shot(name, 32, seed=1).items[:16]
    assert {s.split for s in few_shot(name, 8).scenes} == {"train"}
    fixed = validation_set(name)
    assert len(fixed.items) == VALIDATION_ITEMS == 256 and fixed == validation_set(name)
    assert validation_set(name, 32).items == fixed.items[:32]
    assert {s.split for s in fixed.scenes} == {"validation"}
    assert len(set(Counter(fixed.kinds).values())) == 1


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: make_task("gqa", 4), "unknown task 'gqa'.*comvg"),
        (lambda: make_task("vqa", 0), "n = 0"),
        (lambda: make_task("vqa", 4, split="dev"), "unknown split 'dev'.*validation"),
        (lambda: make_task("vqa", 4, names="new"), "unknown names 'new'.*held_out_pairs"),
        (lambda: make_task("vqa", 4, texture="dotted"), "unknown texture 'dotted'.*striped"),
    ],
)
def test_errors_name_the_value_and_the_choices(call, message):
    with pytest.raises(ValueError, match=message):
        call()
