"""Pieces to weights."""

import numpy as np

from xtoken_jax.projection.options import BuildOptions
from xtoken_jax.projection.retokenise import Pieces
from xtoken_jax.projection.weights import rows_of_pieces


def pieces_of(rows):
    offsets = np.cumsum([0, *map(len, rows)])
    return Pieces(np.array([id for row in rows for id in row], np.int32), offsets, np.array([]))


def test_weights_fall_by_gamma_and_are_normalised():
    ids, weights = rows_of_pieces(pieces_of([[7, 8, 9], [4], []]), BuildOptions())
    assert ids.tolist() == [[7, 8, 9, -1], [4, -1, -1, -1], [-1] * 4]
    np.testing.assert_allclose(
        weights, [[0.9009009, 0.0900901, 0.0090090, 0], [1, 0, 0, 0], [0] * 4], atol=1e-7
    )


def test_repeated_pieces_add_up_and_leave_no_hole():
    ids, weights = rows_of_pieces(pieces_of([[5, 6, 5, 7]]), BuildOptions())
    assert ids.tolist() == [[5, 6, 7, -1]]
    total = 1.111
    np.testing.assert_allclose(weights, [[1.01 / total, 0.1 / total, 0.001 / total, 0]], rtol=1e-6)


def test_long_rows_are_cut_or_dropped():
    long = pieces_of([[1, 2, 3], [4, 5]])
    cut, weights = rows_of_pieces(long, BuildOptions(max_pieces=2))
    assert cut.tolist() == [[1, 2], [4, 5]]
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    dropped, _ = rows_of_pieces(long, BuildOptions(max_pieces=2, long_pieces="drop"))
    assert dropped.tolist() == [[-1, -1], [4, 5]]


def test_without_gamma_only_the_first_piece_is_reached():
    ids, weights = rows_of_pieces(pieces_of([[7, 8, 7], [4]]), BuildOptions(gamma=0.0))
    assert ids.tolist() == [[7, -1, -1, -1], [4, -1, -1, -1]]
    assert weights.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]]
