"""Exact match: word problems that a model answers, and whether the last number is right."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from xtoken_jax.evaluate.generation import generate_texts
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.text import ByteTokenizer

_ANSWERS, _RESULT = "\nAnswer:", "####"
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|-?\.\d+")


@dataclass(frozen=True)
class Question:
    """What a model is to go on from, and the number that it is to end with.

    Raises:
        ValueError: the answer is not a number.
    """

    prompt: str
    answer: str

    def __post_init__(self) -> None:
        if final_number(self.answer) is None:
            raise ValueError(f"`answer` must hold a number, got {self.answer!r}")


@dataclass(frozen=True)
class Answer:
    """What a model wrote after a question's prompt."""

    question: Question
    text: str

    @property
    def is_right(self) -> bool:
        """Whether it ends with the number asked for."""
        return final_number(self.text) == final_number(self.question.answer)

    def to_dict(self) -> dict[str, str | bool]:
        """As plain values, for a line of JSON."""
        told = {"prompt": self.question.prompt, "text": self.text, "answer": self.question.answer}
        return {**told, "is_right": self.is_right}


def questions_of(texts: Iterable[str]) -> list[Question]:
    """The questions in texts of `gsm_symbolic`'s form; texts of another form have none.

    A prompt goes up to `Answer:`, the answer is what follows `####`.
    """
    questions = []
    for text in texts:
        prompt, found, worked = text.partition(_ANSWERS)
        _, ends, answer = worked.partition(_RESULT)
        if found and ends:
            questions.append(Question(prompt + found, answer.strip()))
    return questions


def final_number(text: str) -> Decimal | None:
    """The number behind the first `####`, or else the last number; None where there is none.

    Thousands may have commas, so `1,200`, `1200` and `1200.00` are the same number.
    """
    _, found, behind = text.partition(_RESULT)
    if found:
        first = _NUMBER.search(behind.partition("\n")[0])
        return None if first is None else _value(first[0])
    numbers = _NUMBER.findall(text)
    return _value(numbers[-1]) if numbers else None


def _value(digits: str) -> Decimal:
    return Decimal(digits.replace(",", ""))


def answer_questions(
    model: Decoder,
    tokenizer: ByteTokenizer,
    questions: Sequence[Question],
    *,
    max_new_tokens: int = 256,
    batch_size: int = 8,
) -> list[Answer]:
    """What a model answers, greedily.

    Args:
        model: Has at least as many rows as the tokenizer has tokens.
        tokenizer: The model's.
        questions: A text ends before another question, if the model asks one.
        max_new_tokens: Of an answer.
        batch_size: Questions at a time.

    Raises:
        XTokenError: see `started_rows`.
        ValueError: see `models.generate.generate`.
    """
    texts = generate_texts(
        model,
        tokenizer,
        [question.prompt for question in questions],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        stop="\nQuestion:",
    )
    return [Answer(question, text) for question, text in zip(questions, texts, strict=True)]
