"""GOLD and H-KL: the reference, closed forms, the gradient that suppresses, what does not fit."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.gradients import check_gradient, rows_and_gradients
from tests.reference import losses as reference
from tests.reference import partition_losses
from xtoken_jax.losses.hybrid_kl import hybrid_kl, hybrid_terms
from xtoken_jax.ops.common_set import common_set_to_device
from xtoken_jax.projection import CommonSet

jitted = jax.jit(hybrid_kl, static_argnames=("temperature", "uncommon_top_k", "reverse"))


def random_logits(draw, N, V, scale=3.0):
    return np.float32(scale * draw.normal(size=(N, V)))


def common_of(pairs, V, U, **sizes):
    """A set on the device from `[(student, teacher), ...]`."""
    ids_N2 = np.array(sorted(pairs), np.int32).reshape(-1, 2)
    common = CommonSet(ids_N2[:, 0], ids_N2[:, 1], np.ones(len(ids_N2), bool))
    return common_set_to_device(common, num_student_tokens=V, num_teacher_tokens=U, **sizes)


def random_pairs(draw, C, V, U):
    ids = draw.choice(V, C, replace=False), draw.choice(U, C, replace=False)
    return list(zip(*(side.tolist() for side in ids), strict=True))


@pytest.mark.parametrize("shape", [(3, 41, 23, 11), (2, 13, 31, 13), (2, 9, 7, 0)])
@pytest.mark.parametrize(
    ("temperature", "top_k", "reverse"), [(1.0, None, False), (2.5, 4, False), (1.5, None, True)]
)
def test_equals_the_float64_reference(shape, temperature, top_k, reverse):
    N, V, U, C = shape
    draw = np.random.default_rng(0)
    student, teacher = random_logits(draw, N, V + 3), random_logits(draw, N, U + 2)
    pairs = random_pairs(draw, C, V, U)
    rests = [np.float32(-draw.exponential(size=N)) for _ in range(2)]
    result = jitted(
        student,
        teacher,
        common_of(pairs, V, U, student_vocab_size=V + 3, teacher_vocab_size=U + 2),
        jnp.ones(N, bool),
        student_log_rest_N=rests[0],
        teacher_log_rest_N=rests[1],
        temperature=temperature,
        uncommon_top_k=top_k,
        reverse=reverse,
    )
    for n, value in enumerate(np.asarray(result)):
        c_S, c_T = (np.exp(np.float64(rest[n])) for rest in rests)
        m_S = c_S * reference.softmax(student[n], V, temperature)[:V]
        m_T = c_T * reference.softmax(teacher[n], U, temperature)[:U]
        expected = partition_losses.hybrid_kl(
            m_S, m_T, c_S, c_T, pairs, top_k=top_k, reverse=reverse
        )
        np.testing.assert_allclose(value, temperature**2 * expected, rtol=1e-4, atol=1e-5)


def test_a_full_common_set_turns_it_into_the_kl():
    draw = np.random.default_rng(1)
    student, teacher = random_logits(draw, 6, 17), random_logits(draw, 6, 17)
    order = draw.permutation(17)  # student token s is teacher token order[s]
    common = common_of(list(enumerate(order.tolist())), 17, 17)
    result = jitted(student, teacher, common, jnp.ones(6, bool), uncommon_top_k=3)
    expected = jax.jit(
        lambda x, y: optax.losses.kl_divergence(jax.nn.log_softmax(x), jax.nn.softmax(y))
    )(student, teacher[:, order])
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_full_common_set_of_measures_is_zero_at_equality_and_else_positive(reverse):
    draw = np.random.default_rng(2)
    logits, rest = random_logits(draw, 20, 9), np.full(20, -1.5, np.float32)
    common = common_of([(id, id) for id in range(9)], 9, 9)
    rests = {"student_log_rest_N": rest, "teacher_log_rest_N": rest, "reverse": reverse}
    mask = jnp.ones(20, bool)
    np.testing.assert_allclose(jitted(logits, logits, common, mask, **rests), 0, atol=1e-6)
    for change in (-0.5, 0.5):
        other = jitted(
            logits, logits, common, mask, **{**rests, "student_log_rest_N": rest + change}
        )
        assert (np.asarray(other) > 0.01).all()


def test_permuting_either_vocabulary_with_its_pairs_changes_nothing():
    draw = np.random.default_rng(3)
    V, U, C = 14, 11, 6
    student, teacher = random_logits(draw, 4, V), random_logits(draw, 4, U)
    pairs, mask = random_pairs(draw, C, V, U), jnp.ones(4, bool)
    expected = jitted(student, teacher, common_of(pairs, V, U), mask)
    new_V, new_U = draw.permutation(V), draw.permutation(U)  # the new id of each token
    moved = common_of([(int(new_V[s]), int(new_U[t])) for s, t in pairs], V, U)
    result = jitted(student[:, np.argsort(new_V)], teacher[:, np.argsort(new_U)], moved, mask)
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    unmoved = jitted(student[:, np.argsort(new_V)], teacher, common_of(pairs, V, U), mask)
    assert not np.allclose(unmoved, expected, rtol=1e-2)


def test_an_empty_common_set_leaves_the_sorted_l1():
    draw = np.random.default_rng(4)
    student, teacher = random_logits(draw, 3, 8), random_logits(draw, 3, 5)
    result = jitted(student, teacher, common_of([], 8, 5), jnp.ones(3, bool))
    for n, value in enumerate(np.asarray(result)):
        p, q = reference.softmax(student[n], 8), reference.softmax(teacher[n], 5)
        expected = partition_losses.sorted_l1(p, q, "truncate")
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def softmax(logits):
    return np.array([reference.softmax(row, len(row)) for row in logits])


def test_the_common_term_pushes_every_uncommon_student_logit_down():
    draw = np.random.default_rng(5)
    V, U, C = 15, 9, 9  # all of the teacher's tokens are in a pair, so there is no other term
    student, teacher = random_logits(draw, 4, V), random_logits(draw, 4, U)
    pairs = random_pairs(draw, C, V, U)
    common, mask = common_of(pairs, V, U), jnp.ones(4, bool)
    _, (gradient,) = rows_and_gradients(lambda x: jitted(x, teacher, common, mask), student)
    p, q = softmax(student), softmax(teacher)
    uncommon = np.asarray(common.student_rest_R)
    np.testing.assert_allclose(gradient[:, uncommon], p[:, uncommon], rtol=1e-5)  # M_C(T) = 1
    s, t = np.asarray(common.student_ids_C), np.asarray(common.teacher_ids_C)
    np.testing.assert_allclose(gradient[:, s], p[:, s] - q[:, t], atol=1e-6)


def test_that_push_is_in_proportion_to_the_teachers_mass_on_the_pairs():
    draw = np.random.default_rng(6)
    V, U, C = 15, 12, 7
    student, teacher = random_logits(draw, 4, V), random_logits(draw, 4, U)
    common, mask = common_of(random_pairs(draw, C, V, U), V, U), jnp.ones(4, bool)
    # Same sizes and teacher ranks without the pairs' part: the L1 of the uncommon tokens alone.
    p, q = softmax(student), softmax(teacher)
    hidden = q.astype(np.float32)
    hidden[:, np.asarray(common.teacher_ids_C)] = 0.0

    def whole(x):
        return jitted(x, teacher, common, mask)

    def uncommon_part(x):
        zero = jnp.zeros(4)
        terms = {"log_c_S_N": zero, "log_c_T_N": zero}
        return hybrid_terms(jax.nn.log_softmax(x).T, jnp.log(hidden).T, common, **terms)

    gradients = [rows_and_gradients(function, student)[1][0] for function in (whole, uncommon_part)]
    gradient = gradients[0] - gradients[1]
    mass = q[:, np.asarray(common.teacher_ids_C)].sum(1)
    assert (mass > 0.05).all()
    expected = p * mass[:, None]
    uncommon = np.asarray(common.student_rest_R)
    np.testing.assert_allclose(gradient[:, uncommon], expected[:, uncommon], rtol=1e-3, atol=1e-6)


def test_means_of_log_probabilities_are_taken_as_they_are():
    draw = np.random.default_rng(7)
    V, U, C = 10, 8, 5
    pairs = random_pairs(draw, C, V, U)
    logs = [
        np.log([reference.softmax(4 * draw.normal(size=size), size) for _ in range(3)])
        for size in (V, U)
    ]
    means = [log.mean(axis=0).astype(np.float32)[:, None] for log in logs]  # of 3 positions
    nothing = jnp.zeros(1)
    result = jax.jit(functools.partial(hybrid_terms, uncommon_top_k=None))(
        *means, common_of(pairs, V, U), log_c_S_N=nothing, log_c_T_N=nothing
    )
    m_S, m_T = (np.exp(np.float64(mean[:, 0])) for mean in means)
    assert m_S.sum() < 0.9
    expected = partition_losses.hybrid_kl(m_S, m_T, 1, 1, pairs)
    np.testing.assert_allclose(np.asarray(result)[0], expected, rtol=1e-5)


def test_masked_equals_the_subset_and_padding_is_exactly_zero():
    draw = np.random.default_rng(8)
    student, teacher = random_logits(draw, 4, 9), random_logits(draw, 4, 8)
    common, mask = common_of([(1, 2), (4, 0)], 9, 8), np.array([True, False, True, False])
    result, (gradient,) = rows_and_gradients(lambda x: jitted(x, teacher, common, mask), student)
    subset = jitted(student[mask], teacher[mask], common, np.ones(2, bool))
    np.testing.assert_allclose(result[mask], subset, rtol=1e-6)
    assert not result[~mask].any()
    assert not gradient[~mask].any()
    assert gradient[mask].any()


@pytest.mark.parametrize("reverse", [False, True])
def test_gradient_equals_finite_differences_and_scales_with_what_comes_from_above(reverse):
    draw = np.random.default_rng(9)
    student, teacher = random_logits(draw, 2, 7, 1.0), random_logits(draw, 2, 6, 1.0)
    common, rests = common_of([(0, 1), (3, 2), (5, 5)], 7, 6), np.float32([[-0.5, 0], [0, -0.7]])

    def loss(student, teacher, rests):
        loss_N = jitted(
            student,
            teacher,
            common,
            jnp.ones(2, bool),
            student_log_rest_N=rests[0],
            teacher_log_rest_N=rests[1],
            temperature=2.0,
            reverse=reverse,
        )
        return loss_N.sum()

    check_gradient(loss, (student, teacher, rests), eps=1e-3)


@functools.partial(jax.jit, static_argnames="reverse")
def value_and_gradients(student, teacher, rests, common, *, reverse):
    """Of one chunk, by the student's logits and both rests."""

    def loss(student, rests):
        options = {"student_log_rest_N": rests[0], "teacher_log_rest_N": rests[1]}
        return hybrid_kl(
            student, teacher, common, jnp.ones(1, bool), reverse=reverse, **options
        ).sum()

    return jax.value_and_grad(loss, argnums=(0, 1))(student, rests)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("rests", [(0.0, 0.0), (0.0, -np.inf), (-np.inf, 0.0), (-np.inf, -np.inf)])
