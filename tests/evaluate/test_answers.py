from decimal import Decimal

import pytest

from xtoken_jax.evaluate import Answer, Question, answer_questions, questions_of
from xtoken_jax.evaluate import answers as answers_module
from xtoken_jax.evaluate.answers import final_number

TEXT = "Question: How many?\nAnswer: 3 and 4 is 7.\n#### 7"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#### 44", "44"),
        ("72*0.5=36\n#### 44\nQuestion 5", "44"),
        ("#### $1,200.50 ", "1200.5"),
        ("#### -3", "-3"),
        ("#### none\n5", None),
        ("It is 1,200.", "1200"),
        ("7, then 12.", "12"),
        ("of 3-4 pounds", "-4"),
        ("0.50", "0.5"),
        ("", None),
        ("none", None),
    ],
)
def test_final_number(text, expected):
    assert final_number(text) == (None if expected is None else Decimal(expected))


def test_questions_of_texts():
    assert questions_of([TEXT, "prose", "Question: no end?\nAnswer: 3"]) == [
        Question("Question: How many?\nAnswer:", "7")
    ]


def test_questions_of_the_generator_end_with_their_own_answers():
    from xtoken_jax.data import gsm_symbolic

    texts = [document.text for document in gsm_symbolic(100, seed=3)]
    questions = questions_of(texts)
    assert len(questions) == len(texts)
    for question, text in zip(questions, texts, strict=True):
        assert text.startswith(f"{question.prompt} ")
        assert Answer(question, text.removeprefix(question.prompt)).is_right


def test_a_question_needs_a_number():
    with pytest.raises(ValueError, match="`answer` must hold a number, got 'none'"):
        Question("a", "none")


@pytest.mark.parametrize(
    ("text", "is_right"),
    [(" 7", True), ("\n#### 7.0", True), (" 17", False), (" seven", False), ("#### 8\n7", False)],
)
def test_an_answer_is_right_by_its_number(text, is_right):
    answer = Answer(Question("How many?", "7"), text)
    assert answer.is_right is is_right
    assert answer.to_dict() == {
        "prompt": "How many?",
        "text": text,
        "answer": "7",
        "is_right": is_right,
    }


def test_prompts_are_asked_and_a_next_question_is_not_read(monkeypatch):
    asked = {}

    def write(model, tokenizer, prompts, **options):
        asked.update(options, prompts=prompts)
        return [" 7", " 9"]

    monkeypatch.setattr(answers_module, "generate_texts", write)
    questions = [Question("a", "7"), Question("b", "8")]
    found = answer_questions(None, None, questions, max_new_tokens=5, batch_size=3)
    assert [answer.is_right for answer in found] == [True, False]
    assert asked == {
        "prompts": ["a", "b"],
        "max_new_tokens": 5,
        "batch_size": 3,
        "stop": "\nQuestion:",
    }
