"""P-KL on logits: the reference, its identities, its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.gradients import check_gradient, rows_and_gradients
from tests.losses.cases import dense, identity_projection, random_projection
from tests.reference import losses as reference
from xtoken_jax.losses import projected_kl as unjitted_projected_kl
from xtoken_jax.losses.projected_kl import merge_chain_rule
from xtoken_jax.ops import to_device
from xtoken_jax.projection import Projection

jitted_merge = jax.jit(merge_chain_rule)
projected_kl = jax.jit(unjitted_projected_kl, static_argnames="temperature")


def random_logits(draw, N, V, scale=3.0):
    return np.float32(scale * draw.normal(size=(N, V)))


@pytest.mark.parametrize("shape", [(1, 3, 5), (41, 271, 401), (7, 128, 64)])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_equals_the_float64_reference(shape, temperature):
    N, V, U = shape
    draw = np.random.default_rng(0)
    projection = random_projection(draw, V, U)
    student, teacher = random_logits(draw, N, V), random_logits(draw, N, U)
    rests = [np.float32(-draw.exponential(size=N)) for _ in range(2)]
    result = projected_kl(
        student,
        teacher,
        to_device(projection),
        jnp.ones(N, bool),
        student_log_rest_N=rests[0],
        teacher_log_rest_N=rests[1],
        temperature=temperature,
    )
    W = dense(projection)
    for n, value in enumerate(np.asarray(result)):
        m_S = reference.softmax(student[n], V, temperature) * np.exp(np.float64(rests[0][n]))
        m_T = reference.softmax(teacher[n], U, temperature) * np.exp(np.float64(rests[1][n]))
        expected = reference.projected_kl(m_S, m_T, W, temperature)
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_with_the_identity_it_is_the_ordinary_kl():
    draw = np.random.default_rng(1)
    student, teacher = random_logits(draw, 9, 17), random_logits(draw, 9, 17)
    W = to_device(identity_projection(17))
    result = projected_kl(student, teacher, W, jnp.ones(9, bool))
    p, q = (np.array([reference.softmax(row, 17) for row in x]) for x in (student, teacher))
    np.testing.assert_allclose(result, (q * np.log(q / p)).sum(-1), atol=1e-5)


def test_zero_exactly_where_the_measures_are_equal_and_else_positive():
    draw = np.random.default_rng(2)
    logits = random_logits(draw, 50, 30)
    W = to_device(identity_projection(30))
    mask, rest = np.ones(50, bool), np.full(50, -1.5, np.float32)
    equal = projected_kl(logits, logits, W, mask, student_log_rest_N=rest, teacher_log_rest_N=rest)
    np.testing.assert_allclose(equal, 0, atol=1e-6)
    other = projected_kl(
        logits, logits, W, mask, student_log_rest_N=rest - 0.5, teacher_log_rest_N=rest
    )
    assert (np.asarray(other) > 0.01).all()


def test_never_negative_beyond_rounding():
    draw = np.random.default_rng(3)
    projection = to_device(random_projection(draw, 60, 40))
    for scale in (0.1, 1.0, 10.0, 50.0):
        student, teacher = random_logits(draw, 200, 60, scale), random_logits(draw, 200, 40, scale)
        rest = [np.float32(-scale * draw.random(200)) for _ in range(2)]
        result = projected_kl(
            student,
            teacher,
            projection,
            jnp.ones(200, bool),
            student_log_rest_N=rest[0],
            teacher_log_rest_N=rest[1],
        )
        assert np.isfinite(result).all()
        assert (np.asarray(result) >= -1e-5).all()


@pytest.mark.parametrize(
    ("student_rest", "teacher_rest"),
    [((), ()), ((), (0.5, 0.25)), ((0.2, 0.1), ()), ((0.5,), (0.5, 0.1))],
    ids=["1-1", "1-3", "3-1", "2-3"],
)
def test_chain_rule_in_closed_form(student_rest, teacher_rest):
    # Both put everything on one token, so that only what follows it differs.
    c_S, c_T = np.prod(student_rest), np.prod(teacher_rest)
    logs = (np.log([c], dtype=np.float32) for c in (c_S, c_T))
    result = jitted_merge(jnp.zeros(1), jnp.ones(1), *logs)
    np.testing.assert_allclose(result, c_T * np.log(c_T / c_S) - c_T + c_S, atol=1e-6)


def test_masked_equals_the_subset_and_padding_is_exactly_zero():
    draw = np.random.default_rng(4)
    projection = to_device(random_projection(draw, 20, 15))
    student, teacher = random_logits(draw, 6, 20), random_logits(draw, 6, 15)
    mask = np.array([True, False, True, True, False, False])
    result, (gradient,) = rows_and_gradients(
        lambda x: projected_kl(x, teacher, projection, mask), student
    )
    subset = projected_kl(student[mask], teacher[mask], projection, np.ones(3, bool))
    np.testing.assert_allclose(result[mask], subset, rtol=1e-6)
    assert not result[~mask].any()
    assert not gradient[~mask].any()


def test_unreachable_teacher_mass_is_dropped_and_the_rest_renormalised():
    draw = np.random.default_rng(5)
    projection = to_device(random_projection(draw, 12, 8, unreachable=2))
    student, teacher = random_logits(draw, 4, 12), random_logits(draw, 4, 8)
    mask = jnp.ones(4, bool)
    result = projected_kl(student, teacher, projection, mask)
    teacher[:, 6:] += 3.0
    louder = projected_kl(student, teacher, projection, mask)
    np.testing.assert_allclose(louder, result, rtol=1e-4, atol=1e-6)


def test_infinite_logits_stay_finite():
    projection = to_device(identity_projection(4))
    student = np.float32([[0.0, 1.0, -np.inf, -np.inf]])
    teacher = np.float32([[-np.inf, 0.0, 1.0, -np.inf]])
    value, gradient = rows_and_gradients(
        lambda x: projected_kl(x, teacher, projection, np.ones(1, bool)), student
    )
    assert np.isfinite(value)
    assert value > 10  # the teacher's best token is impossible for the student
    assert np.isfinite(gradient).all()


@jax.jit
def value_and_gradients_of_rests(student_rest_N, teacher_rest_N, W):
    def loss(student_rest_N, teacher_rest_N):
        rests = {"student_log_rest_N": student_rest_N, "teacher_log_rest_N": teacher_rest_N}
        logits = jnp.zeros((1, 4)), jnp.zeros((1, 4))
        return projected_kl(*logits, W, jnp.ones(1, bool), **rests).sum()

    return jax.value_and_grad(loss, argnums=(0, 1))(student_rest_N, teacher_rest_N)


@pytest.mark.parametrize(
    ("student_rest", "teacher_rest", "least", "most"),
    [(0.0, -np.inf, 0.999, 1.001), (-np.inf, 0.0, 1e3, 1e6), (-np.inf, -np.inf, -1e-6, 1e-6)],
)
def test_impossible_tokens_inside_a_chunk_stay_finite(student_rest, teacher_rest, least, most):
    W = to_device(identity_projection(4))
    rests = np.float32([student_rest]), np.float32([teacher_rest])
    value, gradients = value_and_gradients_of_rests(*rests, W)
    assert least <= value <= most
    assert np.isfinite(gradients).all()


def test_a_teacher_that_allows_only_what_is_unreachable_teaches_nothing():
    draw = np.random.default_rng(6)
    projection = to_device(random_projection(draw, 12, 8, unreachable=2))
    teacher = np.float32([[-np.inf] * 6 + [0.0] * 2])
    value, (gradient,) = rows_and_gradients(
        lambda x: projected_kl(x, teacher, projection, np.ones(1, bool)), random_logits(draw, 1, 12)
    )
    np.testing.assert_allclose(value, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_gradient_equals_finite_differences_and_scales_with_what_comes_from_above():
    draw = np.random.default_rng(7)
    projection = to_device(random_projection(draw, 13, 9))
    student, teacher = random_logits(draw, 3, 13, 1.0), random_logits(draw, 3, 9, 1.0)
    rests = [np.float32(-draw.exponential(size=3)) for _ in range(2)]

    def loss(student, rest):
        loss_N = projected_kl(
            student,
            teacher,
            projection,
            jnp.ones(3, bool),
            student_log_rest_N=rest,
            teacher_log_rest_N=rests[1],
            temperature=2.0,
        )
        return loss_N.sum()

    check_gradient(loss, (student, rests[0]))


def test_a_packed_numeral_is_pulled_up_when_the_teacher_continues_with_its_first_digit():
    # Student tokens: 201, apple, pear; teacher tokens: 2, 0, 1, apple, pear.
    ids_VK = np.array([[0, 1, 2], [3, -1, -1], [4, -1, -1]], np.int32)
    weights_VK = np.array([[0.9009, 0.0901, 0.0090], [1, 0, 0], [1, 0, 0]], np.float32)
    W = to_device(Projection(ids_VK, weights_VK, 3, 5, "student", "teacher", {}))
    teacher = np.log([[0.9, 0.025, 0.025, 0.025, 0.025]], dtype=np.float32)
    _, (gradient,) = rows_and_gradients(
        lambda x: projected_kl(x, teacher, W, np.ones(1, bool)), np.zeros((1, 3), np.float32)
    )
    assert gradient[0, 0] < -0.3  # descending raises the numeral's logit
    assert (gradient[0, 1:] > 0.1).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature):
    W = to_device(identity_projection(3))
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        projected_kl(
            jnp.zeros((1, 3)), jnp.zeros((1, 3)), W, jnp.ones(1, bool), temperature=temperature
        )