def test_infinite_logits_stay_finite(reverse, rests):
    student = np.float32([[0.0, 1.0, -np.inf, -np.inf, 2.0, -np.inf]])
    teacher = np.float32([[-np.inf, 0.0, 1.0, -np.inf, -np.inf, 1.0]])
    common = common_of([(id, id) for id in range(4)], 6, 6)
    value, gradients = value_and_gradients(
        student, teacher, [np.float32([rest]) for rest in rests], common, reverse=reverse
    )
    chex.assert_tree_all_finite((value, gradients))
    impossible = rests[0] == 0 if reverse else rests[1] == 0
    assert (value > 10) == impossible  # its mass is where the other has none


def test_compiles_once():
    chex.clear_trace_counter()
    function = jax.jit(chex.assert_max_traces(hybrid_kl, n=1))
    draw = np.random.default_rng(10)
    results = [
        function(
            random_logits(draw, 2, 6),
            random_logits(draw, 2, 5),
            common_of(random_pairs(draw, 3, 6, 5), 6, 5),
            jnp.ones(2, bool),
        )
        for _ in range(2)
    ]
    assert not np.array_equal(*results)


@pytest.mark.parametrize(
    ("widths", "options", "message"),
    [
        ((6, 5), {"temperature": 0.0}, "`temperature` must be positive"),
        ((6, 5), {"uncommon_top_k": 0}, r"`uncommon_top_k` must be in \[1, 6\], got 0"),
        ((6, 5), {"uncommon_top_k": 7}, r"`uncommon_top_k` must be in \[1, 6\], got 7"),
        (
            (7, 5),
            {},
            "`common` must be of vocabularies as large as the logits' 7 and 5, got 6 and 5",
        ),
        (
            (6, 6),
            {},
            "`common` must be of vocabularies as large as the logits' 6 and 6, got 6 and 5",
        ),
    ],
)
def test_what_cannot_work_is_named(widths, options, message):
    logits = [jnp.zeros((1, width)) for width in widths]
    with pytest.raises(ValueError, match=message):
        hybrid_kl(*logits, common_of([(0, 1)], 6, 5), jnp.ones(1, bool), **options)
