"""From documents to token ids of both sides with their chunks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xtoken_jax.align import align
from xtoken_jax.data.sources import Document
from xtoken_jax.errors import XTokenError
from xtoken_jax.text import ByteTokenizer


@dataclass(frozen=True)
class Example:
    """One document on both sides.

    Attributes:
        student_ids: int32.
        teacher_ids: int32.
        student_chunk: Chunk of each student token, counted from 0, -1 for none.
        teacher_chunk: Chunk of each teacher token.
        record: Where the document came from.
    """

    student_ids: np.ndarray
    teacher_ids: np.ndarray
    student_chunk: np.ndarray
    teacher_chunk: np.ndarray
    record: str


def make_examples(
    documents: Sequence[Document],
    student: ByteTokenizer,
    teacher: ByteTokenizer,
    *,
    student_length: int,
    teacher_length: int,
) -> list[Example]:
    """Tokenise and align documents, each begun and ended as its side's tokenizer does.

    A document that is too long on either side is cut after the last chunk that fits on both. One
    in which no chunk fits is left out.

    Raises:
        XTokenError: there are no documents, or none is left.
    """
    if not documents:
        raise XTokenError("data must hold at least one document, got none")
    texts = [document.text for document in documents]
    student_encoded = student.encode(texts, bos=True, eos=True)
    teacher_encoded = teacher.encode(texts, bos=True, eos=True)
    alignment = align(student_encoded, teacher_encoded, student, teacher)
    examples = [
        _example(
            student_encoded[i],
            teacher_encoded[i],
            alignment[i],
            document.record,
            student_length,
            teacher_length,
        )
        for i, document in enumerate(documents)
    ]
    kept = [example for example in examples if example is not None]
    if not kept:
        raise XTokenError(
            f"no document has a chunk that fits in {student_length} student tokens and "
            f"{teacher_length} teacher tokens"
        )
    return kept


def _example(
    student_ids: np.ndarray,
    teacher_ids: np.ndarray,
    chunks_N4: np.ndarray,
    record: str,
    student_length: int,
    teacher_length: int,
) -> Example | None:
    if len(student_ids) > student_length or len(teacher_ids) > teacher_length:
        fits_N = (chunks_N4[:, 1] <= student_length) & (chunks_N4[:, 3] <= teacher_length)
        chunks_N4 = chunks_N4[fits_N]
        if len(chunks_N4):
            student_ids = student_ids[: chunks_N4[-1, 1]]
            teacher_ids = teacher_ids[: chunks_N4[-1, 3]]
    if not len(chunks_N4):
        return None
    return Example(
        student_ids,
        teacher_ids,
        _chunk_of_token(chunks_N4[:, :2], len(student_ids)),
        _chunk_of_token(chunks_N4[:, 2:], len(teacher_ids)),
        record,
    )


def _chunk_of_token(spans_N2: np.ndarray, num_tokens: int) -> np.ndarray:
    chunk = np.full(num_tokens, -1, np.int32)
    lengths_N = spans_N2[:, 1] - spans_N2[:, 0]
    starts_N = np.cumsum(lengths_N) - lengths_N
    within_N = np.arange(int(lengths_N.sum())) - np.repeat(starts_N, lengths_N)
    tokens_N = np.repeat(spans_N2[:, 0], lengths_N) + within_N
    chunk[tokens_N] = np.repeat(np.arange(len(spans_N2), dtype=np.int32), lengths_N)
    return chunk
