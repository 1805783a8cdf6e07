"""The byte path: cut wherever both sides have a token boundary.

Vectorised over a whole batch: no loop over texts, content tokens or bytes. Linear in the bytes and
tokens.
"""

from dataclasses import dataclass

import numpy as np

from xtoken_jax.align.spans import Alignment
from xtoken_jax.align.tables import ByteTable, power
from xtoken_jax.text import ByteTokenizer, Encoded


@dataclass(frozen=True)
class _Side:
    """One side of a batch; content tokens are those that contribute bytes.

    Attributes:
        content_N: Indices of content tokens in the flat batch.
        row_N: The text of each content token.
        ends_N: Byte position within its text where each content token ends.
        sums_N: Prefix sums of the content tokens' hashes at their positions, uint64.
        control_N: Indices of control tokens in the flat batch.
        control_row_N: The text of each control token.
        control_at_N: Byte position of each control token within its text.
        totals_B: Bytes of each text.
    """

    content_N: np.ndarray
    row_N: np.ndarray
    ends_N: np.ndarray
    sums_N: np.ndarray
    control_N: np.ndarray
    control_row_N: np.ndarray
    control_at_N: np.ndarray
    totals_B: np.ndarray

    @classmethod
    def of(cls, encoded: Encoded, table: ByteTable) -> "_Side":
        ids_N, offsets_B = encoded.ids_N, encoded.offsets_B
        lengths_N = table.lengths_V[ids_N]
        hashes_N = table.hashes_V[ids_N]
        prefixed_N = encoded.prefixed_N
        lengths_N[prefixed_N] -= 1
        hashes_N[prefixed_N] = table.unprefixed_hashes_V[ids_N[prefixed_N]]
        sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths_N)])
        row_N = np.repeat(np.arange(len(encoded)), np.diff(offsets_B))
        ends_N = sums[1:] - sums[offsets_B[:-1]][row_N]
        hashes_N *= power(ends_N - lengths_N)
        has_bytes_N = lengths_N > 0
        content_N = np.flatnonzero(has_bytes_N)
        control_N = np.flatnonzero(~has_bytes_N)
        return cls(
            content_N,
            row_N[content_N],
            ends_N[content_N],
            np.cumsum(hashes_N[content_N], dtype=np.uint64),
            control_N,
            row_N[control_N],
            ends_N[control_N],
            np.diff(sums[offsets_B]),
        )


def align_bytes(
    student: Encoded,
    teacher: Encoded,
    student_tokenizer: ByteTokenizer,
    teacher_tokenizer: ByteTokenizer,
) -> Alignment:
    """The finest alignment of two tokenisations of the same texts.

    Control tokens pair by role where both sides have one at the same byte. A span that one side
    cut short (truncation), that has a control token inside, or whose bytes differ is a gap.

    Raises:
        ValueError: the two sides hold different numbers of texts, or an id is out of range.
    """
    if len(student) != len(teacher):
        raise ValueError(
            f"`student` and `teacher` must hold the same texts, got {len(student)} "
            f"and {len(teacher)} of them"
        )
    student_table = ByteTable.of(student_tokenizer)
    teacher_table = ByteTable.of(teacher_tokenizer)
    _check_ids(student.ids_N, len(student_table.lengths_V), "student")
    _check_ids(teacher.ids_N, len(teacher_table.lengths_V), "teacher")
    student_side = _Side.of(student, student_table)
    teacher_side = _Side.of(teacher, teacher_table)
    chunks = np.concatenate(
        [
            _content_chunks(student_side, teacher_side),
            _control_chunks(
                student_side,
                teacher_side,
                student_table.roles_V[student.ids_N[student_side.control_N]],
                teacher_table.roles_V[teacher.ids_N[teacher_side.control_N]],
            ),
        ]
    )
    chunks_N4 = chunks[np.argsort(chunks[:, 0], kind="stable")]
    chunk_offsets_B = np.searchsorted(chunks_N4[:, 0], student.offsets_B)
    row_N = np.repeat(np.arange(len(student)), np.diff(chunk_offsets_B))
    chunks_N4[:, :2] -= student.offsets_B[row_N, None]
    chunks_N4[:, 2:] -= teacher.offsets_B[row_N, None]
    return Alignment(
        chunks_N4, chunk_offsets_B, np.diff(student.offsets_B), np.diff(teacher.offsets_B)
    )


