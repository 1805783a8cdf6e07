"""Teacher tokens beyond W's reach fold to what their text begins with."""

import numpy as np
import pytest

from xtoken_jax.projection import build_projection
from xtoken_jax.projection.fold import fold_targets


@pytest.fixture(scope="module")
def folded(tokenizer):
    student, teacher = tokenizer("smollm2-135m"), tokenizer("llama3")
    projection = build_projection(student, teacher)
    return student, teacher, projection, fold_targets(projection, student, teacher)


def test_reachable_tokens_stay_and_every_target_is_reachable(folded):
    _, _, projection, targets_U = folded
    reachable_U = projection.reachable_U
    assert (targets_U[reachable_U] == np.flatnonzero(reachable_U)).all()
    assert reachable_U[targets_U[targets_U >= 0]].all()
    assert targets_U.dtype == np.int32


def test_a_packed_numeral_folds_to_its_first_digit(folded):
    _, teacher, projection, targets_U = folded
    packed, digit = teacher.id_of_bytes[b"201"], teacher.id_of_bytes[b"2"]
    assert not projection.reachable_U[packed]
    assert targets_U[packed] == digit


def test_only_what_the_student_cannot_spell_has_nowhere_to_go(folded):
    student, teacher, _, targets_U = folded
    for id in np.flatnonzero(targets_U < 0).tolist():
        content = teacher.token_bytes[id]
        assert not content or not student.pieces([content])[0], content
    assert 0 < (targets_U < 0).sum() < 400
