"""Who may claim a teacher token."""

import numpy as np

from xtoken_jax.projection.pairing import exact_pair_rows, first_claims
from xtoken_jax.projection.retokenise import Pieces
from xtoken_jax.text import Role


class Vocabulary:
    """As much of a tokenizer as pairs need; the last token of some bytes or role is canonical."""

    def __init__(self, *tokens):
        contents = [token if isinstance(token, bytes) else b"" for token in tokens]
        self.num_tokens, self.token_bytes = len(tokens), contents
        self.id_of_bytes = {content: id for id, content in enumerate(contents) if content}
        self.roles = {id: role for id, role in enumerate(tokens) if isinstance(role, Role)}
        self.id_of_role = {role: id for id, roles in self.roles.items() for role in roles}


def pairs(student, teacher, *targets):
    """The students in pairs, if each student token has the one piece that is given, or none."""
    kept = [target for target in targets if target is not None]
    offsets = np.cumsum([0, *(target is not None for target in targets)])
    exact = [
        target is not None and bool(student.token_bytes[i]) for i, target in enumerate(targets)
    ]
    pieces = Pieces(np.array(kept, np.int32), offsets, np.array(exact))
    return np.flatnonzero(exact_pair_rows(student, teacher, pieces)).tolist()


def test_the_canonical_token_owns_the_pair():
    student, teacher = Vocabulary(b"a", b"b", b"a", b"c"), Vocabulary(b"a", b"b")
    assert pairs(student, teacher, 0, 1, 0, None) == [1, 2]


def test_the_canonical_token_of_a_role_owns_the_pair():
    student = Vocabulary(Role.EOS, Role.BOS, Role.EOS | Role.TURN_END, Role.PAD)
    assert pairs(student, Vocabulary(Role.EOS, Role.BOS), 0, 1, 0, None) == [1, 2]


def test_a_teacher_token_of_two_roles_goes_to_the_lower_id():
    student, teacher = Vocabulary(Role.EOS, Role.BOS), Vocabulary(Role.BOS | Role.EOS)
    assert pairs(student, teacher, 0, 0) == [0]


def test_equal_bytes_win_over_equal_forms():
    student = Vocabulary(b" ,", b",", b" .", b"_.")
    assert pairs(student, Vocabulary(b",", b"."), 0, 0, 1, 1) == [1, 2]


def test_first_claims_take_the_lowest_cost_then_the_earliest():
    teacher_ids, costs = np.array([5, 4, 5, 5, 4]), np.array([2, 1, 1, 1, 0])
    assert first_claims(teacher_ids, costs).tolist() == [False, False, True, False, True]
    assert first_claims(teacher_ids[:0], costs[:0]).tolist() == []
