"""ULD: the reference, permutations, padding."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.gradients import check_gradient, rows_and_gradients
from tests.reference import losses as reference
from tests.reference import partition_losses
from xtoken_jax.losses.uld import uld

jitted = jax.jit(uld, static_argnames=("temperature", "top_k"))


def random_logits(draw, N, V, scale=3.0):
    return np.float32(scale * draw.normal(size=(N, V)))


@pytest.mark.parametrize("shape", [(3, 41, 23), (2, 13, 31)])
@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (2.5, 7)])
def test_equals_the_float64_reference(shape, temperature, top_k):
    N, V, U = shape
    draw = np.random.default_rng(0)
    student, teacher = random_logits(draw, N, V), random_logits(draw, N, U)
    rests = [np.float32(-draw.exponential(size=N)) for _ in range(2)]
    result = jitted(
        student,
        teacher,
        jnp.ones(N, bool),
        student_log_rest_N=rests[0],
        teacher_log_rest_N=rests[1],
        temperature=temperature,
        top_k=top_k,
    )
    for n, value in enumerate(np.asarray(result)):
        m_S = reference.softmax(student[n], V, temperature) * np.exp(np.float64(rests[0][n]))
        m_T = reference.softmax(teacher[n], U, temperature) * np.exp(np.float64(rests[1][n]))
        expected = temperature**2 * partition_losses.sorted_l1(m_S, m_T, "pad", top_k)
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_permuting_a_vocabulary_leaves_it_alone():
    draw = np.random.default_rng(1)
    student, teacher = random_logits(draw, 4, 17), random_logits(draw, 4, 12)
    mask = jnp.ones(4, bool)
    permuted = student[:, draw.permutation(17)], teacher[:, draw.permutation(12)]
    np.testing.assert_allclose(
        jitted(*permuted, mask), jitted(student, teacher, mask), rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(jitted(permuted[0], student, mask), 0, atol=1e-6)


def test_impossible_tokens_count_as_the_zeros_of_a_shorter_vocabulary():
    draw = np.random.default_rng(2)
    student, teacher = random_logits(draw, 3, 9), random_logits(draw, 3, 6)
    mask = jnp.ones(3, bool)
    wider = np.pad(teacher, ((0, 0), (0, 4)), constant_values=-np.inf)
    values, (gradient,) = rows_and_gradients(lambda x: jitted(student, x, mask), wider)
    np.testing.assert_allclose(values, jitted(student, teacher, mask), rtol=1e-6)
    assert np.isfinite(gradient).all()
    assert gradient[:, :6].any()


def test_masked_equals_the_subset_and_padding_is_exactly_zero():
    draw = np.random.default_rng(3)
    student, teacher = random_logits(draw, 4, 9), random_logits(draw, 4, 6)
    mask = np.array([True, False, True, False])
    result, (gradient,) = rows_and_gradients(lambda x: jitted(x, teacher, mask), student)
    subset = jitted(student[mask], teacher[mask], np.ones(2, bool))
    np.testing.assert_allclose(result[mask], subset, rtol=1e-6)
    assert not result[~mask].any()
    assert not gradient[~mask].any()
    assert gradient[mask].any()


def test_gradient_equals_finite_differences_and_scales_with_what_comes_from_above():
    draw = np.random.default_rng(4)
    student, teacher = random_logits(draw, 2, 6, 1.0), random_logits(draw, 2, 4, 1.0)
    rest = np.array([-0.5, 0.0], np.float32)

    def loss(student, rest):
        mask = jnp.ones(2, bool)
        loss_N = jitted(student, teacher, mask, student_log_rest_N=rest, temperature=2.0)
        return loss_N.sum()

    check_gradient(loss, (student, rest), eps=1e-3)


def test_impossible_tokens_inside_a_chunk_stay_finite():
    function = functools.partial(jitted, jnp.zeros((1, 4)), jnp.zeros((1, 4)), jnp.ones(1, bool))
    value, gradient = rows_and_gradients(
        lambda rest: function(student_log_rest_N=rest, teacher_log_rest_N=jnp.zeros(1)),
        np.array([-np.inf], np.float32),
    )
    np.testing.assert_allclose(value, 1, rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_compiles_once():
    chex.clear_trace_counter()
    function = jax.jit(chex.assert_max_traces(uld, n=1))
    draw = np.random.default_rng(5)
    results = [
        function(random_logits(draw, 2, 5), random_logits(draw, 2, 4), jnp.ones(2, bool))
        for _ in range(2)
    ]
    assert not np.array_equal(*results)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "`temperature` must be positive"),
        ({"top_k": 0}, r"`top_k` must be in \[1, 5\], got 0"),
        ({"top_k": 6}, r"`top_k` must be in \[1, 5\], got 6"),
    ],
)
def test_what_cannot_work_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        uld(jnp.zeros((1, 4)), jnp.zeros((1, 5)), jnp.ones(1, bool), **options)
