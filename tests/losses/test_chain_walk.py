"""C-KL of a batch, walked over blocks, against its whole-array form."""

from collections import Counter

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.test_chain_kl import random_rows
from tests.ops.test_piece_trie import node_of, trie_of
from tests.reference import chain_kl as reference
from xtoken_jax.losses import (
    Capacity,
    ModelOutput,
    Objective,
    Tables,
    distillation_sums,
    next_token_log_probs,
)
from xtoken_jax.losses.chain_kl import chain_kl
from xtoken_jax.losses.chain_walk import Tries, chain_batch, chain_kl_losses
from xtoken_jax.ops import Spans, to_device
from xtoken_jax.ops.piece_trie import piece_trie_to_device
from xtoken_jax.projection import Projection
from xtoken_jax.projection.piece_trie import STUDENT_SPACE, TEACHER_SPACE, ChainTerms

B, S, T, V, U, D, N = 2, 9, 11, 23, 17, 4, 6


def summed(*arguments, **options):
    loss_BN, is_scored_BN = chain_kl_losses(*arguments, **options)
    return loss_BN.sum(), is_scored_BN.sum(dtype=jnp.float32)


jitted_sums = jax.jit(summed, static_argnames=("temperature", "reverse", "block_tokens"))


class Case:
    """Random models and terms of both spaces, with chunks of several terms."""

    def __init__(self, seed=0):
        draw = np.random.default_rng(seed)
        rows = random_rows(draw, V, U), random_rows(draw, U, V)
        self.tries = [trie_of(rows[0], U), trie_of(rows[1], V)]
        self.on_device = Tries(
            piece_trie_to_device(self.tries[0], student_vocab_size=V + 2, teacher_vocab_size=U + 1),
            piece_trie_to_device(self.tries[1], student_vocab_size=U + 1, teacher_vocab_size=V + 2),
        )
        self.student = self.output(draw, S, V + 2)
        self.teacher = self.output(draw, T, U + 1)
        self.terms = [self.terms_of(draw, rows, count) for count in (5, 4)]
        self.mask_BN = jnp.asarray(np.arange(N)[None] != [[1]] * B)

    def output(self, draw, length, rows):
        arrays = (
            np.float32(draw.normal(size=(B, length, D))),
            np.float32(draw.normal(size=(rows, D))),
        )
        return ModelOutput(*map(jnp.asarray, (*arrays, np.zeros((B, length), np.int32))))

    def terms_of(self, draw, rows, num_chunks):
        """Every second chunk in student space; each has its root and up to two later terms."""
        columns = []
        for chunk in range(num_chunks):
            side = (TEACHER_SPACE, STUDENT_SPACE)[chunk % 2]
            index = (TEACHER_SPACE, STUDENT_SPACE).index(side)
            prefixes = [p for p in reference.prefixes(rows[index]) if p]
            nodes = [0] + [
                node_of(self.tries[index], prefixes[i])
                for i in draw.choice(len(prefixes), 2, replace=False)
            ]
            for node in nodes[: 1 + chunk % 3]:
                columns.append([draw.integers(S), draw.integers(T), node, side, chunk])
        return ChainTerms(*np.array(columns, np.int32).T)


def expected(case, hidden, unembedding, **options):
    """From the logits of the terms' positions: in each space C-KL itself, on all terms at once."""
    mask_BN = np.asarray(case.mask_BN)
    sizes = Counter((row, c) for row, terms in enumerate(case.terms) for c in terms.chunk_N)
    columns = [
        (row, *term, mask_BN[row, term[-1]] / sizes[row, term[-1]])
        for row, terms in enumerate(case.terms)
        for term in zip(*vars_of(terms), strict=True)
    ]
    student_BSV = hidden @ unembedding.T
    teacher_BTU = case.teacher.hidden_BSD @ case.teacher.unembedding_VD.T
    total = 0.0
    for side, trie in zip((TEACHER_SPACE, STUDENT_SPACE), case.on_device, strict=True):
        row, s, t, node, _, _, weight = map(
            np.array, zip(*(c for c in columns if c[4] == side), strict=True)
        )
        logits = student_BSV[row, s], teacher_BTU[row, t]
        if side == STUDENT_SPACE:
            logits, options = logits[::-1], {**options, "reverse": True}
        total += chain_kl(
            *logits, trie, jnp.asarray(node), jnp.ones(len(node), bool), **options
        ) @ np.float32(weight)
    return total, sum(bool(mask_BN[place]) for place in sizes)


