"""VQAv2 as matching: a question and its answer become one statement, "question answer".

"other": one image, ten statements of the same question with different answers. "binary": one
statement of a yes/no question, ten images. Official files: the questions' and the annotations'
json, images `COCO_<split>_<image id, 12 digits>.jpg` (Goyal et al., arXiv 1612.00837).

A known trap: rivals of another type of answer ("two" against "red") are solved without looking.
Here they are drawn among the answers to other questions of the same type, as often as they occur
there, so that neither the type nor how common an answer is tells it apart (*ours*).
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dsd_tutorial.datasets.images import ImageTask
from dsd_tutorial.datasets.sources import (
    distinct,
    find_file,
    find_images,
    row_random,
    shuffled,
    some,
)
from dsd_tutorial.saving import expanded
from dsd_tutorial.shapes.scene import check_known
from dsd_tutorial.shapes.task_items import Item

FORMS = ("other", "binary")
SPLITS = ("val2014", "train2014")
_TRIES = 200  # draws from one pool per wanted rival


class Question(NamedTuple):
    """One question with its answer: the most common of ten people's, and all they gave."""

    id: int
    image: int
    text: str
    answer: str
    accepted: frozenset[str]
    answer_type: str
    question_type: str

    @property
    def statement(self) -> str:
        """The words "question answer"."""
        return f"{self.text} {self.answer}"


def _questions(folder: Path, split: str) -> list[Question]:
    """The answered questions of a split, from the two official files."""
    check_known("split", split, SPLITS)
    asked_in = find_file("vqav2", folder, (f"v2_OpenEnded_mscoco_{split}_questions.json",))
    answered_in = find_file("vqav2", folder, (f"v2_mscoco_{split}_annotations.json",))
    asked = {q["question_id"]: q for q in json.loads(asked_in.read_text("utf-8"))["questions"]}
    answered = json.loads(answered_in.read_text("utf-8"))["annotations"]
    lost = [a["question_id"] for a in answered if a["question_id"] not in asked]
    if lost:
        raise ValueError(
            f"{answered_in.name}: {len(lost)} answers, such as to question {lost[0]}, "
            f"have no question in {asked_in.name}: the two are of different releases"
        )
    return [_question(asked[note["question_id"]], note) for note in answered]


def _question(asked: dict[str, Any], note: dict[str, Any]) -> Question:
    answer = note["multiple_choice_answer"]
    accepted = frozenset([answer, *(a["answer"] for a in note.get("answers", ()))])
    return Question(
        note["question_id"], asked["image_id"], asked["question"].strip(), answer, accepted,
        note["answer_type"], note["question_type"],
    )  # fmt: skip


def read_vqav2(
    folder: Path | str,
    *,
    images: Path | str | None = None,
    form: str = "other",
    split: str = "val2014",
    candidates: int = 10,
    n: int | None = None,
    seed: int = 0,
) -> ImageTask:
    """Items of one image and `candidates` statements ("other"), or the reverse ("binary").

    In the binary form images of which people gave the other answer to the same question come
    first; the rest are of other questions of the same type, and only likely to be wrong. Images lie
    in `images`, in a folder of the split's name, or in the folder itself.

    Raises:
        ValueError: form or split are unknown, the files do not belong together, or there are too
            few rivals.
    """
    check_known("form", form, FORMS)
    folder = expanded(folder)
    wanted = "other" if form == "other" else "yes/no"
    pool = _Pool([q for q in _questions(folder, split) if q.answer_type == wanted])
    build = pool.other if form == "other" else pool.binary
    drawn = []
    for question in some(pool.questions, n, seed):
        rng = row_random("vqav2", seed, question.id)
        numbers, texts = build(question, candidates - 1, rng)
        names = [f"COCO_{split}_{number:012d}.jpg" for number in numbers]
        drawn.append((question, rng, names, texts))
    roots = [Path(images)] if images else [folder / s for s in ("images", split, "")]
    found = find_images("vqav2", roots, {name: (name,) for *_, names, _ in drawn for name in names})
    items = []
    for question, rng, names, texts in drawn:
        order = rng.sample(range(candidates), candidates)  # the right one stands first in `drawn`
        many = texts if form == "other" else [found[name] for name in names]
        mixed = tuple(many[i] for i in order)
        shown, said = ((found[names[0]],), mixed) if form == "other" else (mixed, tuple(texts))
        kind, noise = question.question_type, rng.randrange(2**31)
        items.append(Item(shown, said, order.index(0), kind, noise))
    return ImageTask(f"vqa {form}", tuple(items))


class _Pool:
    """The questions of one type of answer, by type and by wording."""

    def __init__(self, questions: list[Question]):
        self.questions = questions
        self.by_type: dict[str, list[Question]] = defaultdict(list)
        self.by_text: dict[str, list[Question]] = defaultdict(list)
        for q in questions:
            self.by_type[q.question_type].append(q)
            self.by_text[q.text.lower()].append(q)

    def other(self, q: Question, number: int, rng: random.Random) -> tuple[list[int], list[str]]:
        """The image, and statements: the true one, then answers that nobody accepted."""
        drawn = _in_turn((self.by_type[q.question_type], self.questions), number, rng)
        what = f"answers compete with {q.statement!r}"
        rivals = distinct(drawn, number, q.accepted, lambda r: r.answer, what)
        return [q.image], [q.statement, *(f"{q.text} {r.answer}" for r in rivals)]

    def binary(self, q: Question, number: int, rng: random.Random) -> tuple[list[int], list[str]]:
        """Images: its own, then those of the same question answered otherwise, then more."""
        same = self.by_text[q.text.lower()]
        agreeing = {r.image for r in same if r.answer == q.answer} | {q.image}
        otherwise = [r for r in same if q.answer not in r.accepted]
        unrelated = [r for r in self.by_type[q.question_type] if r.text.lower() != q.text.lower()]
        drawn = _in_turn((otherwise, unrelated, self.questions), number, rng)
        what = f"images compete with {q.statement!r}"
        rivals = distinct(drawn, number, agreeing, lambda r: r.image, what)
        return [q.image, *(r.image for r in rivals)], [q.statement]


def _in_turn(
    pools: tuple[list[Question], ...], number: int, rng: random.Random
) -> Iterator[Question]:
    for pool in pools:
        yield from shuffled(pool, rng, _TRIES * number)
