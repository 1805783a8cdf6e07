"""One-to-one pairs: who may claim a teacher token."""

import numpy as np

from xtoken_jax.projection.controls import shared_role
from xtoken_jax.projection.retokenise import Pieces
from xtoken_jax.text import ByteTokenizer


def exact_pair_rows(student: ByteTokenizer, teacher: ByteTokenizer, pieces: Pieces) -> np.ndarray:
    """True for student tokens that are one half of an exact pair, shape `[V]`.

    Tokens that are equal, and control tokens of one role. Where several student tokens spell the
    same bytes or have the same role, the canonical one owns the pair; where a lossy comparison or
    a token of two roles leaves several owners, equal bytes win, then the lower student id.
    """
    canonical_N = np.fromiter(student.id_of_bytes.values(), np.int64, len(student.id_of_bytes))
    owners_N = np.array(_role_owners(student, teacher), np.int64)
    student_ids_N = np.sort(np.concatenate([canonical_N[pieces.exact_V[canonical_N]], owners_N]))
    teacher_ids_N = pieces.ids_N[pieces.offsets_V[student_ids_N]]
    is_lossy_N = np.array(
        [
            student.token_bytes[student_id] != teacher.token_bytes[teacher_id]
            for student_id, teacher_id in zip(student_ids_N, teacher_ids_N, strict=True)
        ],
        bool,
    )
    is_pair_V = np.zeros(student.num_tokens, bool)
    is_pair_V[student_ids_N[first_claims(teacher_ids_N, is_lossy_N)]] = True
    return is_pair_V


def first_claims(teacher_ids_N: np.ndarray, costs_N: np.ndarray) -> np.ndarray:
    """True for one claim on each teacher token: the lowest cost, of equal ones the earliest."""
    order_N = np.lexsort((costs_N, teacher_ids_N))  # stable
    _, first_N = np.unique(teacher_ids_N[order_N], return_index=True)
    is_first_N = np.zeros(len(teacher_ids_N), bool)
    is_first_N[order_N[first_N]] = True
    return is_first_N


def _role_owners(student: ByteTokenizer, teacher: ByteTokenizer) -> list[int]:
    return [
        id
        for id, roles in student.roles.items()
        if (role := shared_role(roles, teacher)) is not None and student.id_of_role[role] == id
    ]