def vars_of(terms):
    return (
        terms.student_position_N,
        terms.teacher_position_N,
        terms.node_N,
        terms.side_N,
        terms.chunk_N,
    )


def walked(case, hidden, unembedding, **options):
    student = case.student._replace(hidden_BSD=hidden, unembedding_VD=unembedding)
    options = {"block_tokens": 4, **options}
    return jitted_sums(
        student, case.teacher, chain_batch(case.terms), case.on_device, case.mask_BN, **options
    )


def test_value_and_gradient_equal_those_of_single_terms():
    case = Case()
    functions = [
        jax.jit(
            jax.value_and_grad(lambda *x, f=f: f(case, *x, temperature=1.5), (0, 1), has_aux=True)
        )
        for f in (expected, walked)
    ]
    (loss, count), gradient = functions[0](*case.student[:2])
    (result, number), walked_gradient = functions[1](*case.student[:2])
    assert number == count == 7
    np.testing.assert_allclose(result, loss, rtol=1e-5)
    chex.assert_trees_all_close(walked_gradient, gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block_tokens", [1, 6, 1000])
def test_blocks_equal_the_whole(block_tokens):
    case = Case(seed=1)
    whole = walked(case, *case.student[:2], block_tokens=4)
    blocks = walked(case, *case.student[:2], block_tokens=block_tokens)
    chex.assert_trees_all_close(blocks, whole, rtol=1e-6)


def test_a_batch_without_terms_is_exactly_zero():
    case = Case(seed=2)
    case.terms = [ChainTerms(*(np.zeros(0, np.int32) for _ in range(5)))] * B
    (loss, count), gradient = jax.jit(
        jax.value_and_grad(
            lambda hidden: walked(case, hidden, case.student.unembedding_VD), has_aux=True
        )
    )(case.student.hidden_BSD)
    assert loss == count == 0
    assert not np.asarray(gradient).any()


def test_logits_do_instead_of_hidden_states():
    case = Case(seed=3)
    whole = walked(case, *case.student[:2])
    logits = jnp.asarray(
        np.asarray(case.student.hidden_BSD) @ np.asarray(case.student.unembedding_VD).T
    )
    chex.assert_trees_all_close(walked(case, logits, None), whole, rtol=1e-5)


def test_as_an_objective_it_is_the_same_beside_cross_entropy():
    case = Case(seed=4)
    chain = chain_batch(case.terms, Capacity(12, 12, 12))
    spans = Spans(
        *(jnp.full(shape, -1) for shape in ((B, S), (B, T))),
        *(jnp.zeros((B, N), int) for _ in range(2)),
        case.mask_BN,
    )
    ids, weights = np.zeros((V, 1), np.int32), np.ones((V, 1), np.float32)
    projection = to_device(
        Projection(ids, weights, V, U, "student", "teacher", {}),
        student_vocab_size=V + 2,
        teacher_vocab_size=U + 1,
    )
    sums = distillation_sums(
        case.student,
        case.teacher,
        spans,
        Tables(projection, tries=case.on_device),
        jnp.ones((B, S), bool),
        Objective(loss="c_kl", temperature=1.5),
        chain=chain,
        block_tokens=4,
    )
    loss, count = walked(case, *case.student[:2], temperature=1.5)
    np.testing.assert_allclose(sums.distillation, loss, rtol=1e-6)
    assert sums.num_chunks == count
    log_probs = next_token_log_probs(case.student, num_tokens=V, block_tokens=4)
    np.testing.assert_allclose(sums.cross_entropy, -log_probs.sum(), rtol=1e-6)
    with pytest.raises(ValueError, match="c_kl needs `chain`"):
        distillation_sums(
            case.student,
            case.teacher,
            spans,
            Tables(projection, tries=case.on_device),
            objective=Objective(loss="c_kl"),
        )


def test_terms_beyond_the_capacity_are_an_error():
    with pytest.raises(ValueError, match="`capacity` must hold the 3 terms of a row, got 2"):
        chain_batch(Case().terms, Capacity(2, 9, 9))


def test_temperature_must_be_positive():
    case = Case()
    with pytest.raises(ValueError, match="`temperature` must be positive, got 0"):
        walked(case, *case.student[:2], temperature=0.0)
