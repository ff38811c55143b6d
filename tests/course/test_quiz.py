"""Every quiz can be answered: one right choice a question, feedback for each, no pattern."""

from dataclasses import replace

import pytest

from dsd_tutorial.course.quizzes import FOLDER, Choice, Question, Quiz, quiz, read_quiz

FILES = sorted(FOLDER.glob("*.yaml"))
each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
A, B, C = Choice("a <b>", "`x` it is", True), Choice("b", "no: a"), Choice("c", "no, a")
GOOD = Question("which?", (B, A, C))


@each
def test_quiz_is_well_formed(path):
    asked = read_quiz(path).questions
    assert len(asked) == 5
    for question in asked:
        assert sum(choice.right for choice in question.choices) == 1
        texts = [choice.text for choice in question.choices]
        assert len(set(texts)) == len(texts)
        assert len({choice.feedback for choice in question.choices}) == len(texts)
        assert all(len(choice.feedback) > 20 for choice in question.choices)


@each
def test_neither_place_nor_length_gives_the_answer_away(path):
    asked = read_quiz(path).questions
    places = [[c.right for c in q.choices].index(True) for q in asked]
    assert max(places.count(place) for place in places) <= 3
    longest = [max(q.choices, key=lambda c: len(c.text)).right for q in asked]
    assert sum(longest) <= 3


def test_html_holds_every_feedback_and_is_safe():
    page = Quiz((GOOD,) * 5)._repr_html_()
    assert page.count("<details") == page.count("</details>") == 15
    assert page.count("Right.") == 5 and page.count("Not quite.") == 10
    assert "a &lt;b&gt;" in page and "<code>x</code> it is" in page
    assert "<script" not in page and "http" not in page
    for number in range(1, 6):
        assert page.count(f'name="quiz-{number}"') == 3


def test_plain_text_asks_without_answering():
    text = repr(Quiz((GOOD,) * 5))
    assert "which?" in text and "B) a <b>" in text and "it is" not in text


@pytest.mark.parametrize("choices", [(B, C, C), (A, A, B), (A, B), (A, B, replace(C, feedback=""))])
def test_a_bad_question_is_refused(choices):
    with pytest.raises(ValueError, match="which"):
        Question("which?", choices)


def test_another_number_of_questions_is_refused():
    with pytest.raises(ValueError, match="not 4"):
        Quiz((GOOD,) * 4)


def test_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no quiz called '7z'"):
        quiz("7z")