def _check_ids(ids_N: np.ndarray, num_tokens: int, side: str) -> None:
    if ids_N.size and not 0 <= ids_N.min() <= ids_N.max() < num_tokens:
        raise ValueError(
            f"`{side}` ids must be in [0, {num_tokens}), got {ids_N.min()} to {ids_N.max()}"
        )


def _content_chunks(student: _Side, teacher: _Side) -> np.ndarray:
    """Chunks of content tokens, in flat token indices, `[N, 4]`."""
    # One bit a byte of the batch: which positions end a token. Gathering the other side's bits
    # at one's own ends intersects two sorted lists without sorting or searching.
    spans_B = np.maximum(student.totals_B, teacher.totals_B) + 1
    bases_B = np.cumsum(spans_B) - spans_B
    student_at_N = bases_B[student.row_N] + student.ends_N
    teacher_at_N = bases_B[teacher.row_N] + teacher.ends_N
    ends_token = np.zeros(int(spans_B.sum()), bool)
    ends_token[teacher_at_N] = True
    student_last_N = np.flatnonzero(ends_token[student_at_N])
    ends_token[teacher_at_N] = False
    ends_token[student_at_N] = True
    teacher_last_N = np.flatnonzero(ends_token[teacher_at_N])

    student_first_N = _first_content(student, student_last_N)
    teacher_first_N = _first_content(teacher, teacher_last_N)
    chunks_N4 = np.stack(
        [
            student.content_N[student_first_N],
            student.content_N[student_last_N] + 1,
            teacher.content_N[teacher_first_N],
            teacher.content_N[teacher_last_N] + 1,
        ],
        axis=1,
    )
    same_bytes_N = _span_hash(student, student_first_N, student_last_N) == _span_hash(
        teacher, teacher_first_N, teacher_last_N
    )
    unbroken_N = (chunks_N4[:, 1] - chunks_N4[:, 0] == student_last_N - student_first_N + 1) & (
        chunks_N4[:, 3] - chunks_N4[:, 2] == teacher_last_N - teacher_first_N + 1
    )
    return chunks_N4[same_bytes_N & unbroken_N]


def _first_content(side: _Side, last_N: np.ndarray) -> np.ndarray:
    """First content token of each chunk: after the chunk before, or the first of its text."""
    first_N = np.concatenate([np.zeros(1, np.int64), last_N[:-1] + 1])[: len(last_N)]
    text_starts_B = np.searchsorted(side.row_N, np.arange(len(side.totals_B)))
    return np.maximum(first_N, text_starts_B[side.row_N[last_N]])


def _span_hash(side: _Side, first_N: np.ndarray, last_N: np.ndarray) -> np.ndarray:
    before_N = np.where(first_N > 0, side.sums_N[first_N - 1], np.uint64(0))
    return side.sums_N[last_N] - before_N


def _control_chunks(
    student: _Side, teacher: _Side, student_roles_N: np.ndarray, teacher_roles_N: np.ndarray
) -> np.ndarray:
    """Pairs of control tokens at the same byte of the same text with a role in common.

    Within one position they pair in order, each with the first that still fits.
    """
    teacher_at: dict[tuple[int, int], list[int]] = {}
    places = zip(teacher.control_row_N.tolist(), teacher.control_at_N.tolist(), strict=True)
    for index, place in enumerate(places):
        teacher_at.setdefault(place, []).append(index)
    pairs = []
    places = zip(student.control_row_N.tolist(), student.control_at_N.tolist(), strict=True)
    for index, place in enumerate(places):
        candidates = teacher_at.get(place, [])
        for rank, candidate in enumerate(candidates):
            if student_roles_N[index] & teacher_roles_N[candidate]:
                a, c = student.control_N[index], teacher.control_N[candidate]
                pairs.append((a, a + 1, c, c + 1))
                # What stands before the partner may no longer pair: chunks stay in order.
                del candidates[: rank + 1]
                break
    return np.array(pairs, np.int64).reshape(-1, 4)
