"""Spans on the device against a loop over chunks."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from tests.losses.cases import CHUNKS
from tests.losses.cases import spans_of as by_definition
from xtoken_jax.align import Alignment
from xtoken_jax.ops import (
    at_predictors,
    chunk_lengths,
    rest_log_probs,
    spans_of,
    teacher_predictors,
)

predictors = jax.jit(teacher_predictors)
ROWS = [CHUNKS, CHUNKS[1:3], ()]
SPANS = by_definition(ROWS, 12, 14)


def test_teacher_predictors_are_the_positions_before_the_chunks():
    expected = np.full((3, 12), -1)
    for row, chunks in enumerate(ROWS):
        for a, _, c, _ in chunks:
            if a >= 1 and c >= 1:
                expected[row, a - 1] = c - 1
    np.testing.assert_array_equal(predictors(SPANS), expected)


def test_a_masked_chunk_has_no_predictor():
    masked = SPANS.__class__(
        SPANS.student_chunk_BS,
        SPANS.teacher_chunk_BT,
        SPANS.student_start_BN,
        SPANS.teacher_start_BN,
        jnp.zeros((3, 12), bool),
    )
    assert (np.asarray(predictors(masked)) == -1).all()


def test_values_at_the_predictors():
    values = np.arange(36, dtype=np.float32).reshape(3, 12) + 1
    expected = np.zeros((3, 12))
    for row, chunks in enumerate(ROWS):
        for k, (a, _, c, _) in enumerate(chunks):
            if a >= 1 and c >= 1:
                expected[row, k] = values[row, a - 1]
    np.testing.assert_array_equal(jax.jit(at_predictors)(values, SPANS), expected)


def test_the_rest_of_a_chunk_is_what_follows_its_first_token():
    log_probs = -np.random.default_rng(0).random((3, 14), np.float32)
    result = jax.jit(rest_log_probs)(log_probs, SPANS.teacher_chunk_BT, SPANS.teacher_start_BN)
    expected = np.zeros((3, 12))
    for row, chunks in enumerate(ROWS):
        for k, (_, _, c, d) in enumerate(chunks):
            expected[row, k] = sum(log_probs[row, i - 1] for i in range(c + 1, d))
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_spans_of_an_alignment_are_those_of_the_definition():
    rows = [CHUNKS, CHUNKS[1:4], ()]
    chunks_N4 = np.array([chunk for row in rows for chunk in row], np.int32)
    offsets_B = np.cumsum([0, *map(len, rows)])
    alignment = Alignment(
        chunks_N4, offsets_B, np.full(3, 12), np.full(3, 14), by_dp_B=np.zeros(3, bool)
    )
    result = spans_of(alignment, student_length=12, teacher_length=14)
    # Without the chunk that nothing predicts, the others move up one place.
    chex.assert_trees_all_equal(result, by_definition([CHUNKS[1:], CHUNKS[1:4], ()], 12, 14))


def test_chunks_that_do_not_fit_are_left_out_of_spans():
    chunks_N4 = np.array(CHUNKS, np.int32)
    alignment = Alignment(
        chunks_N4, np.array([0, len(CHUNKS)]), np.array([12]), np.array([14]), np.array([False])
    )
    result = spans_of(alignment, student_length=8, teacher_length=14)
    assert result.mask_BN.sum() == 3  # the fifth chunk is student tokens 7 to 8
    assert result.student_chunk_BS[0].tolist() == [-1, 0, 1, 2, 2, 2, -1, -1]
    result = spans_of(alignment, student_length=12, teacher_length=6)
    assert result.mask_BN.sum() == 3
    assert result.teacher_chunk_BT[0].tolist() == [-1, 0, 1, 1, 1, 2]


def test_lengths_of_chunks():
    lengths = jax.jit(chunk_lengths, static_argnums=1)(SPANS.student_chunk_BS, 12)
    for row, chunks in enumerate(ROWS):
        expected = [b - a for a, b, _, _ in chunks] + [0] * (12 - len(chunks))
        assert np.asarray(lengths)[row].tolist() == expected
