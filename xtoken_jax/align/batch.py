"""Alignment of a batch: the byte path where both sides spell the same, the DP path elsewhere."""

import numpy as np

from xtoken_jax.align.byte_path import equal_length_chunks
from xtoken_jax.align.controls import control_chunks
from xtoken_jax.align.differences import differing_chunks
from xtoken_jax.align.sides import Side
from xtoken_jax.align.spans import Alignment
from xtoken_jax.align.tables import ByteTable
from xtoken_jax.text import ByteTokenizer, Encoded


def align(
    student: Encoded,
    teacher: Encoded,
    student_tokenizer: ByteTokenizer,
    teacher_tokenizer: ByteTokenizer,
) -> Alignment:
    """The finest alignment of two tokenisations of the same texts.

    A text that both sides spell with the same bytes is cut wherever both have a token boundary.
    In any other, stretches of equal bytes are cut so, and what lies between them is aligned by
    dynamic programming. Control tokens pair by role where they stand between the same chunks. A
    chunk with a control token inside is a gap.

    Raises:
        ValueError: the two sides hold different numbers of texts, or an id is out of range.
    """
    if len(student) != len(teacher):
        raise ValueError(
            f"`student` and `teacher` must hold the same texts, got {len(student)} "
            f"and {len(teacher)} of them"
        )
    student_side = Side.of(student, ByteTable.of(student_tokenizer), name="student")
    teacher_side = Side.of(teacher, ByteTable.of(teacher_tokenizer), name="teacher")
    chunks_4N, is_equal_B = _equal_chunks(student_side, teacher_side)
    if not is_equal_B.all():
        differing_4N = _differing_chunks(student_side, teacher_side, ~is_equal_B)
        chunks_4N = _merged(chunks_4N, differing_4N)
    if student_side.control_N.size or teacher_side.control_N.size:
        chunks_4N = _in_batch(chunks_4N, student_side, teacher_side)
        offsets = student.offsets_B, teacher.offsets_B
        controls_4N = control_chunks(chunks_4N, student_side, teacher_side, *offsets)
        chunks_4N = _merged(chunks_4N, controls_4N)
    return _per_text(chunks_4N, student, teacher, ~is_equal_B)


# Chunks are int32 [4, N] in this module, so that each of a, b, c and d is contiguous.


def _equal_chunks(student: Side, teacher: Side) -> tuple[np.ndarray, np.ndarray]:
    """Chunks of the texts that spell the same, by content tokens, and which texts those are."""
    is_equal_B = student.totals_B == teacher.totals_B
    sides = student.of_texts(is_equal_B), teacher.of_texts(is_equal_B)
    chunks_4N, differs_N = equal_length_chunks(*sides)
    for rows, side in zip((slice(0, 2), slice(2, 4)), sides, strict=True):
        if side.content_N is not None:
            chunks_4N[rows] = _looked_up(chunks_4N[rows], side.content_N)
    if differs_N.size:
        text_N = np.searchsorted(student.offsets_B, chunks_4N[0], side="right") - 1
        is_equal_B[text_N[differs_N]] = False
        chunks_4N = chunks_4N[:, is_equal_B[text_N]]
    return chunks_4N, is_equal_B


def _looked_up(spans_2N: np.ndarray, index_N: np.ndarray | None) -> np.ndarray:
    """Spans of what `index_N` holds, from spans of `index_N` itself; None for the same."""
    if index_N is None:
        return spans_2N
    found_2N = np.empty(spans_2N.shape, np.int32)
    found_2N[0] = index_N[spans_2N[0]]
    found_2N[1] = index_N[spans_2N[1] - 1]
    found_2N[1] += 1
    return found_2N


def _differing_chunks(student: Side, teacher: Side, is_wanted_B: np.ndarray) -> np.ndarray:
    sides = student.of_texts(is_wanted_B), teacher.of_texts(is_wanted_B)
    chunks_4N = differing_chunks(*sides).T
    spans = chunks_4N[:2], chunks_4N[2:]
    index = [side.content_N for side in sides]
    return np.concatenate([_looked_up(*pair) for pair in zip(spans, index, strict=True)])


def _in_batch(chunks_4N: np.ndarray, student: Side, teacher: Side) -> np.ndarray:
    """Chunks by token of the batch, without those that have a control token inside."""
    student_2N = _looked_up(chunks_4N[:2], student.content_N)
    teacher_2N = _looked_up(chunks_4N[2:], teacher.content_N)
    in_batch_4N = np.concatenate([student_2N, teacher_2N])
    unbroken_N = np.ones(chunks_4N.shape[1], bool)
    for start, end in ((0, 1), (2, 3)):
        width_N = chunks_4N[end] - chunks_4N[start]
        unbroken_N &= in_batch_4N[end] - in_batch_4N[start] == width_N
    return in_batch_4N if unbroken_N.all() else in_batch_4N[:, unbroken_N]


def _merged(one_4N: np.ndarray, other_4N: np.ndarray) -> np.ndarray:
    """Two lists of chunks as one, in order."""
    num_one, num_other = one_4N.shape[1], other_4N.shape[1]
    before_N = np.searchsorted(
        one_4N[0], other_4N[0]
    )  # of the first list, before each of the other
    counts_N = np.diff(before_N, prepend=0, append=num_one)
    one_at_N = np.arange(num_one) + np.repeat(np.arange(num_other + 1), counts_N)
    merged_4N = np.empty((4, num_one + num_other), np.int32)
    for merged_N, one_N, other_N in zip(merged_4N, one_4N, other_4N, strict=True):
        merged_N[one_at_N] = one_N
        merged_N[before_N + np.arange(num_other)] = other_N
    return merged_4N


def _per_text(
    chunks_4N: np.ndarray, student: Encoded, teacher: Encoded, by_dp_B: np.ndarray
) -> Alignment:
    """Indices within the text from indices in the batch."""
    chunk_offsets_B = np.searchsorted(chunks_4N[0], student.offsets_B)
    for rows, encoded in ((slice(0, 2), student), (slice(2, 4), teacher)):
        starts_B = encoded.offsets_B[:-1].astype(np.int32)
        chunks_4N[rows] -= np.repeat(starts_B, np.diff(chunk_offsets_B))
    return Alignment(
        chunks_4N.T,
        chunk_offsets_B,
        np.diff(student.offsets_B),
        np.diff(teacher.offsets_B),
        by_dp_B,
    )
