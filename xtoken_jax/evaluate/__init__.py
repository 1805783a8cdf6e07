"""How good a model is, whatever its tokenizer, and what it writes."""

from xtoken_jax.evaluate.agreement import Agreement, top1_agreement
from xtoken_jax.evaluate.answers import Answer, Question, answer_questions, questions_of
from xtoken_jax.evaluate.bits import BitsPerByte, bits_of, bits_per_byte
from xtoken_jax.evaluate.generation import generate_from, generate_texts
from xtoken_jax.evaluate.reading import Reading, read_texts
from xtoken_jax.evaluate.rows import fitting_texts

__all__ = [
    "Agreement",
    "Answer",
    "BitsPerByte",
    "Question",
    "Reading",
    "answer_questions",
    "bits_of",
    "bits_per_byte",
    "fitting_texts",
    "generate_from",
    "generate_texts",
    "questions_of",
    "read_texts",
    "top1_agreement",
]
