"""Alignments: chunks, gaps, and what must hold of them."""

import itertools
from dataclasses import dataclass

import numpy as np

from xtoken_jax.text import ByteTokenizer, Encoded, Role


@dataclass(frozen=True)
class Alignment:
    """Chunks of a batch of texts, end to end in one array.

    Attributes:
        chunks_N4: int32 `[N, 4]`, rows `(a, b, c, d)`: student tokens `a:b` and teacher tokens
            `c:d` of one text decode to the same bytes. Indices count within the text.
        offsets_B: int64 `[B + 1]`; text `i` owns `chunks_N4[offsets_B[i]:offsets_B[i + 1]]`.
        student_lengths_B: Student tokens of each text.
        teacher_lengths_B: Teacher tokens of each text.
        by_dp_B: True for texts that took the DP path, because their two sides spell different
            bytes.
    """

    chunks_N4: np.ndarray
    offsets_B: np.ndarray
    student_lengths_B: np.ndarray
    teacher_lengths_B: np.ndarray
    by_dp_B: np.ndarray

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.offsets_B) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """The chunks of one text, `[n, 4]`."""
        return self.chunks_N4[self.offsets_B[index] : self.offsets_B[index + 1]]

    def gaps(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the student's and the teacher's tokens of one text that are in no chunk."""
        chunks = self[index]
        lengths = (self.student_lengths_B[index], self.teacher_lengths_B[index])
        return _outside(chunks[:, :2], lengths[0]), _outside(chunks[:, 2:], lengths[1])


def _outside(spans_N2: np.ndarray, length: int) -> np.ndarray:
    depth = np.zeros(length + 1, np.int64)
    np.add.at(depth, spans_N2[:, 0], 1)
    np.add.at(depth, spans_N2[:, 1], -1)
    return np.flatnonzero(np.cumsum(depth)[:length] == 0)


def scored(chunks_N4: np.ndarray) -> np.ndarray:
    """True for chunks that both models predict: neither begins at the first position."""
    return (chunks_N4[:, 0] >= 1) & (chunks_N4[:, 2] >= 1)


def validate(
    alignment: Alignment,
    student: Encoded,
    teacher: Encoded,
    student_tokenizer: ByteTokenizer,
    teacher_tokenizer: ByteTokenizer,
) -> None:
    """Check the invariants, byte by byte: slow, for tests and for doubt.

    Raises:
        ValueError: a chunk is empty, out of bounds or order, overlapping, not minimal, its two
            sides spell different bytes, or it has control tokens that do not pair.
    """
    student_contents = student_tokenizer.contents(student)
    teacher_contents = teacher_tokenizer.contents(teacher)
    for index in range(len(alignment)):
        chunks = alignment[index]
        student_tokens = _tokens(student_contents, student, student_tokenizer, index)
        teacher_tokens = _tokens(teacher_contents, teacher, teacher_tokenizer, index)
        if (chunks[:, 0] >= chunks[:, 1]).any() or (chunks[:, 2] >= chunks[:, 3]).any():
            raise ValueError(f"chunks of text {index} must not be empty")
        if (chunks[1:, 0] < chunks[:-1, 1]).any() or (chunks[1:, 2] < chunks[:-1, 3]).any():
            raise ValueError(f"chunks of text {index} must be ordered and disjoint")
        if (chunks < 0).any() or (
            chunks > [len(student_tokens)] * 2 + [len(teacher_tokens)] * 2
        ).any():
            raise ValueError(f"chunks of text {index} must lie within its tokens")
        for a, b, c, d in chunks.tolist():
            place = f"text {index}, {(a, b, c, d)}"
            _validate_chunk(student_tokens[a:b], teacher_tokens[c:d], place)


_Token = tuple[bytes, Role]


def _validate_chunk(student: list[_Token], teacher: list[_Token], place: str) -> None:
    spelled = [[content for content, _ in side] for side in (student, teacher)]
    has_control = b"" in spelled[0] + spelled[1]
    if has_control and not (len(student) == len(teacher) == 1 and student[0][1] & teacher[0][1]):
        raise ValueError(f"control tokens must pair one to one by role: {place}")
    if b"".join(spelled[0]) != b"".join(spelled[1]):
        raise ValueError(f"chunk must spell the same bytes on both sides: {place}")
    cuts = [set(itertools.accumulate(map(len, side[:-1]))) for side in spelled]
    if cuts[0] & cuts[1]:
        raise ValueError(f"chunk must have no common cut inside: {place}")


def _tokens(
    contents: list[bytes], encoded: Encoded, tokenizer: ByteTokenizer, index: int
) -> list[_Token]:
    """What each token of a text adds to it, and its role."""
    roles = [tokenizer.roles.get(id, Role.NONE) for id in encoded[index].tolist()]
    own = slice(*encoded.offsets_B[index : index + 2])
    return list(zip(contents[own], roles, strict=True))
