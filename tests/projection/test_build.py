"""W: its two passes, its options, and every real pair."""

import numpy as np
import pytest

from xtoken_jax.projection import build_projection, retokenise
from xtoken_jax.projection.build import _rows
from xtoken_jax.projection.retokenise import Pieces

PAIRS = [("llama3", "qwen3"), ("llama3", "smollm2-135m")]


def pieces_of(rows):
    offsets = np.cumsum([0, *map(len, rows)])
    return Pieces(np.array([id for row in rows for id in row], np.int32), offsets, np.array([]))


def test_weights_fall_by_gamma_and_are_normalised():
    ids, weights = _rows(pieces_of([[7, 8, 9], [4], []]), 0.9, 0.1, 4, drop=False)
    assert ids.tolist() == [[7, 8, 9, -1], [4, -1, -1, -1], [-1] * 4]
    np.testing.assert_allclose(
        weights, [[0.9009009, 0.0900901, 0.0090090, 0], [1, 0, 0, 0], [0] * 4], atol=1e-7
    )


def test_repeated_pieces_add_up_and_leave_no_hole():
    ids, weights = _rows(pieces_of([[5, 6, 5, 7]]), 0.9, 0.1, 4, drop=False)
    assert ids.tolist() == [[5, 6, 7, -1]]
    total = 1.111
    np.testing.assert_allclose(weights, [[1.01 / total, 0.1 / total, 0.001 / total, 0]], rtol=1e-6)


def test_long_rows_are_cut_or_dropped():
    long = pieces_of([[1, 2, 3], [4, 5]])
    cut, weights = _rows(long, 0.9, 0.1, 2, drop=False)
    assert cut.tolist() == [[1, 2], [4, 5]]
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    dropped, _ = _rows(long, 0.9, 0.1, 2, drop=True)
    assert dropped.tolist() == [[-1, -1], [4, 5]]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_rows_of_real_pairs_are_stochastic(tokenizer, pair):
    student, teacher = map(tokenizer, pair)
    projection = build_projection(student, teacher)
    sums = projection.weights_VK.sum(axis=1, dtype=np.float64)
    filled = np.ones(student.num_tokens, bool)
    filled[projection.empty_rows] = False
    np.testing.assert_allclose(sums[filled], 1, atol=1e-6)
    assert not sums[~filled].any()
    again = build_projection(student, teacher)
    np.testing.assert_array_equal(again.ids_VK, projection.ids_VK)
    np.testing.assert_array_equal(again.weights_VK, projection.weights_VK)


def test_without_gamma_only_the_first_piece_is_reached():
    ids, weights = _rows(pieces_of([[7, 8, 7], [4]]), 0.9, 0.0, 4, drop=False)
    assert ids.tolist() == [[7, -1, -1, -1], [4, -1, -1, -1]]
    assert weights.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]]


def test_options_decide_what_is_stored(tokenizer):
    student, teacher = tokenizer("smollm2-135m"), tokenizer("mistral-v3")
    lengths = retokenise(student, teacher).lengths_V
    kept = build_projection(student, teacher, max_pieces=3, gamma=0.5)
    assert kept.ids_VK.shape == (student.num_tokens, 3)
    assert kept.options == {
        "beta": 0.9,
        "gamma": 0.5,
        "max_pieces": 3,
        "long_pieces": "truncate",
    }
    word = student.id_of_bytes[b" syllabus"]  # " sy", "ll", "ab", "us"
    assert lengths[word] == 4
    np.testing.assert_allclose(kept.weights_VK[word], [4 / 7, 2 / 7, 1 / 7], rtol=1e-6)
    np.testing.assert_array_equal(kept.empty_rows, np.flatnonzero(lengths == 0))
    dropped = build_projection(student, teacher, max_pieces=3, long_pieces="drop")
    is_long = lengths > 3
    assert is_long.any()
    np.testing.assert_array_equal(dropped.empty_rows, np.flatnonzero(is_long | (lengths == 0)))


def test_a_tokenizer_projects_onto_itself(tokenizer):
    side = tokenizer("smollm2-135m")
    projection = build_projection(side, side)
    filled = np.ones(side.num_tokens, bool)
    filled[projection.empty_rows] = False
    assert [side.roles[id] for id in projection.empty_rows] == [0] * 14  # of no known purpose
    content = np.array([bool(content) for content in side.token_bytes])
    np.testing.assert_array_equal(projection.ids_VK[content, 0], np.flatnonzero(content))
    assert (projection.weights_VK[filled, 0] == 1).all()
    assert projection.reachable_U[content].all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0}, "`beta` must be positive, got 0"),
        ({"beta": float("nan")}, "`beta` must be positive, got nan"),
        ({"beta": float("inf")}, "`beta` must be positive, got inf"),
        ({"gamma": 1.5}, r"`gamma` must be in \[0, 1\], got 1.5"),
        ({"max_pieces": 0}, "`max_pieces` must be at least 1, got 0"),
        ({"long_pieces": "keep"}, "`long_pieces` must be one of"),
    ],
)
def test_bad_options_are_named(tokenizer, options, message):
    side = tokenizer("smollm2-135m")
    with pytest.raises(ValueError, match=message):
        build_projection(side, side, **options)
