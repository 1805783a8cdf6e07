"""Terms of C-KL for packed rows, found on the host where their chunks are."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from xtoken_jax.losses import Capacity, ChainBatch, chain_batch
from xtoken_jax.projection import ChainTerms, PieceTrie, build_piece_trie, chain_terms, retokenise
from xtoken_jax.text import ByteTokenizer


class PieceTries(NamedTuple):
    """Each vocabulary by the pieces of the other, on the host."""

    student_by_teacher: PieceTrie
    teacher_by_student: PieceTrie


def build_piece_tries(student: ByteTokenizer, teacher: ByteTokenizer) -> PieceTries:
    """Sort both vocabularies by how the other tokenizer spells them."""
    return PieceTries(
        build_piece_trie(retokenise(student, teacher), num_teacher_tokens=teacher.num_tokens),
        build_piece_trie(retokenise(teacher, student), num_teacher_tokens=student.num_tokens),
    )


def chain_terms_of_rows(
    student_ids_BS: np.ndarray,
    teacher_ids_BT: np.ndarray,
    spans: Mapping[str, np.ndarray],
    tries: PieceTries,
) -> ChainBatch:
    """The terms of the scored chunks of a batch, in shapes that all batches of its size share.

    Args:
        student_ids_BS: Of packed rows.
        teacher_ids_BT: Of the same rows.
        spans: The fields of `ops.Spans`.
        tries: Of the two tokenizers.
    """
    num_student, num_teacher = student_ids_BS.shape[1], teacher_ids_BT.shape[1]
    rows = range(len(student_ids_BS))
    terms = [_row(student_ids_BS[row], teacher_ids_BT[row], spans, row, tries) for row in rows]
    # A chunk has a term at its start, and more only one a token of its longer side.
    capacity = Capacity(min(num_student, num_teacher), num_teacher, num_student)
    return chain_batch(terms, capacity)


def _row(
    student_ids: np.ndarray,
    teacher_ids: np.ndarray,
    spans: Mapping[str, np.ndarray],
    row: int,
    tries: PieceTries,
) -> ChainTerms:
    num_places = spans["mask_BN"].shape[1]
    chunk_N = np.flatnonzero(spans["mask_BN"][row])
    columns = []
    for start, chunk in (
        ("student_start_BN", "student_chunk_BS"),
        ("teacher_start_BN", "teacher_chunk_BT"),
    ):
        of_token = spans[chunk][row]
        length_N = np.bincount(of_token[of_token >= 0], minlength=num_places)[chunk_N]
        start_N = spans[start][row, chunk_N]
        columns += [start_N, start_N + length_N]
    terms = chain_terms(np.stack(columns, axis=1), student_ids, teacher_ids, *tries)
    return replace(terms, chunk_N=chunk_N.astype(np.int32)[terms.chunk_N])
