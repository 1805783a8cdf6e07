"""The common set on the device."""

import numpy as np
import pytest

from xtoken_jax.ops.common_set import common_set_to_device
from xtoken_jax.projection import CommonSet, build_projection, exact_pairs


def pairs(student, teacher):
    ids = np.array(student, np.int32), np.array(teacher, np.int32)
    return CommonSet(*ids, np.ones(len(student), bool))


def test_every_token_is_in_a_pair_or_in_the_rest():
    device = common_set_to_device(
        pairs([0, 3], [4, 1]),
        num_student_tokens=5,
        num_teacher_tokens=6,
        student_vocab_size=8,
        teacher_vocab_size=7,
    )
    assert device.student_ids_C.tolist() == [0, 3]
    assert device.teacher_ids_C.tolist() == [4, 1]
    assert device.student_rest_R.tolist() == [1, 2, 4]
    assert device.teacher_rest_Q.tolist() == [0, 2, 3, 5]
    assert device.teacher_of_student_V.tolist() == [4, 0, 0, 1, 0, 0, 0, 0]
    assert np.flatnonzero(device.is_common_V).tolist() == [0, 3]
    assert np.flatnonzero(device.is_common_U).tolist() == [1, 4]
    assert (len(device.is_common_V), len(device.is_common_U)) == (8, 7)
    assert (device.num_student_tokens, device.num_teacher_tokens) == (5, 6)
    assert {str(ids.dtype) for ids in (device.student_ids_C, device.teacher_rest_Q)} == {"int32"}


def test_an_empty_set_leaves_both_vocabularies():
    device = common_set_to_device(pairs([], []), num_student_tokens=2, num_teacher_tokens=3)
    assert device.student_ids_C.shape == (0,)
    assert device.student_rest_R.tolist() == [0, 1]
    assert device.teacher_rest_Q.tolist() == [0, 1, 2]
    assert device.is_common_U.tolist() == [False] * 3


def test_a_real_pair(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("smollm2-135m")
    common = exact_pairs(build_projection(student, teacher))
    device = common_set_to_device(
        common, num_student_tokens=student.num_tokens, num_teacher_tokens=teacher.num_tokens
    )
    assert len(device.student_ids_C) == len(common) == 39312
    assert len(device.student_rest_R) == 128256 - 39312
    assert len(device.teacher_rest_Q) == 49152 - 39312
    assert student.id_of_bytes[b"201"] in device.student_rest_R


@pytest.mark.parametrize(
    ("student", "teacher", "sizes", "message"),
    [
        ([5], [0], {}, "`common.student_ids_N` must be below `num_student_tokens` 5 .* got 5 to 5"),
        ([0], [-1], {}, "`common.teacher_ids_N` must be below `num_teacher_tokens` 6"),
        ([0, 0], [0, 1], {}, "`common.student_ids_N` must not repeat a token"),
        ([0, 1], [2, 2], {}, "`common.teacher_ids_N` must not repeat a token"),
        ([0], [0], {"student_vocab_size": 4}, "`student_vocab_size` must be at least the tok"),
        ([0], [0], {"teacher_vocab_size": 5}, "`teacher_vocab_size` must be at least the tok"),
    ],
)
def test_what_does_not_fit_is_named(student, teacher, sizes, message):
    with pytest.raises(ValueError, match=message):
        common_set_to_device(
            pairs(student, teacher), num_student_tokens=5, num_teacher_tokens=6, **sizes
        )
