"""Distributions over the next piece: against enumeration, and where numbers are tiny."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference import chain_kl as reference
from xtoken_jax.ops.piece_trie import next_piece_measures, piece_trie_to_device
from xtoken_jax.projection import Pieces
from xtoken_jax.projection.piece_trie import build_piece_trie

next_pieces = jax.jit(next_piece_measures)

STUDENT = ("", "0", "1", "2", "20", "201", "2011", "202", "12", "122", "000")
TEACHER = ("2", "0", "1", "01", "11", "00")
TOY_ROWS = reference.toy_pieces(STUDENT, TEACHER)


def trie_of(rows, num_teacher_tokens):
    ids = np.array([id for row in rows for id in row], np.int32)
    offsets = np.cumsum([0, *(len(row) for row in rows)])
    pieces = Pieces(ids, offsets, np.zeros(len(rows), bool))
    return build_piece_trie(pieces, num_teacher_tokens=num_teacher_tokens)


def node_of(trie, prefix):
    node = np.zeros(1, np.int32)
    for piece in prefix:
        node = trie.child(node, np.array([piece]))
    return int(node[0])


def as_dicts(measures):
    """Each column as a dict from piece to probability, with what ends there."""
    columns = []
    arrays = map(np.asarray, (measures.probs_KN.T, measures.ends_N, measures.ids_KN.T))
    for probs, ends, ids in zip(*arrays, strict=True):
        column = {int(id): float(prob) for id, prob in zip(ids, probs, strict=True) if id >= 0}
        columns.append((column, float(ends)))
    return columns


def test_equals_enumeration_after_every_prefix():
    trie = trie_of(TOY_ROWS, len(TEACHER))
    prefixes = [prefix for prefix in reference.prefixes(TOY_ROWS) if prefix]
    draw = np.random.default_rng(0)
    p = draw.dirichlet(np.ones(len(STUDENT)), len(prefixes))
    nodes = jnp.array([node_of(trie, prefix) for prefix in prefixes])
    # The unembedding has three rows more than the tokenizer has tokens.
    log_p_VN = np.pad(np.float32(np.log(p.T)), ((0, 3), (0, 0)), constant_values=-np.inf)
    device = piece_trie_to_device(trie, student_vocab_size=len(STUDENT) + 3)
    measures = next_pieces(log_p_VN, device, nodes)
    assert measures.probs_KN.shape == (2, len(prefixes))  # no prefix has more than two children
    for prefix, p_V, (column, ends) in zip(prefixes, p, as_dicts(measures), strict=True):
        expected = reference.next_piece(p_V, TOY_ROWS, prefix)
        assert ends == pytest.approx(expected.pop(reference.END, 0.0), rel=1e-5)
        assert column == pytest.approx(expected, rel=1e-5), prefix
        assert sum(column.values()) + ends == pytest.approx(1)


def test_the_first_pieces_are_w_at_gamma_0():
    device = piece_trie_to_device(trie_of(TOY_ROWS, len(TEACHER)), teacher_vocab_size=8)
    dense = np.asarray(device.first.matrix_UV.todense())
    for token, row in enumerate(TOY_ROWS):
        np.testing.assert_array_equal(dense[:, token], np.eye(8)[row[0]] if row else np.zeros(8))
    begins = {row[0] for row in TOY_ROWS if row}
    assert np.flatnonzero(device.first.reachable_U).tolist() == sorted(begins)


def test_a_prefix_of_underflowing_probability_loses_nothing():
    trie = trie_of([(0,), (0, 1), (0, 1, 1), (0, 0), (1,)], 2)
    log_p = np.float32([-201.0, -203.0, -204.0, -200.0, 0.0])[:, None]
    measures = next_pieces(log_p, piece_trie_to_device(trie), jnp.array([node_of(trie, (0,))]))
    weights = np.exp([-1.0, -3.0, -4.0, 0.0])
    expected = np.array([weights[3], weights[1] + weights[2]]) / weights.sum()
    np.testing.assert_allclose(np.asarray(measures.probs_KN)[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(
        np.asarray(measures.ends_N)[0], weights[0] / weights.sum(), rtol=1e-5
    )


def test_tiny_children_are_as_exact_as_large_ones():
    # 5,000 tokens begin with piece 0, of probabilities over 16 orders of magnitude.
    draw = np.random.default_rng(1)
    rows = [(0, int(piece)) for piece in draw.integers(0, 1000, 5000)]
    log_p = np.sort(draw.uniform(-37, 0, 5000)).astype(np.float32)
    trie = trie_of(rows, 1000)
    measures = next_pieces(
        log_p[:, None], piece_trie_to_device(trie), jnp.array([node_of(trie, (0,))])
    )
    probs = np.exp(log_p.astype(np.float64))
    expected = np.bincount([row[1] for row in rows], probs / probs.sum(), minlength=1000)
    ids = np.asarray(measures.ids_KN)[:, 0]
    assert expected[ids].min() < 1e-10
    np.testing.assert_allclose(np.asarray(measures.probs_KN)[:, 0], expected[ids], rtol=1e-5)


def test_impossible_tokens_and_meaningless_nodes_stay_finite():
    trie = trie_of(TOY_ROWS, len(TEACHER))
    log_p_VN = np.full((len(STUDENT), 4), -np.inf, np.float32)
    log_p_VN[1:4, 1:] = 0.0
    nodes = jnp.array([node_of(trie, (0,)), -1, 0, len(trie.parent_M) + 5])

    def total(log_p_VN):
        measures = next_pieces(log_p_VN, piece_trie_to_device(trie), nodes)
        return (measures.probs_KN**2).sum() + (measures.ends_N**2).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(log_p_VN)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[:, 0].any()


def test_a_vocabulary_without_long_tokens():
    trie = trie_of([(0,), (1,)], 2)
    measures = next_pieces(jnp.zeros((2, 3)), piece_trie_to_device(trie), jnp.array([0, 1, 2]))
    assert np.isfinite(measures.probs_KN).all()


def test_an_unembedding_smaller_than_the_tokenizer_is_named():
    trie = trie_of(TOY_ROWS, len(TEACHER))
    with pytest.raises(ValueError, match="`student_vocab_size` must be at least"):
        piece_trie_to_device(trie, student_vocab_size=3)
