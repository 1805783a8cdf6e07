"""Spans on the device against a loop over chunks."""

import jax.numpy as jnp
import numpy as np

from tests.losses.cases import CHUNKS, spans_of
from xtoken_jax.ops import at_predictors, rest_log_probs, teacher_predictors

ROWS = [CHUNKS, CHUNKS[1:3], ()]
SPANS = spans_of(ROWS, 12, 14)


def test_teacher_predictors_are_the_positions_before_the_chunks():
    expected = np.full((3, 12), -1)
    for row, chunks in enumerate(ROWS):
        for a, _, c, _ in chunks:
            if a >= 1 and c >= 1:
                expected[row, a - 1] = c - 1
    np.testing.assert_array_equal(teacher_predictors(SPANS), expected)


def test_a_masked_chunk_has_no_predictor():
    masked = SPANS.__class__(
        SPANS.student_chunk_BS,
        SPANS.teacher_chunk_BT,
        SPANS.student_start_BN,
        SPANS.teacher_start_BN,
        SPANS.mask_BN.at[:].set(False),
    )
    assert (np.asarray(teacher_predictors(masked)) == -1).all()


def test_values_at_the_predictors():
    values = jnp.arange(36.0).reshape(3, 12) + 1
    expected = np.zeros((3, 12))
    for row, chunks in enumerate(ROWS):
        for k, (a, _, c, _) in enumerate(chunks):
            if a >= 1 and c >= 1:
                expected[row, k] = values[row, a - 1]
    np.testing.assert_array_equal(at_predictors(values, SPANS), expected)


def test_the_rest_of_a_chunk_is_what_follows_its_first_token():
    log_probs = -jnp.asarray(np.random.default_rng(0).random((3, 14)), jnp.float32)
    result = rest_log_probs(log_probs, SPANS.teacher_chunk_BT, SPANS.teacher_start_BN)
    expected = np.zeros((3, 12))
    for row, chunks in enumerate(ROWS):
        for k, (_, _, c, d) in enumerate(chunks):
            expected[row, k] = sum(log_probs[row, i - 1] for i in range(c + 1, d))
    np.testing.assert_allclose(result, expected, rtol=1e-6)
