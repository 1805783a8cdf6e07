"""How a teacher's vocabulary spells each token of a student's."""

from dataclasses import dataclass

import numpy as np

from xtoken_jax.text import ByteTokenizer, Role


@dataclass(frozen=True)
class Pieces:
    """Teacher tokens that spell each student token.

    Attributes:
        ids_N: int32 teacher ids of all student tokens, end to end.
        offsets_V: int64 `[V + 1]`; student token `s` is `ids_N[offsets_V[s]:offsets_V[s + 1]]`.
        exact_V: True where one teacher token has exactly the student token's bytes.
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


def retokenise(student: ByteTokenizer, teacher: ByteTokenizer) -> Pieces:
    """Spell every student token with teacher tokens.

    Equal bytes give the one teacher token; otherwise the teacher tokenises the bytes, whether
    or not they are valid UTF-8. A control token gets the teacher's token of the same role. No
    pieces: a control token without counterpart, an id without a token, or bytes that the
    teacher cannot spell.
    """
    exact_ids = teacher.id_of_bytes
    rows: list[list[int]] = [[] for _ in range(student.num_tokens)]
    unmatched = []
    for id, content in enumerate(student.token_bytes):
        if content in exact_ids:
            rows[id] = [exact_ids[content]]
        elif content:
            unmatched.append(id)
    spelled = teacher.pieces([student.token_bytes[id] for id in unmatched])
    for id, pieces in zip(unmatched, spelled, strict=True):
        rows[id] = pieces
    exact_V = np.array([content in exact_ids for content in student.token_bytes])
    for id, roles in student.roles.items():
        rows[id] = _counterpart(roles, teacher)
    offsets_V = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets_V[1:])
    ids_N = np.fromiter((id for row in rows for id in row), np.int32, int(offsets_V[-1]))
    return Pieces(ids_N, offsets_V, exact_V)


def _counterpart(roles: Role, teacher: ByteTokenizer) -> list[int]:
    """The teacher's token of the first of these roles that it has, in the order of `Role`."""
    for role in roles:
        if role in teacher.id_of_role:
            return [teacher.id_of_role[role]]
    return []
