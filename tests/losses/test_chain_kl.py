"""Chain KL: against enumeration, its identities, its edges."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tests.ops.test_piece_trie import STUDENT, TEACHER, TOY_ROWS, node_of, trie_of
from tests.reference import chain_kl as reference
from xtoken_jax.losses import projected_kl as unjitted_projected_kl
from xtoken_jax.losses.chain_kl import chain_kl as unjitted_chain_kl
from xtoken_jax.losses.chain_kl import chain_kl_terms, later_terms, mean_over_terms
from xtoken_jax.ops import to_device
from xtoken_jax.ops.piece_trie import piece_trie_to_device
from xtoken_jax.projection import Projection

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


def toy_logits(seed, scale=2.0):
    draw = np.random.default_rng(seed)
    return (
        jnp.asarray(scale * draw.normal(size=(len(PREFIXES), len(STUDENT))), jnp.float32),
        jnp.asarray(scale * draw.normal(size=(len(PREFIXES), len(TEACHER))), jnp.float32),
    )


@pytest.mark.parametrize(("V", "U"), [(11, 5), (67, 7), (23, 41)])
@pytest.mark.parametrize(("temperature", "reverse"), [(1.0, False), (2.5, True)])
def test_equals_enumeration(V, U, temperature, reverse):
    draw = np.random.default_rng(V)
    rows = random_rows(draw, V, U)
    prefixes = reference.prefixes(rows)
    trie = trie_of(rows, U)
    N = len(prefixes)
    student = jnp.asarray(2 * draw.normal(size=(N, V + 2)), jnp.float32)
    teacher = jnp.asarray(2 * draw.normal(size=(N, U + 3)), jnp.float32)
    result = chain_kl(
        student,
        teacher,
        piece_trie_to_device(trie, student_vocab_size=V + 2, teacher_vocab_size=U + 3),
        jnp.array([node_of(trie, prefix) for prefix in prefixes]),
        jnp.ones(N, bool),
        temperature=temperature,
        reverse=reverse,
    )
    for n, prefix in enumerate(prefixes):
        p = softmax(student[n, :V], temperature)
        q = softmax(teacher[n, :U], temperature)
        expected = temperature**2 * reference.chain_kl(p, q, rows, prefix, reverse=reverse)
        np.testing.assert_allclose(result[n], expected, rtol=2e-4, atol=2e-5, err_msg=str(prefix))


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

    np.testing.assert_allclose(first(student), projected(student), rtol=1e-5, atol=1e-6)
    gradients = [jax.grad(lambda x, f=f: f(x).sum())(student) for f in (first, projected)]
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
    return jnp.log(jnp.asarray(rows, jnp.float32))


@pytest.mark.parametrize("reverse", [False, True])
def test_zero_with_zero_gradient_where_the_student_induces_the_teacher(reverse):
    p = np.random.default_rng(2).dirichlet(np.ones(len(STUDENT) - 1))
    p = np.array([0.0, *p])  # the token without pieces
    student = jnp.tile(jnp.log(jnp.asarray(p, jnp.float32)), (len(PREFIXES), 1))
    teacher = induced_teacher(p)

    def loss(student):
        loss_N = chain_kl(student, teacher, DEVICE, NODES, ALL, reverse=reverse)
        return loss_N.sum(), loss_N

    (_, loss_N), gradient = jax.value_and_grad(loss, has_aux=True)(student)
    np.testing.assert_allclose(loss_N, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    moved, _ = loss(student.at[:, 5].add(1.0))
    assert moved > 0.01


def test_terms_weighted_by_the_teacher_add_up_to_the_kl_of_whole_spellings():
    # The chain rule of KL: sum over prefixes of P_T(prefix) KL there = KL(P_T || P_S), both over
    # what a token spells. Teacher and student are two distributions over the student's tokens.
    draw = np.random.default_rng(3)
    p_S, p_T = (np.array([0.0, *draw.dirichlet(np.ones(len(STUDENT) - 1))]) for _ in range(2))
    student = jnp.tile(jnp.log(jnp.asarray(p_S, jnp.float32)), (len(PREFIXES), 1))
    terms = chain_kl(student, induced_teacher(p_T), DEVICE, NODES, ALL)
    weights = [
        sum(p_T[s] for s, row in enumerate(TOY_ROWS) if row and row[: len(prefix)] == prefix)
        for prefix in PREFIXES
    ]
    whole = sum(p_T[s] * np.log(p_T[s] / p_S[s]) for s in range(1, len(STUDENT)))
    assert len(set(TOY_ROWS)) == len(TOY_ROWS)  # no two tokens spell the same
    np.testing.assert_allclose(np.dot(weights, terms), whole, rtol=1e-5)


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

    def loss(student, teacher, scale=1.0):
        loss_N = chain_kl(student, teacher, DEVICE, NODES, ALL, temperature=2.0, reverse=reverse)
        return scale * loss_N.sum()

    check_grads(loss, (student, teacher), order=1, modes=["rev"], rtol=2e-2)
    once, twice = (jax.grad(loss)(student, teacher, scale) for scale in (1.0, 2.0))
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


def test_masked_equals_the_subset_and_padding_is_exactly_zero():
    student, teacher = toy_logits(6)
    mask = jnp.arange(len(PREFIXES)) % 3 != 1
    result = chain_kl(student, teacher, DEVICE, NODES, mask)
    whole = chain_kl(student, teacher, DEVICE, NODES, ALL)
    np.testing.assert_allclose(result[mask], whole[mask], rtol=1e-6)
    assert (np.asarray(whole[~mask]) > 0).all()
    assert not np.asarray(result[~mask]).any()

    gradients = jax.grad(
        lambda *logits: chain_kl(*logits, DEVICE, NODES, mask).sum(), argnums=(0, 1)
    )(student, teacher)
    for gradient in gradients:
        assert not np.asarray(gradient[~mask]).any()
        assert np.asarray(gradient[mask]).any()


def test_blocks_equal_the_whole_whichever_terms_they_hold():
    student, teacher = toy_logits(7)
    log_p, log_q = jax.nn.log_softmax(student).T, jax.nn.log_softmax(teacher).T
    terms = jax.jit(chain_kl_terms)
    whole = terms(log_p, log_q, DEVICE, NODES)
    assert (np.asarray(NODES) == 0).sum() == 1
    for block in (slice(0, 1), slice(1, 4), slice(4, None)):
        part = terms(log_p[:, block], log_q[:, block], DEVICE, NODES[block])
        np.testing.assert_allclose(part, whole[block], rtol=1e-6)


def test_later_terms_take_logits_of_the_side_that_is_carried():
    student, teacher = toy_logits(12)
    log_p, log_q = jax.nn.log_softmax(student).T, jax.nn.log_softmax(teacher).T
    expected = chain_kl_terms(log_p, log_q, DEVICE, NODES)[1:]
    result = later_terms(student.T[:, 1:], log_q[:, 1:], DEVICE, NODES[1:])
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("side", ["student", "teacher", "both"])
def test_infinite_logits_stay_finite(side, reverse):
    student, teacher = toy_logits(8)
    if side != "teacher":
        student = student.at[:, ::2].set(-jnp.inf)
        student = student.at[0].set(-jnp.inf).at[0, 0].set(0.0)  # only the token without pieces
    if side != "student":
        teacher = teacher.at[:, ::2].set(-jnp.inf)
        unreachable = TEACHER.index("11")
        teacher = teacher.at[:2].set(-jnp.inf).at[:2, unreachable].set(0.0)

    def loss(student, teacher):
        return chain_kl(student, teacher, DEVICE, NODES, ALL, reverse=reverse).sum()

    value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(student, teacher)
    assert 0 < value < 70 * len(PREFIXES)  # what is impossible costs -log(1e-30) a unit of mass
    for gradient in gradients:
        assert np.isfinite(gradient).all()


def test_a_teacher_that_allows_only_what_is_unreachable_teaches_nothing_at_first():
    student = toy_logits(9)[0].at[:, 0].set(-jnp.inf)  # all mass is carried
    teacher = jnp.full((len(PREFIXES), len(TEACHER)), -jnp.inf).at[:, TEACHER.index("11")].set(0.0)
    value, gradient = jax.value_and_grad(
        lambda x: chain_kl(x, teacher, DEVICE, jnp.zeros_like(NODES), ALL).sum()
    )(student)
    np.testing.assert_allclose(value, 0, atol=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_teacher_mass_that_nothing_can_match_costs_itself_without_gradient():
    # Every token that begins with 0 goes on with 1 or 2; the teacher wants 3.
    trie = trie_of([(0, 1), (0, 2), (3,)], 4)
    node = jnp.array([node_of(trie, (0,))])
    teacher = jnp.log(jnp.array([[0.0, 0.25, 0.25, 0.5]]))
    value, gradient = jax.value_and_grad(
        lambda x: chain_kl(x, teacher, piece_trie_to_device(trie), node, jnp.ones(1, bool)).sum()
    )(jnp.zeros((1, 3)))
    np.testing.assert_allclose(value, 0.5 * np.log(0.5) + 0.5, rtol=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_a_small_rest_is_not_rounded_away():
    # The carried side ends here with 0.5, where the other has 1e-12 outside.
    trie = trie_of([(0,), (0, 1)], 3)
    other = jnp.log(jnp.array([[0.0, 1.0, 1e-12]]))
    node, mask = jnp.array([node_of(trie, (0,))]), jnp.ones(1, bool)
    value, gradient = jax.value_and_grad(
        lambda x: chain_kl(
            jnp.zeros((1, 2)), x, piece_trie_to_device(trie), node, mask, reverse=True
        ).sum()
    )(other)
    np.testing.assert_allclose(value, 0.5 * np.log(0.5) + 0.5 * np.log(0.5 / 1e-12), rtol=1e-5)
    np.testing.assert_allclose(gradient[0], [0.0, 0.5, -0.5], atol=1e-5)


def test_a_packed_numeral_is_pulled_up_by_its_later_digits():
    # After 2 the teacher wants 0; after 2, 0 it wants 1.
    node = jnp.array([node_of(TRIE, (TEACHER.index("2"),))])
    teacher = jnp.full((1, len(TEACHER)), -3.0).at[0, TEACHER.index("01")].set(3.0)
    gradient = jax.grad(lambda x: chain_kl(x, teacher, DEVICE, node, jnp.ones(1, bool)).sum())(
        jnp.zeros((1, len(STUDENT)))
    )
    of = dict(zip(STUDENT, np.asarray(gradient[0]), strict=True))
    assert of["201"] < -0.1
    assert of["2"] > 0.05
    assert of["20"] > 0.05
    assert abs(of["1"]) < 1e-6  # begins otherwise: has no part in it


def test_one_compilation_whatever_the_nodes():
    terms = jax.jit(chex.assert_max_traces(chain_kl_terms, n=1))
    student, teacher = toy_logits(10)
    log_p, log_q = jax.nn.log_softmax(student).T, jax.nn.log_softmax(teacher).T
    for nodes in (NODES, jnp.zeros_like(NODES), NODES[::-1]):
        assert np.isfinite(terms(log_p, log_q, DEVICE, nodes)).all()


def test_the_mean_over_the_terms_of_each_chunk():
    kl = jnp.array([1.0, 2.0, 6.0, 5.0, jnp.nan])
    chunk = jnp.array([0, 2, 2, 3, -1])
    np.testing.assert_allclose(mean_over_terms(kl, chunk, 5), [1.0, 0.0, 4.0, 5.0, 0.0])
    gradient = jax.grad(lambda x: mean_over_terms(x, chunk, 5).sum())(kl)
    np.testing.assert_allclose(gradient, [1.0, 0.5, 0.5, 1.0, 0.0])


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature):
    student, teacher = toy_logits(11)
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        chain_kl(student, teacher, DEVICE, NODES, ALL, temperature=temperature)
