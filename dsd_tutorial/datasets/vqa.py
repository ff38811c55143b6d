"""VQAv2 as matching: a question and its answer become one statement, "question answer".

"other": one picture, ten statements of the same question with different answers. "binary": one
statement of a yes/no question, ten pictures. Official files: the questions' and the annotations'
json, pictures `COCO_<split>_<image id, 12 digits>.jpg` (Goyal et al., arXiv 1612.00837).

A known trap: rivals of another type of answer ("two" against "red") are solved without looking.
Here they are drawn among the answers to other questions of the same type, as often as they occur
there, so that neither the type nor how common an answer is tells it apart (*ours*).
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dsd_tutorial.datasets.images import ImageFile, ImageTask
from dsd_tutorial.datasets.sources import find_file, find_image, report_missing, row_random, some
from dsd_tutorial.saving import expanded
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
        """Return "question answer"."""
        return f"{self.text} {self.answer}"


def vqa_questions(folder: Path | str, split: str = "val2014") -> list[Question]:
    """Return the answered questions of a split from the two official files in `folder`.

    Raises MissingDataError without them, ValueError where they do not belong together.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
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
    fit: str = "whole",
) -> ImageTask:
    """Return items of one image and `candidates` statements ("other"), or the reverse ("binary").

    images  COCO's pictures (default: `images`, the split's name, or the folder itself). In the
    binary form pictures of which people gave the other answer to the same question come first; the
    rest are of other questions of the same type, and only likely to be wrong.
    Raises MissingDataError, or ValueError for an unknown form or too few rivals.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}; choose one of {', '.join(FORMS)}")
    folder = expanded(folder)
    wanted = "other" if form == "other" else "yes/no"
    pool = _Pool([q for q in vqa_questions(folder, split) if q.answer_type == wanted])
    build = pool.other if form == "other" else pool.binary
    drawn = []
    for question in some(pool.questions, n, seed):
        rng = row_random("vqav2", seed, question.id)
        numbers, texts = build(question, candidates - 1, rng)
        drawn.append((question, rng, numbers, texts))
    roots = [Path(images)] if images else [folder / s for s in ("images", split, "")]
    names = {i: f"COCO_{split}_{i:012d}.jpg" for _, _, numbers, _ in drawn for i in numbers}
    paths = {i: find_image(roots, (name,)) for i, name in names.items()}
    report_missing("vqav2", [names[i] for i, path in paths.items() if path is None], roots)
    pictures = {i: ImageFile(names[i], path) for i, path in paths.items()}
    items = [_item(question, rng, [pictures[i] for i in numbers], texts)
             for question, rng, numbers, texts in drawn]  # fmt: skip
    return ImageTask(f"vqa {form}", tuple(items), fit)


def _item(question: Question, rng: random.Random, pictures: list, texts: list[str]) -> Item:
    """Return the item with its candidates, of which the first is right, in random order."""
    many = texts if len(texts) > 1 else pictures
    order = rng.sample(range(len(many)), len(many))
    mixed = tuple(many[i] for i in order)
    images, says = (tuple(pictures), mixed) if many is texts else (mixed, tuple(texts))
    return Item(images, says, order.index(0), question.question_type, rng.randrange(2**31))


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
        """Return the image, and statements: the true one, then answers that nobody accepted."""
        rivals = self._draw(
            q, number, rng, (self.by_type[q.question_type], self.questions),
            key=lambda r: r.answer, barred=set(q.accepted), what="answers",
        )  # fmt: skip
        return [q.image], [q.statement, *(f"{q.text} {r.answer}" for r in rivals)]

    def binary(self, q: Question, number: int, rng: random.Random) -> tuple[list[int], list[str]]:
        """Return images: its own, then those of the same question answered otherwise, then more."""
        same = self.by_text[q.text.lower()]
        agreeing = {r.image for r in same if r.answer == q.answer} | {q.image}
        otherwise = [r for r in same if q.answer not in r.accepted]
        unrelated = [r for r in self.by_type[q.question_type] if r.text.lower() != q.text.lower()]
        rivals = self._draw(
            q, number, rng, (otherwise, unrelated, self.questions),
            key=lambda r: r.image, barred=agreeing, what="pictures",
        )  # fmt: skip
        return [q.image, *(r.image for r in rivals)], [q.statement]

    def _draw(
        self, q: Question, number: int, rng: random.Random, pools: tuple[list[Question], ...],
        *, key: Callable[[Question], Any], barred: set, what: str,
    ) -> list[Question]:  # fmt: skip
        found: list[Question] = []
        for rival in (r for pool in pools for r in _mixed(pool, rng, _TRIES * number)):
            if key(rival) not in barred:
                barred.add(key(rival))
                found.append(rival)
            if len(found) == number:
                return found
        raise ValueError(
            f"only {len(found)} {what} compete with {q.statement!r}; {number} are needed: give "
            "fewer candidates"
        )


def _mixed(pool: list[Question], rng: random.Random, most: int) -> Iterator[Question]:
    """Yield a small pool once in random order, at most `most` even draws of a large one."""
    if len(pool) <= most:
        return iter(rng.sample(pool, len(pool)))
    return (rng.choice(pool) for _ in range(most))
