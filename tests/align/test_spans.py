"""Gaps, scored chunks, and a validator that finds each way in which an alignment can be wrong."""

import dataclasses

import numpy as np
import pytest

from xtoken_jax.align import Alignment, align, scored, validate
from xtoken_jax.text import Encoded


def alignment_of(chunks, student_length, teacher_length):
    chunks_N4 = np.array(chunks, np.int64).reshape(-1, 4)
    lengths = np.array([student_length]), np.array([teacher_length])
    offsets_B, by_dp_B = np.array([0, len(chunks_N4)]), np.array([False])
    return Alignment(chunks_N4, offsets_B, *lengths, by_dp_B)


def batch(*ids):
    return Encoded(np.array(ids, np.int32), np.array([0, len(ids)]), np.zeros(0, np.int64))


def test_gaps_are_the_tokens_in_no_chunk():
    alignment = alignment_of([[1, 2, 0, 3], [4, 6, 3, 4]], 7, 6)
    student, teacher = alignment.gaps(0)
    assert student.tolist() == [0, 2, 3, 6]
    assert teacher.tolist() == [4, 5]
    assert [gap.tolist() for gap in alignment_of([], 2, 0).gaps(0)] == [[0, 1], []]


def test_a_chunk_at_the_first_position_of_either_side_is_not_scored():
    chunks = np.array([[0, 1, 1, 2], [1, 2, 0, 1], [1, 2, 1, 2], [3, 4, 9, 12]])
    assert scored(chunks).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([[1, 2, 3, 4], [0, 1, 0, 3]], "ordered and disjoint"),
        ([[0, 1, 0, 3], [0, 2, 3, 4]], "ordered and disjoint"),
        ([[0, 1, 0, 3], [1, 2, 2, 4]], "ordered and disjoint"),
        ([[0, 0, 0, 3]], "not be empty"),
        ([[0, 1, 3, 3]], "not be empty"),
        ([[0, 3, 0, 4]], "lie within its tokens"),
        ([[0, 2, 0, 9]], "lie within its tokens"),
        ([[-1, 1, 0, 3]], "lie within its tokens"),
        ([[0, 1, 0, 2]], r"same bytes on both sides: text 0, \(0, 1, 0, 2\)"),
        ([[0, 2, 0, 4]], "no common cut inside"),
    ],
)
def test_validate_finds_what_is_wrong(tokenizer, chunks, message):
    sides = tokenizer("llama3"), tokenizer("smollm2-135m")
    encoded = [side.encode(["201 apples"]) for side in sides]
    good = align(*encoded, *sides)
    validate(good, *encoded, *sides)
    chunks_N4 = np.array(chunks)
    bad = dataclasses.replace(good, chunks_N4=chunks_N4, offsets_B=np.array([0, len(chunks_N4)]))
    with pytest.raises(ValueError, match=message):
        validate(bad, *encoded, *sides)


def test_validate_wants_control_tokens_paired_one_to_one_by_role(tokenizer):
    llama, tekken = tokenizer("llama3"), tokenizer("tekken")
    letter = llama.id_of_bytes[b"a"], tekken.id_of_bytes[b"a"]
    encoded = batch(llama.bos_id, letter[0], llama.eos_id), batch(tekken.bos_id, letter[1])
    validate(alignment_of([[0, 1, 0, 1], [1, 2, 1, 2]], 3, 2), *encoded, llama, tekken)
    for wrong in ([0, 2, 1, 2], [0, 2, 0, 2], [2, 3, 0, 1]):
        with pytest.raises(ValueError, match="pair one to one by role"):
            validate(alignment_of([wrong], 3, 2), *encoded, llama, tekken)
