"""How a teacher's vocabulary spells each token of a student's."""

from dataclasses import dataclass

import numpy as np

from xtoken_jax.projection.canonical import exact_counterparts
from xtoken_jax.projection.controls import control_counterparts
from xtoken_jax.projection.options import Canonicalization
from xtoken_jax.text import ByteTokenizer


@dataclass(frozen=True)
class Pieces:
    """Teacher tokens that spell each student token.

    Attributes:
        ids_N: int32 teacher ids of all student tokens, end to end.
        offsets_V: int64 `[V + 1]`; student token `s` is `ids_N[offsets_V[s]:offsets_V[s + 1]]`.
        exact_V: True where one teacher token equals the student token.
    """

    ids_N: np.ndarray
    offsets_V: np.ndarray
    exact_V: np.ndarray

    def __getitem__(self, student_id: int) -> np.ndarray:
        """The pieces of one student token."""
        return self.ids_N[self.offsets_V[student_id] : self.offsets_V[student_id + 1]]

    @property
    def lengths_V(self) -> np.ndarray:
        """Number of pieces of each student token; 0 where there are none."""
        return np.diff(self.offsets_V)


def retokenise(
    student: ByteTokenizer,
    teacher: ByteTokenizer,
    *,
    canonicalization: Canonicalization = "exact",
    special_similarity: bool = False,
) -> Pieces:
    """Spell every student token with teacher tokens.

    Equal tokens give the one teacher token; otherwise the teacher tokenises the bytes, whether
    or not they are valid UTF-8. A control token gets the teacher's token of the same role. No
    pieces: a control token without counterpart, an id without a token, or bytes that the
    teacher cannot spell.

    Args:
        student: Whose tokens are spelled.
        teacher: Whose tokens spell.
        canonicalization: Which tokens are equal: `"exact"`, those with equal bytes; `"paper"`,
            also those that `canonical_bytes` makes equal.
        special_similarity: A control token without counterpart by role gets the teacher's control
            token of the most similar name, where one is similar enough.

    Raises:
        ValueError: `canonicalization` is unknown.
    """
    exact_ids = exact_counterparts(student, teacher, canonicalization)
    rows = [[id] if id >= 0 else [] for id in exact_ids]
    unmatched = [
        id for id, content in enumerate(student.token_bytes) if content and exact_ids[id] < 0
    ]
    spelled = teacher.pieces([student.token_bytes[id] for id in unmatched])
    for id, pieces in zip(unmatched, spelled, strict=True):
        rows[id] = pieces
    controls = control_counterparts(student, teacher, by_similarity=special_similarity)
    for id, teacher_id in controls.items():
        rows[id] = [teacher_id]
    offsets_V = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets_V[1:])
    ids_N = np.fromiter((id for row in rows for id in row), np.int32, int(offsets_V[-1]))
    return Pieces(ids_N, offsets_V, np.array(exact_ids) >= 0)
