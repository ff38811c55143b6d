"""Readers of the official formats, on tiny folders in those formats made here."""

import csv
import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsd_tutorial.datasets import (
    READERS,
    MissingDataError,
    draw_items,
    read_comvg,
    read_dataset,
    read_folder,
    read_refcocog,
    read_vqav2,
    read_winoground,
    split_by_image,
)
from dsd_tutorial.datasets.comvg import FILE, comvg_rows

COLUMNS = (
    "id", "sentence", "pos_triplet", "neg_triplet", "pos_image_id", "neg_image_id", "neg_value",
)  # fmt: skip
OFFICIAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "comvg"


def paint(path, number=0, size=(9, 7)):
    """Write an image of one colour, which `number` decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (number % 256, (37 * number) % 256, 128)).save(path)


@pytest.fixture(scope="module")
def comvg(tmp_path_factory):
    """Twelve rows over six images, in VG_100K and VG_100K_2."""
    folder = tmp_path_factory.mktemp("comvg")
    with open(folder / "compositional_visual_genome.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for i in range(12):
            kind = ("subject", "object", "verb")[i % 3]
            positive, negative = 100 + i % 6, 100 + (i + 1 + i % 3) % 6
            row = [i + 1, f"a man sits, {i // 2}", "man,sit,table", "('dog', 'sit', 'table')"]
            writer.writerow([*row, positive, negative, kind])
    for i in range(6):
        paint(folder / ("VG_100K" if i % 2 else "VG_100K_2") / f"{100 + i}.jpg", 10 * i)
    return folder


@pytest.fixture(scope="module")
def refcocog(tmp_path_factory):
    """Eight images with two objects each, two sentences per object, one broken split."""
    folder = tmp_path_factory.mktemp("refcocog")
    refs, images, annotations = [], [], []
    for i in range(8):
        name = f"COCO_train2014_{i:012d}.jpg"
        images.append({"id": i, "file_name": name, "width": 40, "height": 20})
        Image.fromarray(np.full((20, 40, 3), 25 * i, np.uint8)).save(
            _made(folder / "images" / name)
        )
        for j in range(2):
            number = 10 * i + j
            box = [0, 0, 20, 20] if j == 0 else [20, 0, 20, 20]
            annotations.append({"id": number, "image_id": i, "bbox": box, "category_id": j})
            said = [f"thing {number}", f"Object {number} at side {j}"]
            refs.append(
                {"ref_id": number, "ann_id": number, "image_id": i, "category_id": j,
                 "split": "val" if i < 7 else "train", "file_name": name,
                 "sentences": [{"sent": s, "raw": s, "tokens": s.split(), "sent_id": 0}
                               for s in said]}
            )  # fmt: skip
    (folder / "refs(google).p").write_bytes(pickle.dumps(refs, protocol=0))
    stored = {"images": images, "annotations": annotations, "categories": []}
    (folder / "instances.json").write_text(json.dumps(stored))
    return folder


@pytest.fixture(scope="module")
def vqa(tmp_path_factory):
    """Thirty questions "what colour" and thirty "is there": one of each per image."""
    folder = tmp_path_factory.mktemp("vqa")
    questions, annotations = [], []
    colours = [f"colour{i % 12}" for i in range(30)]
    for i in range(30):
        paint(folder / "val2014" / f"COCO_val2014_{i:012d}.jpg", i)
        for j, (text, kind, answer, type_) in enumerate(
            [("What colour is it?", "what colour", colours[i], "other"),
             ("Is there a dog?", "is there", "yes" if i % 2 else "no", "yes/no")]
        ):  # fmt: skip
            number = 10 * i + j
            questions.append({"question_id": number, "image_id": i, "question": text})
            given = [answer, f"colour{(i + 1) % 12}" if j == 0 else answer]
            annotations.append(
                {"question_id": number, "image_id": i, "question_type": kind, "answer_type": type_,
                 "multiple_choice_answer": answer, "answers": [{"answer": a} for a in given]}
            )  # fmt: skip
    names = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"
    (folder / names[0]).write_text(json.dumps({"questions": questions}))
    (folder / names[1]).write_text(json.dumps({"annotations": annotations}))
    return folder


@pytest.fixture(scope="module")
def winoground(tmp_path_factory):
    folder = tmp_path_factory.mktemp("winoground")
    lines = []
    for i in range(16):
        row = {"id": i, "collapsed_tag": "Object" if i % 2 else "Relation"}
        for j in (0, 1):
            row |= {f"image_{j}": f"ex_{i}_img_{j}", f"caption_{j}": f"caption {i} {j}"}
            paint(folder / "images" / f"ex_{i}_img_{j}.png", 2 * i + j)
        lines.append(json.dumps(row))
    (folder / "examples.jsonl").write_text("\n".join(lines) + "\n\n")
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    rows = [{"images": [f"{i}.png"], "texts": ["no", "yes", "maybe"], "correct": 1}
            for i in range(12)]  # fmt: skip
    for i in range(12):
        paint(folder / f"{i}.png", i)
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def _made(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


SETTINGS = [
    ("comvg", {}, (2, 1)),
    ("refcocog", {"view": "image"}, (1, 10)),
    ("refcocog", {"view": "object", "candidates": 4}, (1, 4)),
    ("vqav2", {"form": "other"}, (1, 10)),
    ("vqav2", {"form": "binary"}, (10, 1)),
    ("winoground", {}, (2, 2)),
    ("folder", {}, (1, 3)),
]
FIXTURES = {"vqav2": "vqa", "folder": "own"}


@pytest.fixture
def read(request):
    return lambda name, **how: read_dataset(
        name, request.getfixturevalue(FIXTURES.get(name, name)), **how
    )


@pytest.mark.parametrize("name, how, shape", SETTINGS)
def test_items_have_the_form_of_the_shapes_tasks(read, name, how, shape):
    task = read(name, **how)
    assert task.shape == shape and set(task.chance) == set(task.accuracy(torch.zeros(_n(task))))
    for item in task.items:
        assert len(set(item.texts)) == shape[1] and len(set(item.images)) == shape[0]
        assert 0 <= item.correct < task.candidates and item.kind
    assert len({item.correct for item in task.items}) > 1, "the right one stands always first"
    assert task == read(name, **how)
    fewer, more = read(name, n=2, **how), read(name, n=4, **how)
    assert fewer.items == more.items[:2] and set(more.items) <= set(task.items)
    assert read(name, seed=1, **how) != task
    images = task.images(16)
    assert images.shape == (len(task.scenes), 3, 16, 16)
    assert 0 <= images.min() and images.max() <= 1


def _n(task):
    return len(task.items) * task.shape[0] * task.shape[1]


def test_every_method_runs_on_them_unchanged(read, tiny):
    from dsd_tutorial.prompt_learning.methods import make_method

    for name, how, shape in SETTINGS[::3]:
        task = read(name, n=2, **how)
        for method in (make_method("clip"), make_method("diffusion_classifier", steps=1)):
            scores, cost = method.score(tiny, task, progress=False)
            assert scores.shape == (2, shape[0] * shape[1]) and torch.isfinite(scores).all()
        assert cost.unet_passes > 0


@pytest.mark.parametrize("name", READERS)
def test_missing_files_are_named_with_their_source(tmp_path, name):
    with pytest.raises(MissingDataError) as caught:
        read_dataset(name, tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message and "Where to get it" in message
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("name", ["comvg", "refcocog", "vqav2", "winoground"])
def test_missing_pictures_are_counted_and_named(read, name, tmp_path):
    with pytest.raises(MissingDataError, match=r"\d+ image\(s\) missing \(.*Where to get it"):
        read(name, images=tmp_path)


def test_unknown_settings_are_explained(read, tmp_path):
    with pytest.raises(ValueError, match="unknown dataset 'coco'.*comvg"):
        read_dataset("coco", tmp_path)
    for name, how, said in (
        ("comvg", {"kinds": ("colour",)}, "unknown kind 'colour'"),
        ("comvg", {"n": 13}, "n = 13"),
        ("comvg", {"fit": "stretch"}, "unknown fit"),
        ("refcocog", {"split": "test"}, "train, val"),
        ("refcocog", {"view": "box"}, "unknown view"),
        ("refcocog", {"candidates": 40}, "fewer candidates"),
        ("vqav2", {"form": "number"}, "unknown form"),
        ("vqav2", {"split": "test2015"}, "unknown split"),
        ("vqav2", {"candidates": 14}, "fewer candidates"),
    ):
        with pytest.raises(ValueError, match=said):
            read(name, **how)


# -- ComVG -------------------------------------------------------------------------------------


def test_comvg_positives_are_the_positives(comvg):
    rows = {(r.sentence, r.kind): r for r in comvg_rows(comvg / FILE)}
    for item in read_comvg(comvg).items:
        row = rows[item.texts[0], item.kind]
        right, wrong = item.images[item.correct], item.images[1 - item.correct]
        assert (right.name, wrong.name) == (str(row.positive), str(row.negative))
    verbs = read_comvg(comvg / "compositional_visual_genome.csv", images=comvg, kinds=("verb",))
    assert {item.kind for item in verbs.items} == {"verb"} and len(verbs.items) == 4


def test_comvg_says_which_line_is_wrong(tmp_path):
    file = tmp_path / "compositional_visual_genome.csv"
    file.write_text("id,sentence\n1,a man\n")
    with pytest.raises(ValueError, match="no column pos_image_id"):
        comvg_rows(file)
    head = ",".join(COLUMNS)
    file.write_text(
        head + '\n1,a man,"a,b,c","a,b,d",1,2,subject\n2,a man,"a,b,c","a,b,d",x,2,verb'
    )
    with pytest.raises(ValueError, match="line 3"):
        comvg_rows(file)
    file.write_text(head + '\n1,a man,"a,b,c","a,b,d",1,2,colour\n')
    with pytest.raises(ValueError, match="line 2.*colour"):
        comvg_rows(file)


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="../shared/data/comvg is not there")
def test_comvg_official_counts():
    rows = comvg_rows(OFFICIAL / FILE)
    assert len(rows) == 5400 and [row.id for row in rows] == list(range(1, 5401))
    assert Counter(r.kind for r in rows) == {"object": 2584, "subject": 1536, "verb": 1280}
    assert len({row.sentence for row in rows}) == 279
    assert len({i for row in rows for i in (row.positive, row.negative)}) == 524
    with pytest.raises(MissingDataError, match="image"):
        read_comvg(OFFICIAL)


# -- RefCOCOg ----------------------------------------------------------------------------------


def test_refcocog_texts_belong_to_their_object_alone(refcocog):
    for view in ("image", "object"):
        task = read_refcocog(refcocog, view=view)
        assert len(task.items) == 14  # the train split is left out
        for item in task.items:
            image = int(item.images[0].name[-16:-4])
            own = int(item.texts[item.correct].split()[1])
            rivals = [int(t.split()[1]) for i, t in enumerate(item.texts) if i != item.correct]
            assert own // 10 == image and own not in rivals
            if view == "image":
                assert image not in {number // 10 for number in rivals}
            else:
                assert 10 * image + (1 - own % 10) in rivals  # the other one in the image
                assert item.images[0].box == ((0, 0, 20, 20), (20, 0, 40, 20))[own % 10]
                assert item.images[0].open().size == (20, 20)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, protocol):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "run",))

    (tmp_path / "refs(google).p").write_bytes(pickle.dumps([{"split": Evil()}], protocol))
    with pytest.raises(pickle.UnpicklingError, match="needs no such name"):
        read_refcocog(tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_pickle_of_something_else_is_explained(tmp_path):
    for content, said in (({"a": 1}, "list of dictionaries"), ([{"split": "val"}], "ref_id")):
        (tmp_path / "refs(google).p").write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=said):
            read_refcocog(tmp_path)


# -- VQAv2 -------------------------------------------------------------------------------------


def test_vqa_rivals_are_answers_that_nobody_gave(vqa):
    for item in read_vqav2(vqa).items:
        i = int(item.images[0].name[-16:-4])
        assert item.texts[item.correct] == f"What colour is it? colour{i % 12}"
        assert f"What colour is it? colour{(i + 1) % 12}" not in item.texts  # accepted as well
        assert all(text.startswith("What colour is it? colour") for text in item.texts)


def test_vqa_binary_pictures_have_the_other_answer(vqa):
    for item in read_vqav2(vqa, form="binary").items:
        numbers = [int(image.name[-16:-4]) for image in item.images]
        answer = item.texts[0].removeprefix("Is there a dog? ")
        fits = [("yes" if number % 2 else "no") == answer for number in numbers]
        assert fits.index(True) == item.correct and sum(fits) == 1


def test_vqa_files_of_different_releases_are_refused(vqa, tmp_path):
    for file in vqa.glob("*.json"):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").write_text('{"questions": []}')
    with pytest.raises(ValueError, match="different releases"):
        read_vqav2(tmp_path)


# -- Winoground and own items ------------------------------------------------------------------


def test_winoground_pairs_stay_together(winoground):
    for item in read_winoground(winoground).items:
        first = item.images[0].name.split("_")[1]
        assert item.texts[item.correct] == f"caption {first} 0"
        assert item.texts[1 - item.correct] == f"caption {first} 1"
        assert [p.name[-1] for p in item.images] == ["0", "1"]


def test_own_items_are_right_whatever_their_order(own):
    assert all(item.texts[item.correct] == "yes" for item in read_folder(own).items)


# -- splits ------------------------------------------------------------------------------------


def test_splits_share_no_picture(winoground, refcocog):
    for task in (read_winoground(winoground), read_refcocog(refcocog, view="object")):
        parts = split_by_image(task, {"train": 0.4, "test": 0.6}, seed=1)
        used = {k: {p.name for p in part.scenes} for k, part in parts.items()}
        assert not used["train"] & used["test"]
        left = [item for part in parts.values() for item in part.items]
        assert set(left) <= set(task.items) and len(left) == len(set(left))
        again = split_by_image(task, {"train": 0.4, "test": 0.6}, seed=1)
        assert parts == again
        few = draw_items(parts["test"], 2, seed=3)
        assert few.items == draw_items(parts["test"], 3, seed=3).items[:2]
    for shares in ({}, {"a": 0.5}, {"a": 1.5, "b": -0.5}):
        with pytest.raises(ValueError, match="add up to 1"):
            split_by_image(task, shares)
    with pytest.raises(ValueError, match="no item"):
        split_by_image(task, {"a": 0.999999, "b": 0.000001})
    with pytest.raises(ValueError, match="n = 99"):
        draw_items(task, 99)


def test_shapes_tasks_can_be_split_as_well():
    from dsd_tutorial.shapes.tasks import make_task

    parts = split_by_image(make_task("refcoco", 40))
    assert sum(len(part.items) for part in parts.values()) == 40
