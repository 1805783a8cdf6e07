"""Chain KL: against enumeration, its identities, its edges."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.gradients import check_gradient, rows_and_gradients
from tests.ops.test_piece_trie import STUDENT, TEACHER, TOY_ROWS, node_of, trie_of
from tests.reference import chain_kl as reference
from xtoken_jax.losses import projected_kl as unjitted_projected_kl
from xtoken_jax.losses.chain_kl import chain_kl as unjitted_chain_kl
from xtoken_jax.losses.chain_kl import chain_kl_terms, later_terms, mean_over_terms
from xtoken_jax.ops import to_device
from xtoken_jax.ops.piece_trie import piece_trie_to_device
from xtoken_jax.projection import Projection

terms = jax.jit(chain_kl_terms)
chain_kl = jax.jit(unjitted_chain_kl, static_argnames=("temperature", "reverse"))
projected_kl = jax.jit(unjitted_projected_kl, static_argnames=("temperature", "reverse"))

TRIE = trie_of(TOY_ROWS, len(TEACHER))
DEVICE = piece_trie_to_device(TRIE)
PREFIXES = reference.prefixes(TOY_ROWS)
NODES = jnp.array([node_of(TRIE, prefix) for prefix in PREFIXES])
ALL = jnp.ones(len(PREFIXES), bool)


def random_rows(draw, V, U, longest=4):
    """Spellings over a few pieces, so that they share prefixes; one token has none."""
    lengths = [0, *draw.integers(1, longest + 1, V - 1).tolist()]
    rows = [tuple(draw.integers(0, max(2, U - 3), length).tolist()) for length in lengths]
    rows[1:] = [row if draw.random() < 0.5 else (0, *row[1:]) for row in rows[1:]]
    return rows


def softmax(logits, temperature=1.0):
    scaled = np.asarray(logits, np.float64) / temperature
    exp = np.exp(scaled - scaled.max())
    return exp / exp.sum()


def log(probs):
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(probs, np.float32))


def log_softmax(logits):
    """A column for each row of logits."""
    return log([softmax(row) for row in logits]).T


def toy_logits(seed, scale=2.0):
    draw = np.random.default_rng(seed)
    widths = len(STUDENT), len(TEACHER)
    return tuple(np.float32(scale * draw.normal(size=(len(PREFIXES), width))) for width in widths)


@pytest.mark.parametrize(("V", "U"), [(11, 5), (67, 7), (23, 41)])
@pytest.mark.parametrize(("temperature", "reverse"), [(1.0, False), (2.5, True)])
def test_equals_enumeration(V, U, temperature, reverse):
    draw = np.random.default_rng(V)
    rows = random_rows(draw, V, U)
    prefixes = reference.prefixes(rows)
    trie = trie_of(rows, U)
    N = len(prefixes)
    student = np.float32(2 * draw.normal(size=(N, V + 2)))
    teacher = np.float32(2 * draw.normal(size=(N, U + 3)))
    result = chain_kl(
        student,
        teacher,
        piece_trie_to_device(trie, student_vocab_size=V + 2, teacher_vocab_size=U + 3),
        np.array([node_of(trie, prefix) for prefix in prefixes]),
        np.ones(N, bool),
        temperature=temperature,
        reverse=reverse,
    )
    for n, (value, prefix) in enumerate(zip(np.asarray(result), prefixes, strict=True)):
        p = softmax(student[n, :V], temperature)
        q = softmax(teacher[n, :U], temperature)
        expected = temperature**2 * reference.chain_kl(p, q, rows, prefix, reverse=reverse)
        np.testing.assert_allclose(value, expected, rtol=2e-4, atol=2e-5, err_msg=str(prefix))


@pytest.mark.parametrize("reverse", [False, True])
def test_the_first_term_is_p_kl_at_gamma_0(reverse):
    ids_V1 = np.array([[row[0] if row else -1] for row in TOY_ROWS], np.int32)
    W = Projection(
        ids_V1, (ids_V1 >= 0).astype(np.float32), len(STUDENT), len(TEACHER), "s", "t", {}
    )
    student, teacher = toy_logits(1)

    def first(student):
        return chain_kl(student, teacher, DEVICE, jnp.zeros_like(NODES), ALL, reverse=reverse)

    def projected(student):
        return projected_kl(student, teacher, to_device(W), ALL, reverse=reverse)

    values, gradients = zip(
        *(rows_and_gradients(f, student) for f in (first, projected)), strict=True
    )
    np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-6)


def induced_teacher(p):
    """At each prefix the teacher that `p` induces; what ends there goes to a token outside."""
    rows = np.zeros((len(PREFIXES), len(TEACHER)))
    for n, prefix in enumerate(PREFIXES):
        follows = reference.next_piece(p, TOY_ROWS, prefix)
        ends = follows.pop(reference.END, 0.0)
        for piece, mass in follows.items():
            rows[n, piece] = mass
        if prefix:
            rows[n, next(t for t in range(len(TEACHER)) if t not in follows)] = ends
    return log(rows)


@pytest.mark.parametrize("reverse", [False, True])
def test_zero_with_zero_gradient_where_the_student_induces_the_teacher(reverse):
    p = np.random.default_rng(2).dirichlet(np.ones(len(STUDENT) - 1))
    p = np.array([0.0, *p])  # the token without pieces
    student = np.tile(log(p), (len(PREFIXES), 1))
    teacher = induced_teacher(p)

    def loss(student):
        return chain_kl(student, teacher, DEVICE, NODES, ALL, reverse=reverse)

    loss_N, (gradient,) = rows_and_gradients(loss, student)
    np.testing.assert_allclose(loss_N, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    student[:, 5] += 1.0
    assert np.asarray(loss(student)).sum() > 0.01


def test_terms_weighted_by_the_teacher_add_up_to_the_kl_of_whole_spellings():
    # The chain rule of KL: sum over prefixes of P_T(prefix) KL there = KL(P_T || P_S), both over
    # what a token spells. Teacher and student are two distributions over the student's tokens.
    draw = np.random.default_rng(3)
    p_S, p_T = (np.array([0.0, *draw.dirichlet(np.ones(len(STUDENT) - 1))]) for _ in range(2))
    student = np.tile(log(p_S), (len(PREFIXES), 1))
    loss_N = chain_kl(student, induced_teacher(p_T), DEVICE, NODES, ALL)
    weights = [
        sum(p_T[s] for s, row in enumerate(TOY_ROWS) if row and row[: len(prefix)] == prefix)
        for prefix in PREFIXES
    ]
    whole = sum(p_T[s] * np.log(p_T[s] / p_S[s]) for s in range(1, len(STUDENT)))
    assert len(set(TOY_ROWS)) == len(TOY_ROWS)  # no two tokens spell the same
    np.testing.assert_allclose(np.dot(weights, loss_N), whole, rtol=1e-5)


@pytest.mark.parametrize("scale", [0.1, 10.0, 60.0])
@pytest.mark.parametrize("reverse", [False, True])
def test_never_negative_beyond_rounding(scale, reverse):
    student, teacher = toy_logits(4, scale)
    result = chain_kl(student, teacher, DEVICE, NODES, ALL, reverse=reverse)
    assert np.isfinite(result).all()
    assert (np.asarray(result) >= -1e-5).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_gradient_equals_finite_differences_and_scales_with_what_comes_from_above(reverse):
    # Both arguments: in student space the student is the one that is not carried.
    student, teacher = toy_logits(5, 1.0)

    def loss(student, teacher):
        loss_N = chain_kl(student, teacher, DEVICE, NODES, ALL, temperature=2.0, reverse=reverse)
        return loss_N.sum()

    check_gradient(loss, (student, teacher))


def test_masked_equals_the_subset_and_padding_is_exactly_zero():
    student, teacher = toy_logits(6)
    mask = np.arange(len(PREFIXES)) % 3 != 1
    result, gradients = rows_and_gradients(
        lambda *logits: chain_kl(*logits, DEVICE, NODES, jnp.asarray(mask)), student, teacher
    )
    whole = np.asarray(chain_kl(student, teacher, DEVICE, NODES, ALL))
    np.testing.assert_allclose(result[mask], whole[mask], rtol=1e-6)
    assert (whole[~mask] > 0).all()
    assert not result[~mask].any()
    for gradient in gradients:
        assert not gradient[~mask].any()
        assert gradient[mask].any()


def test_blocks_equal_the_whole_whichever_terms_they_hold():
    student, teacher = toy_logits(7)
    log_p, log_q = log_softmax(student), log_softmax(teacher)
    whole = np.asarray(terms(log_p, log_q, DEVICE, NODES))
    nodes = np.asarray(NODES)
    assert (nodes == 0).sum() == 1
    for block in (slice(0, 1), slice(1, 4), slice(4, None)):
        part = terms(log_p[:, block], log_q[:, block], DEVICE, nodes[block])
        np.testing.assert_allclose(part, whole[block], rtol=1e-6)


def test_later_terms_take_logits_of_the_side_that_is_carried():
    student, teacher = toy_logits(12)
    log_p, log_q = log_softmax(student), log_softmax(teacher)
    expected = np.asarray(terms(log_p, log_q, DEVICE, NODES))[1:]
    result = jax.jit(later_terms)(student.T[:, 1:], log_q[:, 1:], DEVICE, np.asarray(NODES)[1:])
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)


@functools.partial(jax.jit, static_argnames="reverse")
def value_and_gradients(student, teacher, nodes, mask, *, reverse=False):
    """Of the sum over the rows, by both logits."""
    loss = functools.partial(unjitted_chain_kl, reverse=reverse)
    return jax.value_and_grad(
        lambda *logits: loss(*logits, DEVICE, nodes, mask).sum(), argnums=(0, 1)
    )(student, teacher)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("side", ["student", "teacher", "both"])
def test_infinite_logits_stay_finite(side, reverse):
    student, teacher = toy_logits(8)
    if side != "teacher":
        student[:, ::2] = student[0] = -np.inf
        student[0, 0] = 0.0  # only the token without pieces
    if side != "student":
        teacher[:, ::2] = teacher[:2] = -np.inf
        teacher[:2, TEACHER.index("11")] = 0.0  # unreachable

    value, gradients = value_and_gradients(student, teacher, NODES, ALL, reverse=reverse)
    assert 0 < value < 70 * len(PREFIXES)  # what is impossible costs -log(1e-30) a unit of mass
    for gradient in gradients:
        assert np.isfinite(gradient).all()


def test_a_teacher_that_allows_only_what_is_unreachable_teaches_nothing_at_first():
    student, teacher = toy_logits(9)
    student[:, 0] = -np.inf  # all mass is carried
    teacher[:] = -np.inf
    teacher[:, TEACHER.index("11")] = 0.0
    value, (gradient, _) = value_and_gradients(student, teacher, jnp.zeros_like(NODES), ALL)
    np.testing.assert_allclose(value, 0, atol=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_teacher_mass_that_nothing_can_match_costs_itself_without_gradient():
    # Every token that begins with 0 goes on with 1 or 2; the teacher wants 3.
    trie = trie_of([(0, 1), (0, 2), (3,)], 4)
    node = jnp.array([node_of(trie, (0,))])
    teacher, student = log([[0.0, 0.25, 0.25, 0.5]]), np.zeros((1, 3), np.float32)
    value, (gradient,) = rows_and_gradients(
        lambda x: chain_kl(x, teacher, piece_trie_to_device(trie), node, np.ones(1, bool)), student
    )
    np.testing.assert_allclose(value, 0.5 * np.log(0.5) + 0.5, rtol=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_a_small_rest_is_not_rounded_away():
    # The carried side ends here with 0.5, where the other has 1e-12 outside.
    trie = trie_of([(0,), (0, 1)], 3)
    other, student = log([[0.0, 1.0, 1e-12]]), np.zeros((1, 2), np.float32)
    node, mask = jnp.array([node_of(trie, (0,))]), np.ones(1, bool)
    value, (gradient,) = rows_and_gradients(
        lambda x: chain_kl(student, x, piece_trie_to_device(trie), node, mask, reverse=True), other
    )
    np.testing.assert_allclose(value, 0.5 * np.log(0.5) + 0.5 * np.log(0.5 / 1e-12), rtol=1e-5)
    np.testing.assert_allclose(gradient[0], [0.0, 0.5, -0.5], atol=1e-5)


def test_a_packed_numeral_is_pulled_up_by_its_later_digits():
    # After 2 the teacher wants 0; after 2, 0 it wants 1.
    node = np.array([node_of(TRIE, (TEACHER.index("2"),))])
    teacher = np.full((1, len(TEACHER)), -3.0, np.float32)
    teacher[0, TEACHER.index("01")] = 3.0
    student = np.zeros((1, len(STUDENT)), np.float32)
    _, (gradient, _) = value_and_gradients(student, teacher, node, np.ones(1, bool))
    of = dict(zip(STUDENT, np.asarray(gradient[0]), strict=True))
    assert of["201"] < -0.1
    assert of["2"] > 0.05
    assert of["20"] > 0.05
    assert abs(of["1"]) < 1e-6  # begins otherwise: has no part in it


def test_one_compilation_whatever_the_nodes():
    traced_once = jax.jit(chex.assert_max_traces(chain_kl_terms, n=1))
    student, teacher = toy_logits(10)
    log_p, log_q = log_softmax(student), log_softmax(teacher)
    for nodes in (np.asarray(NODES), np.zeros_like(NODES), np.asarray(NODES)[::-1]):
        assert np.isfinite(traced_once(log_p, log_q, DEVICE, nodes)).all()


def test_the_mean_over_the_terms_of_each_chunk():
    kl = jnp.array([1.0, 2.0, 6.0, 5.0, jnp.nan])
    chunk = jnp.array([0, 2, 2, 3, -1])
    means, (gradient,) = rows_and_gradients(lambda x: mean_over_terms(x, chunk, 5), kl)
    np.testing.assert_allclose(means, [1.0, 0.0, 4.0, 5.0, 0.0])
    np.testing.assert_allclose(gradient, [1.0, 0.5, 0.5, 1.0, 0.0])


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature):
    student, teacher = toy_logits(11)
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        chain_kl(student, teacher, DEVICE, NODES, ALL, temperature=temperature)
